"""`bench process`: frames per second of each stage of preprocessing on a video. It must not know the stages."""

from __future__ import annotations

import tempfile
from pathlib import Path

from degstalk_ns.bench.machine import Machine
from degstalk_ns.bench.memory import peak_resident_memory
from degstalk_ns.console.progress import Progress
from degstalk_ns.console.report import Report, Table
from degstalk_ns.errors import UserError
from degstalk_ns.preprocess.pipeline import ProcessConfig, process


def bench_process(video: Path, config: ProcessConfig, machine: Machine, progress: Progress) -> Report:
    """Makes a dataset from ``video`` in a temporary folder, which is removed, and says how long each stage took.

    Raises:
        UserError: the video cannot be used.
    """
    if not video.is_file():
        raise UserError(f"{video}: no such file; give a video of a talking person")
    with tempfile.TemporaryDirectory(prefix="degstalk-bench-") as folder:
        summary = process(video, Path(folder) / "dataset", config, progress)
    peak = peak_resident_memory()
    table = Table(f"{video.name}: {summary.frames:,} frames", ("stage", "s", "frames/s", "share"))
    whole = {**summary.stages, "all": summary.seconds}
    for stage, seconds in whole.items():
        share = f"{100 * seconds / summary.seconds:.0f} %"
        table.add(stage, f"{seconds:.2f}", f"{summary.frames / max(seconds, 1e-9):.1f}", share)
    return Report(
        "process",
        [table],
        [machine.describe(), f"peak resident memory of this process: {peak:.0f} MiB"],
        {
            "video": video.name,
            "frames": summary.frames,
            "seconds": whole,
            "frames_per_second": {stage: summary.frames / max(s, 1e-9) for stage, s in whole.items()},
            "peak_resident_mib": peak,
            "machine": machine.to_json(),
        },
    )
