"""The standard scene of the benchmark: what it promises, and the same each time."""

from __future__ import annotations

import pytest
import torch

from degstalk_ns.bench.scene import MEDIAN_SIZE, standard_scene
from degstalk_ns.rasterization import rasterize


def test_the_scene_is_what_it_says_and_the_same_each_time() -> None:
    scene, again = standard_scene(2000, 128, seed=3), standard_scene(2000, 128, seed=3)
    for one, two in zip(scene.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two) and one.dtype == torch.float32
    means2d, radii = (rasterize(**scene.arguments())[2][key][0] for key in ("means2d", "radii"))
    assert (radii > 0).all()
    away = (means2d - 64).norm(dim=-1)
    assert 0.99 < float(away.max()) / (0.5 * 128 * 380 / 512) <= 1.001
    sizes = scene.scales * scene.Ks[0, 0, 0] / scene.means[:, 2:]
    assert float(sizes.median()) == pytest.approx(MEDIAN_SIZE, rel=0.05)
    assert float(sizes.log().std()) == pytest.approx(0.5, rel=0.05)
    assert not torch.equal(scene.means, standard_scene(2000, 128, seed=4).means)
    with pytest.raises(ValueError, match="size"):
        standard_scene(10, 0)
