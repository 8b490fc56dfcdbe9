from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.plates.cache import PlateCache


def test_plates_are_read_once_and_kept_in_bounds() -> None:
    asked: list[int] = []

    def read(row: int) -> np.ndarray:
        asked.append(row)
        return np.full((4, 6, 3), row, np.uint8)

    cache = PlateCache(read, capacity=2)
    assert int(cache.at_row(5)[0, 0, 0]) == 5 and int(cache.at_row(10)[3, 5, 2]) == 10
    cache.at_row(5)
    assert asked == [5, 10]
    cache.at_row(0)  # pushes 10 out, the least recently shown
    cache.at_row(5)
    cache.at_row(10)
    assert asked == [5, 10, 0, 10]
    with pytest.raises(ValueError, match="plate cache"):
        PlateCache(read, capacity=0)
