"""The rasterizer: the reference against gsplat's PyTorch code and finite differences, the CPU backend against it."""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
import threading
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from degstalk_ns.kernels import buffers, finite, lanes
from degstalk_ns.rasterization import api, rasterize, reference, spherical_harmonics
from degstalk_ns.rasterization.rules import RULES

OUTPUTS_WITHIN = 1e-4
GRADIENTS_WITHIN = 1e-3
INPUTS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")


def make_scene(
    count: int,
    width: int,
    height: int,
    channels: int = 3,
    cameras: int = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **changes: Tensor,
) -> dict[str, Any]:
    """A cloud of Gaussians two units in front of cameras side by side; `changes` replace arguments of rasterize()."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=torch.float64)

    viewmats = torch.eye(4, dtype=torch.float64).repeat(cameras, 1, 1)
    viewmats[:, 0, 3] = torch.linspace(0.0, 0.2, cameras)
    viewmats[:, 2, 3] = 2.0
    focal = 1.1 * width
    Ks = torch.tensor([[focal, 0, 0.48 * width], [0, 1.05 * focal, 0.53 * height], [0, 0, 1]], dtype=torch.float64)
    scene: dict[str, Any] = {
        "means": 0.5 * normal(count, 3),
        "quats": normal(count, 4),
        "scales": torch.exp(0.7 * normal(count, 3) - 2.7),
        "opacities": uniform(count),
        "colors": uniform(count, channels),
        "viewmats": viewmats,
        "Ks": Ks.repeat(cameras, 1, 1),
        "width": width,
        "height": height,
    }
    scene.update(changes)
    return {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in scene.items()}


def render(scene: dict[str, Any], backend: Any) -> tuple[list[Tensor], dict[str, Tensor], dict[str, Any]]:
    """Outputs, the gradients of a random linear loss on them, and meta."""
    scene = {k: v.clone().requires_grad_(k in INPUTS) if isinstance(v, Tensor) else v for k, v in scene.items()}
    renders, alphas, meta = rasterize(**scene, backend=backend)
    meta["means2d"].retain_grad()
    random = torch.Generator().manual_seed(7)
    weights = [torch.randn(out.shape, generator=random, dtype=torch.float64).to(out.dtype) for out in (renders, alphas)]
    ((renders * weights[0]).sum() + (alphas * weights[1]).sum()).backward()
    leaves = {k: scene[k] for k in INPUTS if k in scene} | {"means2d": meta["means2d"]}
    gradients = {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in leaves.items()}
    return [renders.detach(), alphas.detach()], gradients, meta


def assert_same(scene: dict[str, Any]) -> None:
    """The CPU backend agrees with the reference on a float64 scene: outputs, radii and every gradient."""
    wanted, wanted_gradients, wanted_meta = render(scene, "reference")
    outputs, gradients, meta = render(scene, "cpu")
    assert torch.equal(meta["radii"], wanted_meta["radii"])
    for key in ("means2d", "depths", "conics"):
        torch.testing.assert_close(meta[key], wanted_meta[key], rtol=1e-9, atol=1e-9)
    for output, want in zip(outputs, wanted, strict=True):
        assert output.shape == want.shape
        assert torch.isfinite(output).all()
        assert (output - want).abs().max() <= OUTPUTS_WITHIN if want.numel() else True
    for name, want in wanted_gradients.items():
        gradient = gradients[name]
        assert torch.isfinite(gradient).all(), name
        if want.numel() == 0:
            continue
        wrong = gradient - want
        assert wrong.norm() <= GRADIENTS_WITHIN * want.norm() + 1e-12, name
        assert wrong.abs().max() <= GRADIENTS_WITHIN * want.abs().max() + 1e-12, name


# ------------------------------------------------------------------------------------------ the CPU backend, in float64


@pytest.mark.parametrize(
    ("count", "width", "height", "channels", "cameras"),
    [
        (400, 48, 40, 3, 1),
        (300, 37, 51, 5, 2),  # tiles cut off at both borders
        (150, 33, 17, 1, 3),
        (60, 16, 16, 8, 1),
        (40, 20, 20, 11, 1),  # more channels than are kept in registers
        (5, 1, 1, 3, 1),
        (1, 9, 7, 3, 1),
    ],
)
def test_random_scenes(count: int, width: int, height: int, channels: int, cameras: int) -> None:
    for seed in range(2):
        assert_same(make_scene(count, width, height, channels, cameras, seed))


def test_backgrounds_and_a_colour_per_camera() -> None:
    random = torch.Generator().manual_seed(3)
    colors = torch.rand(2, 200, 3, generator=random, dtype=torch.float64)
    backgrounds = torch.rand(2, 3, generator=random, dtype=torch.float64)
    assert_same(make_scene(200, 40, 24, 3, 2, colors=colors, backgrounds=backgrounds))


def test_long_gaussians_aslant_over_many_tiles() -> None:
    """Listed only in the tiles that their ellipses pass, unlike short ones; some pass the image's corners."""
    scene = make_scene(60, 170, 150)
    scene["scales"] = torch.tensor([0.6, 0.01, 0.02], dtype=torch.float64) * (1 + scene["scales"])
    radii = rasterize(**scene, backend="cpu")[2]["radii"]
    assert (radii > 96).sum() > 20
    assert_same(scene)


