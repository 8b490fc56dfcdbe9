"""`bench render`: frames per second of an avatar, phase by phase, held against the work that a frame needs.

It must not know nerfstudio, nor where the avatar comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from degstalk_ns.avatar.avatar import REGIONS
from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.avatar.gaussians import ActivatedGaussians
from degstalk_ns.avatar.renderer import FrameRenderer, over_plate
from degstalk_ns.bench.machine import Machine
from degstalk_ns.bench.scene import Scene
from degstalk_ns.bench.timing import MILLISECONDS, Spread, timed
from degstalk_ns.bench.work import Work, count_work
from degstalk_ns.console.report import Report, Table
from degstalk_ns.rasterization import spherical_harmonics

T = TypeVar("T")
WARMUP_FRAMES = 5
"""Frames that do not count: compilation and caches."""


@dataclass(frozen=True)
class Shot:
    """One frame to be rendered."""

    view: View
    conditions: Conditions


@dataclass(frozen=True)
class Played:
    """An avatar to be rendered.

    Attributes:
        name: what it is called. renderer: of its avatar. sh_degree: in use. moving: whether its fields are trained.
        shots: frames of the recording. plate: gives a shot's plate [H, W, 3], float32 in 0..1, by its place in shots.
        notes: what its user should know of it, one line each.
    """

    name: str
    renderer: FrameRenderer
    sh_degree: int
    moving: bool
    shots: list[Shot]
    plate: Callable[[int], Tensor]
    notes: tuple[str, ...] = ()


def bench_render(played: Played, machine: Machine, repeats: int, advance: Callable[[str], None]) -> Report:
    """Times ``repeats`` frames, each a whole one and then phase by phase."""
    renderer, shots = played.renderer, played.shots
    device = shots[0].view.viewmat.device
    avatar = renderer.avatar
    advance("rendering frames")
    seconds: dict[str, list[float]] = {}

    def clock(name: str, function: Callable[[], T]) -> T:
        result: list[T] = []
        seconds.setdefault(name, []).append(timed(lambda: result.append(function()), device))
        return result[0]

    for index in range(WARMUP_FRAMES + repeats):
        if index == WARMUP_FRAMES:
            seconds.clear()
        place = index % len(shots)
        _one_frame(played, place, clock)

    times = {name: Spread.of(values) for name, values in seconds.items()}
    advance("counting the work")
    operations, works = _work_of_a_frame(played)
    height, width = shots[0].view.height, shots[0].view.width
    moved = sum(work.forward_bytes for work in works) + 3 * 4 * 3 * width * height  # plate read, frame written and read
    total = operations + sum(work.forward_operations for work in works)
    floor = max(total / machine.operations, moved / machine.bytes)
    frame = times["whole frame"]
    counts = {name: len(avatar.region(name)) for name in REGIONS}
    report = Report(
        "render",
        data={
            "name": played.name,
            "width": width,
            "height": height,
            "gaussians": counts,
            "machine": machine.to_json(),
            "frames_per_second": 1.0 / frame.median,
            "gflop": total / 1e9,
            "megabytes": moved / 1e6,
            "evaluations": sum(work.evaluations for work in works),
            "floor_ms": floor * 1e3,
            "times_floor": frame.median / floor,
            "seconds": {name: spread.to_json() for name, spread in times.items()},
        },
    )
    table = Table(
        f"{played.name}: {width} x {height} pixels, {counts['face']:,} + {counts['mouth']:,} Gaussians",
        ("", *MILLISECONDS, "frames/s"),
    )
    for name, spread in times.items():
        title = "plate (read ahead or cached)" if name == "plate" else name
        table.add(title, *spread.milliseconds(), f"{1 / spread.median:.1f}" if name == "whole frame" else "")
    report.tables.append(table)
    report.notes += [
        machine.describe(),
        f"work of a frame: {operations / 1e9:.3f} GFLOP in the fields, {(total - operations) / 1e9:.3f} in the "
        f"rasterizer ({report.data['evaluations'] / 1e6:.2f} million evaluations), {moved / 1e6:.1f} MB; floor "
        f"{floor * 1e3:.2f} ms; the whole frame takes {frame.median / floor:.1f} times that",
    ]
    return report


class _Clock(Protocol):
    def __call__(self, name: str, function: Callable[[], T]) -> T: ...


def _one_frame(played: Played, place: int, clock: _Clock) -> None:
    """A frame phase by phase, and once more as a whole."""
    renderer, shot = played.renderer, played.shots[place]
    view, conditions, degree = shot.view, shot.conditions, played.sh_degree
    plate = clock("plate", lambda: played.plate(place))
    motion = clock("fields", lambda: renderer.motion(conditions)) if played.moving else None
    gaussians = clock("deformation", lambda: renderer.deformed(motion))
    regions = clock("rasterization of both regions", lambda: renderer.rendered(gaussians, view, degree))
    clock("composition", lambda: over_plate(regions, plate))
    clock("whole frame", lambda: renderer.frame(view, conditions, plate, degree, played.moving))


@torch.no_grad()
def _work_of_a_frame(played: Played) -> tuple[int, list[Work]]:
    """Operations of the fields' products in one frame, and the rasterizer's work on each region."""
    shot = played.shots[len(played.shots) // 2]
    with FlopCounterMode(display=False) as counter:
        motion = played.renderer.motion(shot.conditions) if played.moving else None
    both = played.renderer.deformed(motion)
    face = len(played.renderer.avatar.region("face"))
    works = [
        count_work(scene_of(both, span, shot.view, played.sh_degree))
        for span in (slice(0, face), slice(face, len(both.means)))
    ]
    return counter.get_total_flops(), works


@torch.no_grad()
def scene_of(gaussians: ActivatedGaussians, span: slice, view: View, sh_degree: int) -> Scene:
    """Some Gaussians as a scene whose work can be counted."""
    colours = spherical_harmonics(sh_degree, gaussians.means, gaussians.sh, view.viewmat[None])[0]
    parts = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, colours)
    means, quats, scales, opacities, colors = (part[span].detach().cpu() for part in parts)
    return Scene(
        means, quats, scales, opacities, colors, view.viewmat[None].cpu(), view.K[None].cpu(), view.width, view.height
    )
