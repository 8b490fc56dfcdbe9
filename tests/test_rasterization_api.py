"""The rasterizer's public functions: values by hand, bad input, and what every backend must keep."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rasterizer_scenes import (
    make_scene,
    render,
)
from torch import Tensor

from degstalk_ns.kernels import buffers
from degstalk_ns.rasterization import rasterize, spherical_harmonics
from degstalk_ns.rasterization.rules import RULES


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_spherical_harmonics_against_gsplat(degree: int, backend: Any) -> None:
    from gsplat.cuda._torch_impl import _spherical_harmonics

    random = torch.Generator().manual_seed(degree)
    means = torch.randn(60, 3, generator=random, dtype=torch.float64).requires_grad_()
    coeffs = torch.randn(60, 16, 3, generator=random, dtype=torch.float64).requires_grad_()
    viewmats = make_scene(1, 8, 8, cameras=2)["viewmats"].requires_grad_()
    directions = means - torch.inverse(viewmats)[:, None, :3, 3]
    want = torch.clamp_min(_spherical_harmonics(degree, directions, coeffs.expand(2, -1, -1, -1)) + 0.5, 0.0)
    ours = spherical_harmonics(degree, means, coeffs, viewmats, backend=backend)
    torch.testing.assert_close(ours, want)
    weight = torch.randn(want.shape, generator=random, dtype=torch.float64)
    leaves = (means, coeffs, viewmats)
    # a colour of degree 0 does not depend on the direction, which one graph leaves out and the other calls 0
    wanted_gradients = torch.autograd.grad((want * weight).sum(), leaves, materialize_grads=True, allow_unused=True)
    gradients = torch.autograd.grad((ours * weight).sum(), leaves, materialize_grads=True, allow_unused=True)
    for gradient, wanted in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_one_gaussian_by_hand(backend: Any) -> None:
    """A round Gaussian in the middle of pixel (4, 3): its alpha, and the colour behind it, at three pixels."""
    focal, depth, size, opacity = 10.0, 2.0, 0.4, 0.8
    one = torch.ones(1, dtype=torch.float64)
    mean = torch.tensor([[4.5 * depth / focal, 3.5 * depth / focal, depth]], dtype=torch.float64)
    K = torch.diag(torch.tensor([focal, focal, 1.0], dtype=torch.float64))[None]
    quat = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    view = torch.eye(4, dtype=torch.float64)[None]
    background = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    color = torch.tensor([[0.25, 0.5, 0.0]], dtype=torch.float64)
    renders, alphas, meta = rasterize(
        mean, quat, size * torch.ones_like(mean), opacity * one, color, view, K, 9, 8, backgrounds=background,
        eps2d=0.3, backend=backend,
    )  # fmt: skip
    assert meta["means2d"][0, 0].tolist() == pytest.approx([4.5, 3.5])
    slopes = (4.5 / focal, 3.5 / focal)
    spread = (focal * size / depth) ** 2
    xx, yy, xy = (
        (1 + slopes[0] ** 2) * spread + 0.3,
        (1 + slopes[1] ** 2) * spread + 0.3,
        slopes[0] * slopes[1] * spread,
    )
    for dx, dy in ((0, 0), (2, 0), (-1, 2)):
        exponent = 0.5 * (yy * dx * dx + xx * dy * dy - 2 * xy * dx * dy) / (xx * yy - xy * xy)
        alpha = opacity * float(torch.exp(torch.tensor(-exponent, dtype=torch.float64)))
        assert float(alphas[0, 3 + dy, 4 + dx]) == pytest.approx(alpha)
        want = [0.25 * alpha + (1 - alpha), 0.5 * alpha, 0.0]
        assert renders[0, 3 + dy, 4 + dx].tolist() == pytest.approx(want)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_full_pixel_takes_nothing_more(backend: Any) -> None:
    """0.999 and 0.8 leave 2e-4; one more of 0.6 would leave less than 1e-4 and is left out, as all behind it is."""
    opacities = [1.0, 0.8, 0.6, 0.1]
    means = torch.tensor([[0.0, 0.0, 1.0 + 0.1 * k] for k in range(4)], dtype=torch.float64)
    many = torch.ones(4, 4, dtype=torch.float64)
    K = torch.tensor([[[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]], dtype=torch.float64)
    order = [2, 0, 3, 1]  # given out of order
    _, alphas, _ = rasterize(
        means[order], many, 0.1 * many[:, :3], torch.tensor(opacities, dtype=torch.float64)[order], many[:, :3],
        torch.eye(4, dtype=torch.float64)[None], K, 1, 1, backend=backend,
    )  # fmt: skip
    assert 1 - float(alphas) == pytest.approx((1 - RULES.max_alpha) * 0.2, rel=1e-9)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_gaussians_are_culled(backend: Any, name: str, value: float) -> None:
    broken = make_scene(60, 24, 24, cameras=2)
    broken[name][7, ...] = value
    rest = {k: v if k in ("viewmats", "Ks", "width", "height") else v[torch.arange(60) != 7] for k, v in broken.items()}
    outputs, gradients, meta = render(broken, backend)
    wanted, wanted_gradients, _ = render(rest, backend)
    assert (meta["radii"][:, 7] == 0).all()
    for output, want in zip(outputs, wanted, strict=True):
        torch.testing.assert_close(output, want)
    for key in ("means", "quats", "scales", "opacities", "colors"):
        assert not gradients[key][7].any()
        torch.testing.assert_close(gradients[key][torch.arange(60) != 7], wanted_gradients[key])
    torch.testing.assert_close(gradients["viewmats"], wanted_gradients["viewmats"])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_non_finite_means_with_spherical_harmonics(backend: Any) -> None:
    scene = make_scene(30, 16, 16, colors=torch.randn(30, 4, 3), dtype=torch.float32) | {"sh_degree": 1}
    scene["means"][3] = float("nan")
    outputs, gradients, _ = render(scene, backend)
    assert all(torch.isfinite(value).all() for value in [*outputs, *gradients.values()])
    means, coeffs, viewmats = scene["means"].requires_grad_(), scene["colors"].requires_grad_(), scene["viewmats"]
    colors = spherical_harmonics(1, means, coeffs, viewmats, backend=backend)
    colors.sum().backward()
    assert torch.isfinite(colors).all() and torch.isfinite(means.grad).all() and torch.isfinite(coeffs.grad).all()


def test_more_than_fits_into_memory_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**20))
    monkeypatch.setattr(buffers, "LARGE", 2**19)
    monkeypatch.setattr(buffers, "_free", defaultdict(deque))
    with pytest.raises(MemoryError, match="fewer or smaller Gaussians") as caught:
        rasterize(**make_scene(5, 700, 700, dtype=torch.float32))
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    rasterize(**make_scene(5, 70, 70, dtype=torch.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "area"),
        ({"height": -3}, "area"),
        ({"means": torch.zeros(5, 2)}, "means"),
        ({"quats": torch.zeros(5, 3)}, "quats"),
        ({"scales": torch.zeros(4, 3)}, "scales"),
        ({"opacities": torch.zeros(5, 1)}, "opacities"),
        ({"colors": torch.zeros(4, 3)}, "colors"),
        ({"colors": torch.zeros(5)}, "colors"),
        ({"colors": torch.zeros(5, 0)}, "colors"),
        ({"colors": torch.zeros(2, 5, 3)}, "colors"),
        ({"colors": torch.zeros(5, 3), "sh_degree": 1}, "SH"),
        ({"colors": torch.zeros(5, 3, 3), "sh_degree": 1}, "4"),
        ({"colors": torch.zeros(5, 25, 3), "sh_degree": 4}, "degree"),
        ({"viewmats": torch.zeros(4, 4)}, "viewmats"),
        ({"viewmats": torch.zeros(0, 4, 4), "Ks": torch.zeros(0, 3, 3)}, "camera"),
        ({"Ks": torch.zeros(2, 3, 3)}, "Ks"),
        ({"backgrounds": torch.zeros(1, 4)}, "backgrounds"),
        ({"means": torch.zeros(5, 3, dtype=torch.float64)}, "float64"),
        ({"near_plane": 0.0}, "near_plane"),
        ({"far_plane": 0.001}, "far_plane"),
        ({"eps2d": -1.0}, "eps2d"),
        ({"passive": 3}, "passive must leave a channel of the 3"),
        ({"passive": -1}, "passive"),
        ({"colors": torch.zeros(5, 1), "passive": 1}, "passive"),
        ({"backend": "opengl"}, "backend"),
        ({"backend": "cuda"}, "GPU"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    scene = make_scene(5, 8, 8, dtype=torch.float32) | change
    with pytest.raises(ValueError, match=message) as caught:
        rasterize(**scene)
    assert "\n" not in str(caught.value)


def test_other_dtypes() -> None:
    halves = make_scene(5, 8, 8, dtype=torch.float16)
    with pytest.raises(ValueError, match="float16"):
        rasterize(**halves, backend="cpu")
    assert rasterize(**make_scene(5, 8, 8))[2]["backend"] == "reference"
    assert rasterize(**make_scene(5, 8, 8, dtype=torch.float32))[2]["backend"] == "cpu"
    whole = make_scene(5, 8, 8)
    whole = {k: v.long() if isinstance(v, Tensor) else v for k, v in whole.items()}
    with pytest.raises(ValueError, match="floating point"):
        rasterize(**whole)


def test_meta_is_what_gsplat_strategies_read() -> None:
    scene = make_scene(20, 24, 16, cameras=2, dtype=torch.float32)
    scene["means"].requires_grad_()
    renders, alphas, meta = rasterize(**scene)
    assert renders.shape == (2, 16, 24, 3) and alphas.shape == (2, 16, 24, 1)
    assert meta["radii"].shape == (2, 20) and meta["radii"].dtype == torch.int32
    assert meta["means2d"].shape == (2, 20, 2) and meta["opacities"].shape == (2, 20)
    assert (meta["width"], meta["height"], meta["n_cameras"]) == (24, 16, 2)
    meta["means2d"].retain_grad()
    renders.sum().backward()
    assert meta["means2d"].grad.shape == (2, 20, 2)


def test_importing_touches_no_gpu_code() -> None:
    program = "import sys, degstalk_ns.rasterization as r; raise SystemExit('gsplat' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0
