"""`degstalk export`: a trained avatar as a .ply of Gaussian splats."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console

from degstalk_ns.errors import UserError


def command(
    load_config: Path,
    output: Path,
    region: Literal["both", "face", "mouth"] = "both",
    time: float | None = None,
    up: Literal["-y", "y", "z"] = "-y",
    overwrite: bool = False,
    data: Path | None = None,
) -> None:
    """Export a trained avatar as a standard Gaussian-splatting .ply file, which other splat viewers can open.

    Args:
        load_config: Path of the config.yml of the run, such as outputs/me/degstalk-fast/<time>/config.yml.
        output: File to write, a .ply.
        region: Regions to export: the face, the mouth interior, or both in one file.
        time: Time of the recording whose pose is exported, in seconds; by default the undeformed Gaussians.
        up: Axis that points up in the file: -y as in most splat viewers, y as inside this program, or z.
        overwrite: Replace the output if it exists.
        data: Folder of the dataset, if it has moved since the training.
    """
    if output.suffix.lower() != ".ply":
        raise UserError(f"--output {output}: expected a name that ends in .ply")
    if output.exists() and not overwrite:
        raise UserError(f"--output {output}: exists; give another name, or --overwrite to replace it")
    from degstalk_ns.avatar.avatar import REGIONS
    from degstalk_ns.avatar.gaussians import joined
    from degstalk_ns.avatar.splat_files import save_ply
    from degstalk_ns.frame_rate import FRAME_RATE
    from degstalk_ns.plugin.runs import load_run

    run = load_run(load_config, data)
    console = Console(highlight=False)
    for note in run.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    conditions, moment = None, "undeformed"
    if time is not None:
        track = run.model.recorded_track
        frame = round(time * FRAME_RATE)
        if not 0 <= frame < len(track):
            raise UserError(f"--time {time:g}: the recording lasts from 0 to {(len(track) - 1) / FRAME_RATE:.2f} s")
        conditions, moment = track.at_frame(frame), f"the moment {frame / FRAME_RATE:.2f} s"
    parts = [run.model.gaussians_at(name, conditions) for name in REGIONS if region in (name, "both")]
    gaussians = joined(parts)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        save_ply(output, gaussians, up)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror})") from None
    console.print(f"{output}: {len(gaussians.means)} Gaussians, {moment}", markup=False, soft_wrap=True)
