"""`bench raster`: the rasterizer on the standard scene, held against the work that the picture needs.

It must not know avatars, training or nerfstudio.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import Tensor

from degstalk_ns.bench.machine import Machine
from degstalk_ns.bench.scene import Scene, standard_scene
from degstalk_ns.bench.timing import MILLISECONDS, Spread, measure_together
from degstalk_ns.bench.work import Work, count_work
from degstalk_ns.console.report import Curve, Report, Table
from degstalk_ns.errors import UserError
from degstalk_ns.rasterization import cpu, rasterize

SWEPT_COUNTS = (5_000, 10_000, 20_000, 30_000, 50_000, 100_000)
"""Gaussians of the sweep, at 512 x 512."""
SWEPT_SIZES = (128, 256, 512, 768, 1024)
"""Pixels a side of the sweep, with 30,000 Gaussians."""
BYTES_A_GAUSSIAN = 600
"""Upper bound of what the CPU kernels hold for a Gaussian of the standard scene, tile lists and gradients included."""


def make_scene(count: int, size: int, seed: int) -> Scene:
    """The standard scene.

    Raises:
        UserError: a count or size that is no scene, or more than memory holds.
    """
    if count < 1 or size < 1:
        raise UserError(f"a scene needs at least one Gaussian and one pixel, not --count {count} --size {size}")
    needed = count * BYTES_A_GAUSSIAN + size * size * 64
    free = psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"--count {count} --size {size} needs about {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
        )
    return standard_scene(count, size, seed)


def on_device(scene: Scene, device: torch.device) -> Scene:
    """The scene with its tensors on another device."""
    moved: dict[str, Any] = {k: v.to(device) for k, v in vars(scene).items() if isinstance(v, Tensor)}
    return dataclasses.replace(scene, **moved)


def time_scene(scene: Scene, repeats: int) -> dict[str, Spread]:
    """``forward``, ``forward+backward``, and on the CPU the phases ``projection`` and ``binning+blending``."""
    device = scene.means.device
    arguments = scene.arguments()
    leaves = [parameter.detach().clone().requires_grad_() for parameter in scene.parameters()]
    names = ("means", "quats", "scales", "opacities", "colors")
    trained = arguments | dict(zip(names, leaves, strict=True))
    upstream = torch.rand(1, scene.height, scene.width, 4, generator=torch.Generator().manual_seed(1)).to(device)

    def forward() -> None:
        with torch.no_grad():
            rasterize(**arguments)

    def both() -> None:
        for leaf in leaves:
            leaf.grad = None
        renders, alphas, _ = rasterize(**trained)
        torch.autograd.backward([renders, alphas], [upstream[..., :3], upstream[..., 3:]])

    functions: dict[str, Callable[[], Any]] = {"forward": forward, "forward+backward": both}
    if device.type == "cpu":
        size = (scene.width, scene.height)
        geometry = (scene.means, scene.quats, scene.scales, scene.viewmats, scene.Ks)
        radii, means2d, depths, conics = cpu.project(*geometry, *size)
        blended = (means2d, conics, scene.colors[None], scene.opacities[None], depths, radii)
        functions["projection"] = lambda: cpu.project(*geometry, *size)
        functions["binning+blending"] = lambda: cpu.rasterize_to_pixels(*blended, *size)
    return measure_together(functions, repeats, device=device)


def bench_raster(
    machines: dict[str, Machine], count: int, size: int, seed: int, repeats: int, advance: Callable[[str], None]
) -> Report:
    """The standard scene on each of ``machines`` ("cpu", "cuda")."""
    scene = make_scene(count, size, seed)
    advance("counting the work")
    work = count_work(scene)
    report = Report("raster", data={"count": count, "size": size, "seed": seed, "work": dataclasses.asdict(work)})
    table = Table(
        f"Standard scene: {count:,} Gaussians, {size} x {size} pixels, {work.evaluations / 1e6:.2f} million "
        f"pixel-Gaussian evaluations, {work.intersections:,} tile intersections",
        ("", *MILLISECONDS, "GFLOP", "MB", "floor ms", "times floor"),
    )
    for name, machine in machines.items():
        advance(f"timing on {name}")
        times = time_scene(on_device(scene, torch.device(name)), repeats)
        entry: dict[str, Any] = {"machine": machine.to_json()}
        for phase, spread in times.items():
            entry[phase] = spread.to_json()
            held = _held_against(work, machine, phase, spread)
            entry[phase] |= {k: v for k, v in held.items() if v is not None}
            cells = [f"{held[k]:.{d}f}" if held else "" for k, d in _CELLS] if held else [""] * len(_CELLS)
            table.add(f"{name} {phase}", *spread.milliseconds(), *cells)
        report.data[name] = entry
        report.notes.append(f"{name}: {machine.describe()}")
    report.tables.append(table)
    report.notes.append(
        "floor: the theoretical minimum time of this hardware: the counted operations at the rate of a matrix product, "
        "or the bytes at the rate of a copy, whichever takes longer"
    )
    return report


_CELLS = (("gflop", 2), ("megabytes", 1), ("floor_ms", 2), ("times_floor", 2))


def _held_against(work: Work, machine: Machine, phase: str, spread: Spread) -> dict[str, float]:
    """A whole pass against its floor; a phase alone has none."""
    if phase not in ("forward", "forward+backward"):
        return {}
    backward = phase != "forward"
    floor = work.floor(machine.operations, machine.bytes, backward)
    return {
        "gflop": (work.forward_operations + backward * work.backward_operations) / 1e9,
        "megabytes": (work.forward_bytes + backward * work.backward_bytes) / 1e6,
        "floor_ms": floor * 1e3,
        "times_floor": spread.median / floor,
    }


def sweep_raster(
    devices: list[str], seed: int, repeats: int, advance: Callable[[str], None]
) -> tuple[Table, dict[str, list[Curve]], list[dict[str, Any]]]:
    """Times over the number of Gaussians and over resolution: a table, curves to plot, and entries for the JSON."""
    table = Table(
        "Time by number of Gaussians and image size",
        ("", "Gaussians", "pixels", "forward ms", "10% .. 90%", "and backward", "10% .. 90%"),
    )
    entries: list[dict[str, Any]] = []
    panels: dict[str, list[Curve]] = {}
    ways = {
        "Gaussians (512 x 512 pixels)": [(count, 512) for count in SWEPT_COUNTS],
        "pixels a side (30,000 Gaussians)": [(30_000, size) for size in SWEPT_SIZES],
    }
    for label, cases in ways.items():
        curves = panels[label] = []
        for device in devices:
            found: dict[str, list[Spread]] = {"forward": [], "forward+backward": []}
            for count, size in cases:
                advance(f"{device}: {count:,} Gaussians, {size} x {size}")
                times = time_scene(on_device(make_scene(count, size, seed), torch.device(device)), repeats)
                for phase, spreads in found.items():
                    spreads.append(times[phase])
                table.add(
                    device, f"{count:,}", str(size), *(cell for phase in found for cell in times[phase].milliseconds())
                )
                entries.append(
                    {"device": device, "count": count, "size": size, **{p: times[p].to_json() for p in found}}
                )
            x = [count if "Gaussians (" in label else size for count, size in cases]
            curves += [curve_of(f"{device} {phase}", x, spreads) for phase, spreads in found.items()]
    return table, panels, entries


def curve_of(label: str, x: list[int], spreads: list[Spread]) -> Curve:
    """A curve in milliseconds."""
    rows = [[value * 1e3 for value in (s.median, s.low, s.high)] for s in spreads]
    median, low, high = (list(column) for column in zip(*rows, strict=True))
    return Curve(label, x, median, low, high)
