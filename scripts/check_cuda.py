#!/usr/bin/env python
"""One command for a machine with a CUDA GPU: is the CUDA path right, and how fast is it?

    python scripts/check_cuda.py [--output check_cuda.json]

Needs torch, gsplat and this project's core, not nerfstudio. It compares images and gradients of the backends reference
(float64), cpu and cuda on random and degenerate scenes, and a synthetic avatar's frame on CPU and GPU; looks at
tiny-cuda-nn where that is installed; and measures the standard scene and the avatar. gsplat compiles its kernels at the
first use, which takes a while. Exit code 0: all comparisons hold; 1: one fails; 2: there is no CUDA device.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

if __package__ in (None, ""):  # started as a file: the project need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from degstalk_ns.avatar.avatar import Avatar, AvatarConfig
from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.avatar.fields.triplane import TriPlane, TriPlaneConfig, tcnn_available
from degstalk_ns.avatar.gaussians import GaussiansConfig
from degstalk_ns.avatar.renderer import FrameRenderer
from degstalk_ns.bench.machine import measure_machine
from degstalk_ns.bench.raster import on_device, time_scene
from degstalk_ns.bench.scene import Scene, standard_scene
from degstalk_ns.bench.timing import MILLISECONDS, measure
from degstalk_ns.console.report import Report, Table
from degstalk_ns.rasterization import rasterize

NO_CUDA = 2
PARAMETERS = ("means", "quats", "scales", "opacities", "colors")
IMAGE_TOLERANCE, IMAGE_SHARE = 1e-4, 0.999
"""Maximum difference of two float32 images, and the fraction of values that must be within it: at the edge of what is
too faint to be rendered (1/255), rounding decides."""
EDGE_TOLERANCE = 0.02
"""Maximum difference of any value: some Gaussians at that edge may lie on one pixel."""
GRADIENT_TOLERANCE = 0.02
"""Length of the difference of two gradients over the length of the exact one."""
IMAGE_SIZE = 512
REPEATS = 50


def scenes() -> dict[str, Scene]:
    """Random scenes, and ones that break careless arithmetic."""
    made = {"random": standard_scene(2_000, 128, seed=1), "crowded": standard_scene(20_000, 96, seed=2)}
    base = standard_scene(400, 64, seed=3)

    def changed(**values: Tensor) -> Scene:
        return dataclasses.replace(base, **values)

    every = torch.arange(len(base.means)) % 4
    made["opaque and invisible"] = changed(opacities=(every % 2).float())
    made["behind the camera"] = changed(means=base.means * torch.where(every == 0, -1.0, 1.0)[:, None])
    made["at the near plane"] = changed(means=base.means * torch.where(every == 0, 0.0101, 1.0)[:, None])
    made["needles"] = changed(scales=base.scales * torch.tensor([20.0, 0.01, 0.01]))
    made["dots"] = changed(scales=base.scales * 1e-6)
    made["giants"] = changed(scales=base.scales * torch.where(every == 0, 200.0, 1.0)[:, None])
    made["unnormalised rotations"] = changed(quats=base.quats * 7.0)
    made["one Gaussian"] = standard_scene(1, 33, seed=4)
    broken = base.means.clone()
    broken[::5] = torch.nan
    made["not finite"] = changed(means=broken)
    made["out of sight"] = changed(means=base.means + torch.tensor([50.0, 0.0, 0.0]))
    return made


def drawn(scene: Scene, backend: str, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    """Colour and alpha [1, H, W, 4], and the gradients of a fixed random weighing of them; float64 on the CPU."""
    inputs = {
        name: value.to(device, dtype) if isinstance(value, Tensor) else value
        for name, value in scene.arguments().items()
    }
    for name in PARAMETERS:
        inputs[name] = inputs[name].clone().requires_grad_()
    renders, alphas, _ = rasterize(**inputs, backend=backend)  # type: ignore[arg-type]
    image = torch.cat([renders, alphas], dim=-1)
    weights = torch.rand(image.shape, generator=torch.Generator().manual_seed(5)).to(image)
    (image * weights).sum().backward()
    gradients = {}
    for name in PARAMETERS:
        gradient = inputs[name].grad
        gradients[name] = torch.zeros_like(inputs[name]) if gradient is None else gradient
    return image.detach().double().cpu(), {name: value.double().cpu() for name, value in gradients.items()}


def image_difference(image: Tensor, truth: Tensor) -> tuple[float, float, bool]:
    """Largest difference, share of values within the tolerance, and whether both are good enough."""
    difference = (image - truth).abs()
    largest, share = float(difference.max()), float((difference <= IMAGE_TOLERANCE).double().mean())
    return largest, share, largest <= EDGE_TOLERANCE and share >= IMAGE_SHARE and bool(image.isfinite().all())


def gradient_difference(ours: Tensor, truth: Tensor) -> tuple[float, bool]:
    """Relative length of the difference, and whether it is good enough."""
    length = float(torch.linalg.norm(truth))
    relative = float(torch.linalg.norm(ours - truth)) / max(length, 1e-9)
    # Where the exact gradient is nothing but rounding, so is ours.
    return relative, bool(ours.isfinite().all()) and (relative <= GRADIENT_TOLERANCE or length < 1e-6)


def compare_backends(report: Report, device: torch.device, backend: str) -> bool:
    """Every scene on every backend against the float64 reference."""
    table = Table(
        "Backends against reference in float64", ("scene", "backend", "image", "within 1e-4", "worst gradient", "")
    )
    entries, good = [], True
    for name, scene in scenes().items():
        truth, exact = drawn(scene, "reference", torch.device("cpu"), torch.float64)
        for other, where in (("cpu", torch.device("cpu")), (backend, device)):
            image, gradients = drawn(scene, other, where, torch.float32)
            largest, share, image_good = image_difference(image, truth)
            found = {key: gradient_difference(gradients[key], exact[key]) for key in PARAMETERS}
            worst = max(found, key=lambda key: found[key][0] * (not found[key][1]) + 1e-6 * found[key][0])
            fine = image_good and all(passed for _, passed in found.values())
            good &= fine
            verdict = "ok" if fine else "FAILS"
            table.add(name, other, f"{largest:.1e}", f"{share:.2%}", f"{found[worst][0]:.1e} {worst}", verdict)
            relative = {key: value for key, (value, _) in found.items()}
            entries.append(
                {"scene": name, "backend": other, "image": largest, "share": share, "gradients": relative, "ok": fine}
            )
    report.tables.append(table)
    report.data["comparisons"] = entries
    return good


def synthetic_avatar() -> Avatar:
    """A head of a real one's size whose fields move it."""
    config = AvatarConfig(
        face=GaussiansConfig(num_points=20_000, bound=0.08), mouth=GaussiansConfig(num_points=8_000, bound=0.03)
    )
    config.face_field.encoding.backend = config.mouth_field.encoding.backend = "torch"
    avatar = Avatar(config, audio_channels=32, audio_length=16, expression_dim=50)
    random = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for field in (avatar.face_field, avatar.mouth_field):
            for parameter in field.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=random))
        for name in ("face", "mouth"):
            params = avatar.region(name).params  # type: ignore[arg-type]
            params["sh0"].copy_(torch.randn(params["sh0"].shape, generator=random))
            params["opacities"].copy_(2 * torch.randn(params["opacities"].shape, generator=random))
    return avatar


