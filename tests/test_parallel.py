"""Results come in order, and no further ahead than allowed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from degstalk_ns.parallel import in_order


def test_results_come_in_order_whichever_is_ready_first() -> None:
    def slow_at_first(i: int) -> int:
        time.sleep(0.02 if i % 4 == 0 else 0.0)
        return i * i

    with ThreadPoolExecutor(4) as pool:
        assert list(in_order(pool, slow_at_first, range(20), 6)) == [i * i for i in range(20)]
        assert list(in_order(pool, slow_at_first, range(2), 6)) == [0, 1]


def test_items_are_taken_no_further_ahead_than_allowed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(10):
            taken.append(i)
            yield i

    with ThreadPoolExecutor(2) as pool:
        results = in_order(pool, lambda i: i, items(), 3)
        for i in range(4):
            assert next(results) == i and len(taken) == i + 3
        results.close()  # type: ignore[attr-defined]
    assert len(taken) == 6


def test_an_error_comes_at_its_place_and_cancels_what_has_not_started() -> None:
    release, ran = threading.Event(), []

    def function(i: int) -> int:
        ran.append(i)
        if i == 0:
            release.wait(5)
            raise ValueError("item 0")
        return i

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, function, range(10), 4)
        threading.Timer(0.05, release.set).start()
        with pytest.raises(ValueError, match="item 0"):
            next(results)
    assert len(ran) <= 4
