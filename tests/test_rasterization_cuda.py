"""The CUDA backend of the rasterizer, without a GPU: how it calls gsplat."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from rasterizer_scenes import (
    make_scene,
    render,
)
from torch import Tensor

from degstalk_ns.rasterization import api, rasterize, spherical_harmonics


def test_cuda_backend_calls_gsplat_as_gsplat_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed: gsplat's functions are replaced by ones that check the call against their signatures."""
    import gsplat

    real = {name: inspect.signature(getattr(gsplat, name)) for name in ("rasterization", "spherical_harmonics")}

    def fake_rasterization(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
        given = real["rasterization"].bind(*args, **kwargs).arguments
        assert given["packed"] is False and given["sh_degree"] == 1 and given["eps2d"] == 0.1
        return torch.zeros(1, 8, 9, 3), torch.zeros(1, 8, 9, 1), {"radii": torch.ones(1, 5, dtype=torch.int32)}

    def fake_harmonics(*args: Any, **kwargs: Any) -> Tensor:
        given = real["spherical_harmonics"].bind(*args, **kwargs).arguments
        return _spherical_harmonics(given["degrees_to_use"], given["dirs"], given["coeffs"])

    from gsplat.cuda._torch_impl import _spherical_harmonics

    monkeypatch.setattr(gsplat, "rasterization", fake_rasterization)
    monkeypatch.setattr(gsplat, "spherical_harmonics", fake_harmonics)
    monkeypatch.setattr(api, "_choose", lambda backend, tensor: "cuda")
    scene = make_scene(5, 9, 8, colors=torch.randn(5, 4, 3), dtype=torch.float32) | {"sh_degree": 1, "eps2d": 0.1}
    scene["means"][2] = float("nan")
    meta = rasterize(**scene)[2]
    assert meta["radii"].tolist() == [[1, 1, 0, 1, 1]]
    assert (meta["width"], meta["height"], meta["n_cameras"], meta["backend"]) == (9, 8, 1, "cuda")
    ours = spherical_harmonics(1, scene["means"], scene["colors"], scene["viewmats"])
    monkeypatch.undo()
    torch.testing.assert_close(
        ours, spherical_harmonics(1, scene["means"], scene["colors"], scene["viewmats"], backend="reference")
    )


@pytest.mark.parametrize("behind", [False, True])
def test_passive_channels_are_a_render_of_their_own(monkeypatch: pytest.MonkeyPatch, behind: bool) -> None:
    """No GPU is needed: the reference renders in gsplat's place, which knows no passive channels."""
    import gsplat

    choose, calls = api._choose, []

    def fake_rasterization(packed: bool, **kwargs: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
        calls.append(kwargs["colors"].shape[-1])
        return rasterize(**kwargs, backend="reference")

    monkeypatch.setattr(gsplat, "rasterization", fake_rasterization)
    monkeypatch.setattr(api, "_choose", lambda backend, means: "cuda" if backend == "cuda" else choose(backend, means))
    scene = make_scene(30, 12, 10, 5, cameras=2) | {"passive": 2}
    if behind:
        scene["backgrounds"] = torch.rand(2, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    outputs, gradients, _ = render(scene, "cuda")
    assert calls == [3, 2]
    wanted, wanted_gradients, _ = render(scene, "reference")
    for output, want in zip(outputs, wanted, strict=True):
        torch.testing.assert_close(output, want)
    for name, want in wanted_gradients.items():
        torch.testing.assert_close(gradients[name], want)