def avatar_frames(report: Report, device: torch.device) -> bool:
    """One frame on the CPU and on ``device`` compared, and both timed."""
    random = torch.Generator().manual_seed(7)
    conditions = Conditions(
        torch.randn(8, 32, 16, generator=random),
        torch.rand(50, generator=random),
        torch.rand(2, generator=random),
        torch.zeros(3),
    )
    c2w = torch.eye(4)
    c2w[2, 3] = 0.7
    focal = 2.3 * IMAGE_SIZE
    view = View.from_c2w(c2w, (focal, focal), (IMAGE_SIZE / 2, IMAGE_SIZE / 2), (IMAGE_SIZE, IMAGE_SIZE))
    plate = torch.rand(IMAGE_SIZE, IMAGE_SIZE, 3, generator=random)
    avatar = synthetic_avatar()
    table = Table(f"Synthetic avatar, 28,000 Gaussians, {IMAGE_SIZE} x {IMAGE_SIZE}", ("", *MILLISECONDS, "frames/s"))
    frames, times = [], {}
    for where in (torch.device("cpu"), device):
        renderer = FrameRenderer(avatar.to(where))
        there = dataclasses.replace(view, viewmat=view.viewmat.to(where), K=view.K.to(where))
        driving, behind = conditions.to(where), plate.to(where)

        def frame(
            renderer: FrameRenderer = renderer,
            there: View = there,
            driving: Conditions = driving,
            behind: Tensor = behind,
        ) -> Tensor:
            return renderer.frame(there, driving, behind, sh_degree=2)

        frames.append(frame().double().cpu())
        spread = measure(frame, REPEATS if where.type == "cuda" else 10, device=where)
        times[where.type] = spread.to_json()
        table.add(where.type, *spread.milliseconds(), f"{1 / spread.median:.0f}")
    largest, share, good = image_difference(frames[1], frames[0])
    report.tables.append(table)
    report.notes.append(
        f"avatar's frame, CPU against {device.type}: differs by at most {largest:.1e}, {share:.2%} within "
        f"{IMAGE_TOLERANCE:g}: {'ok' if good else 'FAILS'}"
    )
    report.data["avatar"] = {"seconds": times, "image": largest, "share": share, "ok": good}
    return good


