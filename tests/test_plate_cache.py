import numpy as np
import pytest
import torch

from degstalk_ns.plates.cache import PlateCache


def test_nearest_bounded_and_resized() -> None:
    asked: list[int] = []

    def read(frame: int) -> np.ndarray:
        asked.append(frame)
        return np.full((4, 6, 3), frame, np.uint8)

    cache = PlateCache(read, np.array([10, 0, 5]), capacity=2)
    device = torch.device("cpu")
    assert float(cache.at_frame(6, 6, 4, device)[0, 0, 0]) == pytest.approx(5 / 255)
    assert cache.at_frame(100, 3, 2, device).shape == (2, 3, 3)
    cache.at_frame(5, 6, 4, device)
    assert asked == [5, 10]
    cache.at_frame(0, 6, 4, device)  # pushes 10 out, the least recently shown
    cache.at_frame(5, 6, 4, device)
    cache.at_frame(10, 6, 4, device)
    assert asked == [5, 10, 0, 10]
    with pytest.raises(ValueError, match="plate cache"):
        PlateCache(read, np.array([], np.int64), capacity=2)
