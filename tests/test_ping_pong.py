from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.animation.ping_pong import calm_turns, longest_run, ping_pong


def test_ping_pong_never_jumps_nor_stands_still() -> None:
    rows = ping_pong(3, 7, 40)
    assert rows[:10].tolist() == [3, 4, 5, 6, 7, 6, 5, 4, 3, 4]
    assert (np.abs(np.diff(rows)) == 1).all() and rows.min() == 3 and rows.max() == 7


@pytest.mark.parametrize(("first", "last", "expected"), [(2, 2, [2, 2, 2]), (0, 1, [0, 1, 0]), (5, 9, [5, 6, 7])])
def test_ping_pong_of_short_stretches(first: int, last: int, expected: list[int]) -> None:
    assert ping_pong(first, last, 3).tolist() == expected
    assert len(ping_pong(first, last, 0)) == 0


def test_the_longest_stretch_without_a_gap_is_found() -> None:
    assert longest_run(np.array([0, 1, 2, 5, 6, 7, 8, 20])) == (5, 8)
    assert longest_run(np.array([4])) == (4, 4)


def test_turns_are_where_the_head_rests_with_open_eyes() -> None:
    count = 100
    c2w = np.tile(np.eye(4), (count, 1, 1))
    speed = np.ones(count)
    speed[8:15] = speed[88:95] = speed[97:] = 0.0  # rests
    c2w[:, 0, 3] = np.cumsum(speed) * 1e-3
    c2w[:, 2, 3] = 0.7
    blink = np.zeros(count)
    blink[96:] = 1.0  # the last rest is a blink
    start, end = calm_turns(c2w, blink)
    assert 8 <= start < 15 and 88 <= end < 95
    assert calm_turns(c2w[:1], blink[:1]) == (0, 0)
    assert calm_turns(c2w[:2], blink[:2]) == (0, 1)
