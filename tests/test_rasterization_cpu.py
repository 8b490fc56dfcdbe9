"""The CPU backend of the rasterizer against the reference: outputs, gradients, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
from rasterizer_scenes import (
    assert_same,
    degenerate_scenes,
    make_scene,
    render,
)
from torch import Tensor

from degstalk_ns.rasterization import rasterize


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


@pytest.mark.parametrize(("channels", "passive"), [(3, 1), (6, 3), (5, 4), (11, 2), (12, 10)])
def test_passive_channels(channels: int, passive: int) -> None:
    random = torch.Generator().manual_seed(5)
    backgrounds = torch.rand(2, channels, generator=random, dtype=torch.float64)
    scene = make_scene(200, 37, 24, channels, 2) | {"passive": passive}
    assert_same(scene)
    assert_same(scene | {"backgrounds": backgrounds})


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
