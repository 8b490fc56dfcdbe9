"""The work that a picture needs: counted, not estimated."""

from __future__ import annotations

from dataclasses import replace

import torch

from degstalk_ns.bench.scene import standard_scene
from degstalk_ns.bench.work import Work, count_work
from degstalk_ns.rasterization import rasterize


def test_the_work_of_one_gaussian_and_of_many_on_top_of_each_other() -> None:
    scene = standard_scene(1, 64)
    one = replace(scene, means=torch.tensor([[0.0, 0.0, 1.0]]), opacities=torch.tensor([0.5]))
    alphas = rasterize(**one.arguments())[1]
    assert count_work(one).evaluations == int((alphas > 0).sum()) > 0

    def stack(count: int) -> Work:
        def repeat(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.expand(count, *tensor.shape[1:])

        changes = {name: repeat(getattr(one, name)) for name in ("means", "quats", "scales", "colors")}
        return count_work(replace(one, **changes, opacities=torch.full((count,), 0.95)))

    # 0.05^3 is above 1e-4 and 0.05^4 below: the middle is full at the fourth, which is still looked at
    assert stack(3).evaluations == 3 * stack(1).evaluations
    assert stack(2000).evaluations < 2000 * stack(1).evaluations / 4
    assert stack(8).intersections <= 8 * stack(1).intersections


def test_the_floor_is_the_longer_of_arithmetic_and_transport() -> None:
    work = Work(1, 1, forward_operations=100, backward_operations=200, forward_bytes=10, backward_bytes=50)
    assert work.floor(100.0, 100.0) == 1.0
    assert work.floor(100.0, 1.0) == 10.0
    assert work.floor(100.0, 100.0, backward=True) == 3.0