@pytest.mark.parametrize("eps2d", [0.0, 0.3, 5.0])
def test_eps2d(eps2d: float) -> None:
    assert_same(make_scene(200, 32, 32) | {"eps2d": eps2d})


def test_turned_cameras() -> None:
    scene = make_scene(200, 32, 32, cameras=2)
    turns = torch.linalg.qr(torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    turns = turns * torch.linalg.det(turns)[:, None, None]
    scene["viewmats"][:, :3, :3] = turns
    assert_same(scene)


def degenerate_scenes() -> dict[str, dict[str, Any]]:
    def ones(*shape: int) -> Tensor:
        return torch.ones(*shape, dtype=torch.float64)

    plain = make_scene(100, 40, 40)
    behind = plain["means"].clone()
    behind[::2, 2] -= 5.0
    all_behind = plain["means"] - torch.tensor([0.0, 0.0, 9.0])
    aside = plain["means"].clone()
    aside[::2, 0] += 30.0
    near_the_edge = plain["means"].clone()
    near_the_edge[:, 0] += 1.5  # where the Jacobian is clamped
    on_the_camera = plain["means"].clone()
    on_the_camera[:10] = torch.tensor([0.0, 0.0, -2.0])
    dot = torch.zeros(3000, 3, dtype=torch.float64) + torch.tensor([0.01, 0.02, 0.0])
    one_depth = plain["means"].clone()
    one_depth[:, 2] = 0.1
    needles = torch.tensor([1.0, 1e-4, 1e-4], dtype=torch.float64).repeat(100, 1)
    scenes = {
        "half behind": plain | {"means": behind},
        "all behind": plain | {"means": all_behind},
        "off screen": plain | {"means": aside},
        "beyond the field of view": plain | {"means": near_the_edge, "scales": plain["scales"] * 8},
        "on the camera": plain | {"means": on_the_camera},
        "opacity 0": plain | {"opacities": 0 * ones(100)},
        "some opacity 0": plain | {"opacities": plain["opacities"] * (torch.arange(100) % 2)},
        "opaque": plain | {"opacities": ones(100)},
        "fainter than is drawn": plain | {"opacities": ones(100) / 300},
        "huge": plain | {"scales": 50 * ones(100, 3)},
        "colossal": plain | {"scales": 1e12 * ones(100, 3)},
        "tiny": plain | {"scales": 1e-9 * ones(100, 3)},
        "tiny without blur": plain | {"scales": 1e-9 * ones(100, 3), "eps2d": 0.0},
        "flat": plain | {"scales": plain["scales"] * torch.tensor([1.0, 1.0, 0.0])},
        "needles": plain | {"scales": needles},
        "needles that pass far outside": plain | {"means": aside * 100, "scales": 1e5 * needles},
        "quats of no length": plain | {"quats": plain["quats"] * (torch.arange(100) % 2)[:, None]},
        "long and short quats": plain | {"quats": plain["quats"] * torch.logspace(-6, 6, 100)[:, None].double()},
        "same depth": plain | {"means": one_depth},
        "thousands on one pixel": make_scene(3000, 24, 24) | {"means": dot, "scales": 1e-3 * ones(3000, 3)},
        "radius clip": plain | {"radius_clip": 6.0},
        "near and far": plain | {"near_plane": 1.8, "far_plane": 2.2},
        "empty": make_scene(0, 40, 40, cameras=2, backgrounds=ones(2, 3)),
    }
    return scenes


@pytest.mark.parametrize("name", degenerate_scenes())
def test_degenerate_scenes(name: str) -> None:
    assert_same(degenerate_scenes()[name])


@pytest.mark.parametrize("name", degenerate_scenes())
def test_degenerate_scenes_stay_finite_in_float32(name: str) -> None:
    scene = {k: v.float() if isinstance(v, Tensor) else v for k, v in degenerate_scenes()[name].items()}
    outputs, gradients, _ = render(scene, "cpu")
    assert all(torch.isfinite(value).all() for value in [*outputs, *gradients.values()])
    assert (outputs[1] >= 0).all() and (outputs[1] <= 1).all()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics_in_a_render(degree: int) -> None:
    coeffs = torch.randn(80, 16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert_same(make_scene(80, 24, 24, cameras=2, colors=coeffs) | {"sh_degree": degree})


def test_only_one_output_used() -> None:
    for use in (0, 1):
        gradients = []
        for backend in ("reference", "cpu"):
            scene = make_scene(50, 20, 20)
            scene["means"].requires_grad_()
            scene["colors"].requires_grad_()
            renders, alphas, _ = rasterize(**scene, backend=backend)
            (renders, alphas)[use].square().sum().backward()
            gradients.append((scene["means"].grad, scene["colors"].grad))
        torch.testing.assert_close(gradients[1][0], gradients[0][0])
        if use == 0:
            torch.testing.assert_close(gradients[1][1], gradients[0][1])


def test_gradients_through_meta() -> None:
    gradients = []
    for backend in ("reference", "cpu"):
        scene = make_scene(50, 20, 20, cameras=2)
        leaves = [scene[name].requires_grad_() for name in ("means", "quats", "scales", "viewmats")]
        meta = rasterize(**scene, backend=backend)[2]
        loss = meta["depths"].square().sum() + meta["conics"].sin().sum() + meta["means2d"].sum()
        gradients.append(torch.autograd.grad(loss, leaves))
    for ours, want in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(ours, want)


def test_a_shared_background_is_not_written_to() -> None:
    background = torch.rand(1, 3, dtype=torch.float64)
    before = background.clone()
    rasterize(**make_scene(5, 1, 1), backgrounds=background, backend="cpu")
    assert torch.equal(background, before)


# ---------------------------------------------------------------------------------------------- float32, other settings


def test_float32_is_close_to_the_reference() -> None:
    scene = make_scene(600, 64, 48)
    wanted, wanted_gradients, _ = render(scene, "reference")
    single = {k: v.float() if isinstance(v, Tensor) else v for k, v in scene.items()}
    outputs, gradients, _ = render(single, "auto")
    for output, want in zip(outputs, wanted, strict=True):
        assert output.dtype == torch.float32
        assert (output - want).abs().mean() < 1e-5
        assert (output - want).abs().max() < 1e-2  # one Gaussian more or less at its edge is 1/255
    for name, want in wanted_gradients.items():
        assert (gradients[name] - want).norm() < 1e-2 * want.norm(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_twice_whatever_the_threads(dtype: torch.dtype) -> None:
    scene = make_scene(800, 64, 48, cameras=2, dtype=dtype)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 64, 64):
            torch.set_num_threads(number)
            results.append(render(scene, "cpu"))
    finally:
        torch.set_num_threads(threads)
    for outputs, gradients, _ in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outputs, results[0][0], strict=True))
        assert all(torch.equal(gradient, results[0][1][name]) for name, gradient in gradients.items())


