"""Runs a function over many items in worker threads; results come in order and the number of items in work is limited.

Preprocessing and the sample use it to process several frames at a time, training to load the frames of the next steps.
Threads are enough: OpenCV and MediaPipe release the interpreter lock. It must not know what the function does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """``function(item)`` for each item, in order, with at most ``ahead`` items under way or waiting to be taken.

    An exception of the function, of the items or of the consumer cancels what has not started.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