def standard_scene_times(report: Report, device: torch.device) -> None:
    table = Table(f"Standard scene, 30,000 Gaussians, {IMAGE_SIZE} x {IMAGE_SIZE}", ("", *MILLISECONDS))
    report.data["standard_scene"] = {}
    for where in dict.fromkeys(("cpu", device.type)):
        times = time_scene(on_device(standard_scene(), torch.device(where)), REPEATS if where == "cuda" else 15)
        for phase, spread in times.items():
            table.add(f"{where} {phase}", *spread.milliseconds())
        report.data["standard_scene"][where] = {phase: spread.to_json() for phase, spread in times.items()}
    report.tables.append(table)


def triplane_times(report: Report, device: torch.device) -> bool:
    """The torch tri-plane on CPU and GPU compared; tiny-cuda-nn's, whose tables are others, checked by differences."""
    points = 0.14 * (2 * torch.rand(20_000, 3, generator=torch.Generator().manual_seed(8)) - 1)
    encoding = TriPlane(TriPlaneConfig(backend="torch", initial_range=1.0))
    results = {}
    for where in (torch.device("cpu"), device):
        encoding.to(where)
        results[where.type] = encoding(points.to(where)).detach().double().cpu()
    largest = float((results[device.type] - results["cpu"]).abs().max())
    good = largest < 1e-4
    report.notes.append(f"tri-plane (torch), CPU against {device.type}: {largest:.1e}: {'ok' if good else 'FAILS'}")
    report.data["triplane"] = {"torch_difference": largest, "ok": good}
    table = Table("Tri-plane encoding of 20,000 points, forward and backward", ("", *MILLISECONDS))
    kinds: dict[str, TriPlane] = {"torch": encoding}
    if tcnn_available():
        tcnn = kinds["tcnn"] = TriPlane(TriPlaneConfig(backend="tcnn")).to(device)
        smooth = _gradient_is_that_of_differences(tcnn, points[:2_000].to(device))
        report.notes.append(f"tri-plane (tiny-cuda-nn), gradient by position: {'ok' if smooth else 'FAILS'}")
        report.data["triplane"]["tcnn_ok"] = smooth
        good &= smooth
    else:
        report.notes.append("tiny-cuda-nn is not installed, so it was not tested")
    for name, kind in kinds.items():

        def both(kind: TriPlane = kind) -> None:
            kind(points.to(device)).square().sum().backward()

        spread = measure(both, REPEATS, device=device)
        table.add(f"{device.type} {name}", *spread.milliseconds())
        report.data["triplane"][name] = spread.to_json()
    report.tables.append(table)
    return good


def _gradient_is_that_of_differences(encoding: TriPlane, points: Tensor) -> bool:
    """Whether a small move along the gradient changes the features as it says, for nearly all points (not those that
    cross from one cell to the next)."""
    with torch.no_grad():
        for parameter in encoding.parameters():
            parameter.uniform_(-1.0, 1.0)
    x = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(encoding(x).sum(), x)
    step = 1e-5 * torch.nn.functional.normalize(gradient, dim=1)
    with torch.no_grad():
        found = (encoding(points + step).double().sum(1) - encoding(points - step).double().sum(1)) / 2
    wanted = (gradient * step).double().sum(1)
    return bool(((found - wanted).abs() <= 0.05 * wanted.abs() + 1e-4).double().mean() > 0.95)


def check_backend(device: torch.device, backend: str) -> tuple[Report, bool]:
    """Everything, on ``device``; ``backend`` of the rasterizer is what is compared with the others."""
    machine = measure_machine(device)
    report = Report("check_cuda", notes=[machine.describe()], data={"machine": machine.to_json()})
    steps: tuple[Callable[[], bool], ...] = (
        lambda: compare_backends(report, device, backend),
        lambda: triplane_times(report, device),
        lambda: avatar_frames(report, device),
    )
    good = all([step() for step in steps])
    standard_scene_times(report, device)
    report.data["ok"] = good
    report.notes.append("all comparisons hold" if good else "A COMPARISON FAILS: see above")
    return report, good


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--output", type=Path, default=Path("check_cuda.json"), help="JSON file to which all results are written"
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="test the script itself on a machine without a GPU: the CPU takes its place",
    )
    options = parser.parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        print("check_cuda: no CUDA device is available to PyTorch", file=sys.stderr)
        return NO_CUDA
    device = torch.device("cpu" if options.rehearse else "cuda")
    report, good = check_backend(device, backend=device.type)
    report.show(Console(highlight=False))
    report.save(options.output)
    print(f"written: {options.output}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