def test_two_threads_render_at_once() -> None:
    scenes = [make_scene(300, 48, 48, seed=seed, dtype=torch.float32) for seed in range(2)]
    wanted = [render(scene, "cpu") for scene in scenes]
    wrong: list[str] = []

    def work(which: int) -> None:
        try:
            for _ in range(15):
                outputs, gradients, _meta = render(scenes[which], "cpu")
                if not all(torch.equal(a, b) for a, b in zip(outputs, wanted[which][0], strict=True)):
                    wrong.append("outputs")
                if not all(torch.equal(gradients[name], want) for name, want in wanted[which][1].items()):
                    wrong.append("gradients")
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_renders_after_a_fork() -> None:
    program = """
import os, torch
from degstalk_ns.rasterization import rasterize
torch.set_num_threads(2)
one = torch.ones(4, 3)
scene = (one, torch.ones(4, 4), one, one[:, 0], one, torch.eye(4)[None], torch.eye(3)[None], 40, 40)
rasterize(*scene)
child = os.fork()
if child == 0:
    rasterize(*scene)
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


# ------------------------------------------------------------------------------------------------------------ reference


def test_reference_gradients_against_finite_differences() -> None:
    scene = make_scene(3, 4, 3, 2, backgrounds=torch.full((1, 2), 0.3))
    scene["scales"] = scene["scales"] * 3
    scene["opacities"] = 0.2 + 0.5 * scene["opacities"]  # nothing clamped, no pixel full: smooth but for faint edges
    leaves: dict[str, Any] = {name: scene.pop(name).requires_grad_() for name in INPUTS}

    def loss(*values: Tensor) -> tuple[Tensor, Tensor]:
        given: dict[str, Any] = dict(zip(leaves, values, strict=True))
        return rasterize(**scene, **given, backend="reference")[:2]

    assert torch.autograd.gradcheck(loss, tuple(leaves.values()), eps=1e-7, atol=1e-4, rtol=1e-3)


def test_projection_against_gsplat() -> None:
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    scene = make_scene(500, 64, 48, cameras=2)
    covars = _quat_scale_to_covar_preci(scene["quats"], scene["scales"], compute_preci=False)[0]
    radii, means2d, depths, conics, _ = _fully_fused_projection(
        scene["means"], covars, scene["viewmats"], scene["Ks"], scene["width"], scene["height"]
    )
    shown = radii > 0
    assert 100 < shown.sum() < shown.numel()
    for backend in ("reference", "cpu"):
        meta = rasterize(**scene, backend=backend)[2]
        assert torch.equal(meta["radii"], radii)
        for key, want in (("means2d", means2d), ("depths", depths), ("conics", conics)):
            torch.testing.assert_close(meta[key][shown], want[shown])


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


def test_reference_in_chunks_of_pixels_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(40, 12, 10)
    whole = render(scene, "reference")
    monkeypatch.setattr(reference, "PAIRS_AT_ONCE", 300)
    parts = render(scene, "reference")
    for output, want in zip(parts[0], whole[0], strict=True):
        torch.testing.assert_close(output, want)
    for name, want in whole[1].items():
        torch.testing.assert_close(parts[1][name], want)


# ------------------------------------------------------------------------------------------------------------ bad input


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


def test_importing_touches_no_gpu_code() -> None:
    program = "import sys, degstalk_ns.rasterization as r; raise SystemExit('gsplat' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


# -------------------------------------------------------------------------------------------------------------- buffers


def test_memory_is_used_again_once_nothing_refers_to_it() -> None:
    first = buffers.borrow((300, 7), np.float32)
    assert first.shape == (300, 7) and first.dtype == np.float32 and first.flags.c_contiguous and first.flags.writeable
    where = first.ctypes.data
    assert where % buffers.CACHE_LINE == 0
    view = torch.from_numpy(first)[5:].view(-1)
    del first
    assert buffers.borrow((300, 7), np.float32).ctypes.data != where  # the view still needs it
    del view
    gc.collect()
    assert where in [buffers.borrow((300, 7), np.float32).ctypes.data for _ in range(2)]
    assert buffers.borrow((0, 4), np.int32).shape == (0, 4)


def test_pictures_do_not_share_memory() -> None:
    scene = make_scene(50, 40, 40, dtype=torch.float32)
    first = rasterize(**scene)[0]
    copy = first.clone()
    scene["colors"] = 1 - scene["colors"]
    second = rasterize(**scene)[0]
    assert torch.equal(first, copy) and not torch.equal(first, second)


# ---------------------------------------------------------------------------------------------------------------- lanes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanes(dtype: Any) -> None:
    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def compute(x: Any, y: Any, out: Any) -> Any:
        a, b = lanes.load(x, 0), lanes.load(y, 0)
        lanes.store(out, 0, (a + b) * 2.0 - a / b)
        lanes.store(out, 16, lanes.select((a < b) & ~(a <= 0.0), a, b))
        lanes.store(out, 32, lanes.exp2(a))
        lanes.store(out, 48, lanes.larger(lanes.smaller(a, b), 0.25))
        lanes.store(out, 64, lanes.totals((a, b, a * b)))
        return lanes.total(a), lanes.some(a > 100.0), lanes.some(a >= lanes.load(x, 0))

    random = np.random.default_rng(0)
    x, y = random.uniform(-20, 20, 16).astype(dtype), random.uniform(1, 2, 16).astype(dtype)
    out = np.zeros(80, dtype)
    total, none, one = compute(x, y, out)
    close = 3e-7 if dtype == np.float32 else 1e-15
    np.testing.assert_allclose(out[:16], (x + y) * 2 - x / y, rtol=20 * close, atol=20 * close)
    np.testing.assert_array_equal(out[16:32], np.where((x < y) & ~(x <= 0), x, y))
    np.testing.assert_allclose(out[32:48], np.exp2(x.astype(np.float64)), rtol=close)
    np.testing.assert_array_equal(out[48:64], np.maximum(np.minimum(x, y), dtype(0.25)))
    np.testing.assert_allclose(out[64:67], [x.sum(), y.sum(), (x * y).sum()], rtol=1e-4)
    assert not out[67:].any()
    assert total == pytest.approx(x.sum(), rel=1e-4) and not none and one


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("last", [2, 15, 18])
def test_lanes_of_columns(dtype: Any, last: int) -> None:
    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def compute(table: Any, whole: Any, copied: Any, rows: Any, numbers: Any) -> None:
        a, b = lanes.load_column(table, 3, last, 1), lanes.load_column(whole, 3, last, 0)
        lanes.store_column(copied, 3, last, 0, a + b)
        lanes.store_column(numbers, 3, last, 0, lanes.whole_below(a))
        c = (a, b, a + 1.0, a + 2.0, a + 3.0, a + 4.0, a + 5.0, a + 6.0)
        d = (b + 1.0, b + 2.0, b + 3.0, b + 4.0, b + 5.0, b + 6.0, b + 7.0, b + 8.0)
        lanes.store_rows(rows, 3, last, c + d)

    random = np.random.default_rng(0)
    table = random.uniform(-9, 9, (20, 3)).astype(dtype)
    whole = random.integers(-9, 9, 20).astype(np.int32)
    copied, rows, numbers = np.zeros((20, 2), dtype), np.zeros((20, 18), dtype), np.zeros(20, np.int32)
    compute(table, whole, copied, rows, numbers)
    end = min(last, 3 + lanes.LANES - 1) + 1
    there = slice(3, end) if last >= 3 else slice(last, last + 1)  # beyond the last row, that row again
    a, b = table[there, 1].astype(np.float64), whole[there].astype(np.float64)
    np.testing.assert_array_equal(copied[there, 0], (a + b).astype(dtype))
    np.testing.assert_array_equal(numbers[there], np.floor(a))
    expected = np.stack([a, b, *(a + k for k in range(1, 7)), *(b + k for k in range(1, 9))], axis=1)
    np.testing.assert_array_equal(rows[there, :16], expected.astype(dtype))
    others = np.setdiff1d(np.arange(20), np.arange(20)[there])
    assert not copied[others].any() and not rows[others].any() and not numbers[others].any() and not rows[:, 16:].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_lanes_of_a_block_of_pixels(dtype: Any, depth: int) -> None:
    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def one(values: Any, image: Any) -> None:
        lanes.store_block(image, 5, 7, (lanes.load(values, 0),))

    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def three(values: Any, image: Any) -> None:
        a, b, c = lanes.load(values, 0), lanes.load(values, 16), lanes.load(values, 32)
        lanes.store_block(image, 15, 21, (a, b, c))

    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def four(values: Any, image: Any) -> None:
        a, b, c, d = lanes.load(values, 0), lanes.load(values, 16), lanes.load(values, 32), lanes.load(values, 48)
        lanes.store_block(image, 20, 28, (a, b, c, d))

    values = np.random.default_rng(0).uniform(1, 2, depth * 16).astype(dtype)
    image = np.zeros(6 * 7 * depth, dtype)
    {1: one, 3: three, 4: four}[depth](values, image)
    expected = np.zeros((6, 7, depth), dtype)
    flat = expected.reshape(42, depth)
    for row in range(4):
        flat[5 + 7 * row : 9 + 7 * row] = values.reshape(depth, 16)[:, 4 * row : 4 * row + 4].T
    np.testing.assert_array_equal(image, expected.reshape(-1))


def test_logarithms_in_lanes() -> None:
    @numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def compute(x: Any, out: Any) -> None:
        for at in range(0, len(x), 16):
            lanes.store(out, at, lanes.log2(lanes.load(x, at)))

    random = np.random.default_rng(0)
    off_one = [-1e-16, 0, 2.3e-16, -1e-9, 1e-9, -1e-3, 1e-3, -0.3, 0.4, 0.41, -0.29, -0.2929, 0.5, 1, 3, 7]
    near_one = 1 + np.array(off_one)
    x = np.concatenate([near_one, np.exp(random.uniform(-300, 300, 1600)), random.uniform(0, 1, 16000)])
    out = np.zeros_like(x)
    compute(x, out)
    np.testing.assert_allclose(out, np.log2(x), rtol=2e-15, atol=2e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 1000])
def test_sums_are_finite_unless_a_number_is_not(dtype: Any, count: int) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, count).astype(dtype)
    assert finite.sum_of(values) == pytest.approx(float(values.sum()), abs=1e-4)
    for place in range(0, count, 37):
        for bad in (np.nan, np.inf, -np.inf):
            spoilt = values.copy()
            spoilt[place] = bad
            assert not np.isfinite(finite.sum_of(spoilt))
