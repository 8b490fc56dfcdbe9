"""Items in worker threads: in order, bounded, and nothing left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from degstalk_ns.parallel import in_order

PATIENCE = 20.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_results_come_in_the_order_of_the_items(pool: ThreadPoolExecutor, ahead: int) -> None:
    second_done = threading.Event()

    def square(number: int) -> int:
        if number == 0 and ahead > 1:
            assert second_done.wait(PATIENCE)  # the first item is done last
        if number == 1:
            second_done.set()
        return number**2

    assert list(in_order(pool, square, range(10), ahead)) == [number**2 for number in range(10)]


def test_nothing_comes_of_nothing(pool: ThreadPoolExecutor) -> None:
    assert list(in_order(pool, str, (), 3)) == []


def test_items_are_taken_only_so_far_ahead(pool: ThreadPoolExecutor) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(pool, str, items(), 4)
    assert taken == []
    for number in range(5):
        assert next(results) == str(number)
        assert len(taken) == number + 4
    results.close()
    assert len(taken) == 8


class _Blocked:
    """One worker that waits in its first item, and what has been started."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.go_on = threading.Event()

    def __call__(self, number: int) -> int:
        self.started.append(number)
        if number == 1:
            assert self.go_on.wait(PATIENCE)
        return number


def test_a_consumer_that_leaves_cancels_what_has_not_started() -> None:
    work = _Blocked()
    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(10), 5)
        assert next(results) == 0
        results.close()
        work.go_on.set()
    assert work.started in ([0], [0, 1])


def test_an_error_of_the_function_arrives_in_its_turn_and_cancels_the_rest() -> None:
    started = []

    def fail_at_two(number: int) -> int:
        started.append(number)
        if number == 2:
            raise KeyError("two")
        return number

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, fail_at_two, range(1000), 2)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(KeyError, match="two"):
            next(results)
    assert max(started) <= 3


def test_an_error_of_the_items_cancels_what_has_not_started() -> None:
    work = _Blocked()

    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise ValueError("no more")

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="no more"):
            next(in_order(pool, work, items(), 10))
        work.go_on.set()
    assert work.started in ([], [1])
