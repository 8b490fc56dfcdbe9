"""Shares of a kernel on a few threads: each once, on as many as torch may use, and errors come out."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from degstalk_ns.kernels import threads

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 2, 64])
@pytest.mark.parametrize("tasks", [0, 1, 3, 200])
def test_every_task_is_done_once(number: int, tasks: int) -> None:
    torch.set_num_threads(number)
    done: list[tuple[int, int, str]] = []
    threads.run(lambda *arguments: done.append(arguments), tasks, "argument")
    assert sorted(done) == [(task, tasks, "argument") for task in range(tasks)]


def test_two_tasks_run_at_the_same_time() -> None:
    both = threading.Barrier(2)
    where = set()

    def meet(task: int, tasks: int) -> None:
        both.wait(PATIENCE)
        where.add(threading.get_ident())

    threads.run(meet, 2)
    assert len(where) == 2 and threading.get_ident() in where


def test_one_thread_is_the_calling_one() -> None:
    torch.set_num_threads(1)
    where = set()
    threads.run(lambda task, tasks: where.add(threading.get_ident()), 20)
    assert where == {threading.get_ident()}


@pytest.mark.parametrize("in_the_caller", [True, False])
def test_an_error_in_any_thread_comes_out_and_the_next_run_is_whole(in_the_caller: bool) -> None:
    caller, both = threading.get_ident(), threading.Barrier(2)

    def fail(task: int, tasks: int) -> None:
        both.wait(PATIENCE)
        if (threading.get_ident() == caller) == in_the_caller:
            raise ArithmeticError("task")

    with pytest.raises(ArithmeticError, match="task"):
        threads.run(fail, 2)
    done: list[int] = []
    threads.run(lambda task, tasks: done.append(task), 10)
    assert sorted(done) == list(range(10))


def test_no_task_is_left_running_when_an_error_comes_out() -> None:
    caller, failed, finished = threading.get_ident(), threading.Event(), threading.Event()
    both = threading.Barrier(2)

    def kernel(task: int, tasks: int) -> None:
        both.wait(PATIENCE)
        if threading.get_ident() == caller:
            failed.set()
            raise ArithmeticError
        assert failed.wait(PATIENCE)
        finished.set()

    with pytest.raises(ArithmeticError):
        threads.run(kernel, 2)
    assert finished.is_set()


def test_any_thread_may_call_it() -> None:
    counts = [Counter[int]() for _ in range(3)]

    def call(own: Counter[int]) -> None:
        for _ in range(20):
            threads.run(lambda task, tasks: own.update([task]), 5)

    callers = [threading.Thread(target=call, args=(own,)) for own in counts]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE)
    assert counts == [Counter(dict.fromkeys(range(5), 20))] * 3


def test_a_core_is_left_free_only_where_all_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for number, inside in ((4, 3), (5, 4), (3, 3), (1, 1)):
        torch.set_num_threads(number)
        with pytest.raises(ZeroDivisionError), threads.cores_shared() as leave_one:
            for free in (True, False, True):
                leave_one(free)
                assert torch.get_num_threads() == (inside if free else number)
            raise ZeroDivisionError
        assert torch.get_num_threads() == number
