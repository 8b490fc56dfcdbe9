"""Running a compiled kernel's shares on a few threads. It must not know what the kernels compute.

Not numba's own `parallel=True`: depending on the machine that aborts the process when two threads render at once, dies
after a fork, or brings a second OpenMP pool whose waiting threads spin against torch's. Kernels that release the GIL
need no more than plain threads, wait without spinning, and compile in half the time.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """In a forked child the threads are gone, and the lock may be held by one of them."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="rasterizer")
        return _pool


def run(kernel: Callable[..., Any], tasks: int, *arguments: Any) -> None:
    """Call `kernel(task, tasks, *arguments)` for every task in range(tasks), and return when all are done.

    As many threads as torch may use (`torch.set_num_threads`) share the tasks, the calling one among them; whichever
    is free takes the next. Safe to call from any thread. An exception in a kernel is raised here.
    """
    threads = min(torch.get_num_threads(), tasks)
    counter = itertools.count()

    def work() -> None:
        while (task := next(counter)) < tasks:
            kernel(task, tasks, *arguments)

    futures = [_workers().submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        for future in futures:
            # A helper that has not begun by now has nothing left to do.
            if not future.cancel():
                future.result()


@contextmanager
def cores_shared() -> Iterator[Callable[[bool], None]]:
    """Inside, the function that is given says whether torch leaves one core to a thread that works beside it.

    Where torch would take them all: with two cores and a thread that reads ahead, many small operations wait for the
    slower half (a step of the motion stage took a tenth longer on two cores than on one), few large ones gain from both
    (convolutions: a step took a fifth longer on one). At the end torch has as many threads as before.
    """
    threads = torch.get_num_threads()
    fewer = threads - 1 if 1 < threads >= (os.cpu_count() or 1) else threads

    def leave_one(free: bool) -> None:
        wanted = fewer if free else threads
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)

    try:
        yield leave_one
    finally:
        torch.set_num_threads(threads)
