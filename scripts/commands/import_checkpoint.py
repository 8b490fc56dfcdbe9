"""`degstalk import-checkpoint FILE --data DIR`: an avatar of the official DEGSTalk code, or of TalkingGaussian's,
becomes a run of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from degstalk_ns.release.checkpoint import read_checkpoint


def command(
    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")],
    data: Path,
    output: Path = Path("outputs"),
    audio: str = "auto",
) -> None:
    """Make a run of an avatar that the official code of DEGSTalk or TalkingGaussian has trained.

    The run renders like one of ns-train: degstalk render, ns-viewer, ns-eval and degstalk export take its config.yml.
    The file is read without running anything that it holds.

    Args:
        checkpoint: The chkpnt_fuse_latest.pth of a finished run of that code.
        data: Folder of the person's dataset, with the audio features, the 3dmm.pt or the au.csv that the avatar was
            trained on.
        output: Folder of the runs.
        audio: Audio features that the avatar hears, the <name> of aud_<name>.npy; auto takes the only ones of the
            dataset that have as many channels.
    """
    console = Console(highlight=False)
    read = read_checkpoint(checkpoint)  # before nerfstudio is imported, which takes seconds
    from degstalk_ns.configs.methods import degstalk
    from degstalk_ns.configs.variants import talking_gaussian
    from degstalk_ns.plugin.trainer import DegstalkTrainerConfig
    from degstalk_ns.release.adapters import import_run

    base = (degstalk if read.embedded else talking_gaussian).config
    assert isinstance(base, DegstalkTrainerConfig)
    config, notes = import_run(read, base, data, output, audio)
    counts = f"{read.config.face.num_points} + {read.config.mouth.num_points} Gaussians (face + mouth)"
    console.print(f"{base.method_name}: {counts}, hears {read.audio_channels} channels", markup=False, soft_wrap=True)
    for note in notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(f"written: {config}", markup=False, soft_wrap=True)
    console.print(f"next: degstalk render --load-config {config}", markup=False, soft_wrap=True)
