"""Adapter to nerfstudio: an avatar of the official DEGSTalk code becomes a run that renders.

No mathematics of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Final

import torch

from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.dataparsers.talking_head import TalkingHeadDataParserConfig
from degstalk_ns.errors import UserError, errors_caught_outside
from degstalk_ns.files import write_whole
from degstalk_ns.plugin.datamanager import TalkingHeadDataManagerConfig
from degstalk_ns.plugin.model import DegstalkModel, DegstalkModelConfig
from degstalk_ns.plugin.pipeline import DegstalkPipeline
from degstalk_ns.plugin.runs import quiet_console
from degstalk_ns.plugin.trainer import DegstalkTrainerConfig
from degstalk_ns.reading.arrays import npy_shape
from degstalk_ns.reading.checkpoints import first_difference
from degstalk_ns.release.checkpoint import ReleaseCheckpoint

UNITS: Final[tuple[str, ...]] = ("AU01_r", "AU04_r", "AU05_r", "AU06_r", "AU07_r")
"""The action units that TalkingGaussian compresses, in its order."""
WINDOWS: Final[Mapping[int, int]] = {29: 16, 44: 16, 1024: 2}
"""Vectors in a window of the audio features of that code, by their channels: of DeepSpeech, wav2vec and HuBERT."""
LID_UNITS: Final[tuple[str, ...]] = ("AU45_r",)
"""Those that it does not."""


def import_run(
    checkpoint: ReleaseCheckpoint,
    base: DegstalkTrainerConfig,
    data: Path,
    output: Path,
    audio: str = "auto",
) -> tuple[Path, tuple[str, ...]]:
    """Writes a run that renders the avatar of ``checkpoint``.

    Args:
        checkpoint: what was read.
        base: config of the method that the run is said to be of; its options are set to what the avatar needs.
        data: dataset of the person, which drives the avatar.
        output: folder of the runs.
        audio: features that the avatar hears; "auto" takes those of the dataset that have as many channels.

    Returns:
        The run's ``config.yml``, and notes on the dataset, one line each.

    Raises:
        UserError: the dataset does not drive such an avatar, or the run cannot be written.
    """
    config = _configured(checkpoint, base, data, output)
    manager = config.pipeline.datamanager
    assert isinstance(manager, TalkingHeadDataManagerConfig)
    parser = manager.dataparser
    assert isinstance(parser, TalkingHeadDataParserConfig)
    if audio == "auto" and data.is_dir():
        audio = _audio_of(Layout(data), checkpoint)
    parser.audio = audio
    recording = read_recording(data, audio, parser.options)
    _check_driving(checkpoint, recording)
    with quiet_console():
        pipeline = config.pipeline.setup(device="cpu", test_mode="test")
    assert isinstance(pipeline, DegstalkPipeline)
    model = pipeline.model
    assert isinstance(model, DegstalkModel)
    try:
        model.avatar.load_state_dict(model.avatar.state_dict() | checkpoint.state)
    except RuntimeError as error:
        raise UserError(f"{checkpoint.path}: its networks are of another shape ({first_difference(error)})") from None
    model.sh_degree.fill_(checkpoint.sh_degree)
    model.moving.fill_(True)
    pipeline.planned.fill_(config.max_num_iterations)
    folder = config.get_base_dir()
    step = config.max_num_iterations - 1
    saved = {"step": step, "pipeline": pipeline.state_dict(), "optimizers": {}, "schedulers": {}, "scalers": {}}
    weights = config.get_checkpoint_dir() / f"step-{step:09d}.ckpt"
    try:
        weights.parent.mkdir(parents=True, exist_ok=False)
        write_whole(weights, lambda part: torch.save(saved, part))
        with errors_caught_outside(), quiet_console():
            config.save_config()  # last: a folder without it is no run
    except (OSError, RuntimeError, UserError) as error:  # torch raises the second where a disk is full
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        shutil.rmtree(folder, ignore_errors=True)  # made a moment ago
        raise UserError(f"{folder}: the run cannot be written ({reason}); choose another --output") from None
    return folder / "config.yml", recording.notes


def _configured(
    checkpoint: ReleaseCheckpoint, base: DegstalkTrainerConfig, data: Path, output: Path
) -> DegstalkTrainerConfig:
    config = deepcopy(base)
    model, manager = config.pipeline.model, config.pipeline.datamanager
    assert isinstance(model, DegstalkModelConfig) and isinstance(manager, TalkingHeadDataManagerConfig)
    parser = manager.dataparser
    assert isinstance(parser, TalkingHeadDataParserConfig)
    model.avatar = deepcopy(checkpoint.config)
    model.keep_rim = True  # there, frames show all that was trained
    if not checkpoint.embedded:
        model.losses.smoothness = 0.0
    if (checkpoint.expression, checkpoint.eyelids) == (len(UNITS), len(LID_UNITS)):
        parser.signals, parser.units, parser.lid_units = "action-units", UNITS, LID_UNITS
    else:
        parser.signals = "expression"
    folder = data.absolute()
    config.data = manager.data = parser.data = folder
    config.output_dir = output.absolute()
    config.experiment_name = folder.name
    config.set_timestamp()
    return config


def _audio_of(layout: Layout, checkpoint: ReleaseCheckpoint) -> str:
    """The features of the dataset that have as many channels as the avatar hears."""
    shapes = {path.stem.removeprefix("aud_"): _shape(path) for path in sorted(layout.root.glob("aud_*.npy"))}
    channels = checkpoint.audio_channels
    length = WINDOWS.get(channels)
    found = [
        name
        for name, shape in shapes.items()
        if shape[-1:] == (channels,) and (length is None or shape[1:-1] == (length,))
    ]
    there = ", ".join(f"aud_{name}.npy {list(shape)}" for name, shape in shapes.items()) or "none"
    if not found:
        raise UserError(
            f"{layout.root}: the avatar of {checkpoint.path} hears audio features of {checkpoint.audio_channels} "
            f"channels (there are: {there}); add the aud_<name>.npy that it was trained on"
        )
    if len(found) > 1:
        raise UserError(
            f"{layout.root}: several audio features have the {checkpoint.audio_channels} channels that the avatar of "
            f"{checkpoint.path} hears; choose with --audio: {', '.join(found)}"
        )
    return found[0]


def _shape(path: Path) -> tuple[int, ...]:
    """Of audio features; empty where they cannot be read."""
    try:
        return npy_shape(path, "audio features", "")
    except UserError:
        return ()


def _check_driving(checkpoint: ReleaseCheckpoint, recording: Recording) -> None:
    """Refuse a dataset whose driving signals are of other widths."""
    root, named = recording.layout.root, f"the avatar of {checkpoint.path}"
    widths: Sequence[tuple[str, int, int, str]] = (
        (
            f"aud_{recording.audio_name}.npy",
            recording.audio.shape[2],
            checkpoint.audio_channels,
            "channels; name the features that it was trained on with --audio",
        ),
        (
            "the expression",
            recording.expression.shape[1],
            checkpoint.expression,
            "values; bring the files that it was trained on in with `degstalk process --import`",
        ),
        ("the eyelids", recording.eyelids.shape[1], checkpoint.eyelids, "values; it is driven by other signals"),
    )
    for what, found, needed, remedy in widths:
        if found != needed:
            raise UserError(f"{root}: {what}: {found}, and {named} needs {needed} {remedy}")
    found = recording.audio.shape[1]
    length = WINDOWS.get(checkpoint.audio_channels, found)
    if found != length:
        raise UserError(
            f"{root}: the windows of aud_{recording.audio_name}.npy hold {found} vectors, and {named} hears {length}; "
            "name the features that it was trained on with --audio"
        )
    if checkpoint.jaw and recording.jaw.shape[1] != checkpoint.jaw:
        raise UserError(
            f"{root}: the jaw: {recording.jaw.shape[1]}, and {named} predicts {checkpoint.jaw} coefficients"
        )
