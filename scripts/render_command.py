"""`degstalk render`: options in, a take rendered into a video, a summary printed."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from degstalk_ns.animation.animation import Take, take_of_path, take_of_recording, take_of_sound
from degstalk_ns.animation.camera_path import CameraPath, read_camera_path
from degstalk_ns.animation.new_sound import SpeechConfig, perform
from degstalk_ns.audio.sound import Sound, SoundLimits, load_sound
from degstalk_ns.console.progress import Progress
from degstalk_ns.errors import UserError
from degstalk_ns.export.provenance import Provenance
from degstalk_ns.export.watermark import Watermark
from degstalk_ns.export.writer import VideoConfig, VideoExport
from degstalk_ns.kernels.memory import keep_freed_memory
from degstalk_ns.rates import FRAME_RATE

LONG = 1500
"""Frames (a minute of video) from which on the length is said before rendering begins."""


def command(
    load_config: Path,
    output: Path,
    audio: Path | None = None,
    track: Literal["train", "val", "all"] | None = None,
    camera_path: Path | None = None,
    audio_features: Path | None = None,
    expression: Literal["source", "neutral"] = "source",
    side_by_side: bool = False,
    start: float = 0.0,
    end: float | None = None,
    watermark: bool = False,
    overwrite: bool = False,
    data: Path | None = None,
    sound: Annotated[SoundLimits, tyro.conf.arg(name="sound")] = SoundLimits(),  # noqa: B008 (frozen)
    speech: Annotated[SpeechConfig, tyro.conf.arg(name="speech")] = SpeechConfig(),  # noqa: B008 (frozen)
    video: Annotated[VideoConfig, tyro.conf.arg(name="video")] = VideoConfig(),  # noqa: B008 (frozen)
) -> None:
    """Make a video of a trained head: with a new sound, of its own recording, or along a camera path.

    Interrupted, the same command again goes on where it stopped. The video says in its metadata that it is synthetic.

    Args:
        load_config: config.yml of the run, for example outputs/me/degstalk-fast/<time>/config.yml.
        output: The video, an .mp4.
        audio: A sound that the head shall speak: wav, mp3, flac, ogg, m4a or a video's sound.
        track: A part of the recording instead: what was trained on, what was held out, or all.
        camera_path: Where it is seen from: a path from nerfstudio's viewer (Render tab). With --audio or --track it is
            spread over them; alone, its times tell the moments of the recording.
        audio_features: Features of --audio (.npy), for heads that were not trained on log-mel.
        expression: With --audio: brows and eyes as recorded (source) or held still (neutral). Blinks go on in both.
        side_by_side: With --track: the recorded frame to the left.
        start: Of the part that is rendered, seconds.
        end: Of that part, seconds.
        watermark: Write "synthetic" into the corner of every frame.
        overwrite: Replace the output where it exists.
        data: Folder of the dataset, where it is no longer where the training found it.
        sound: Limits of --audio.
        speech: How a new sound is performed.
        video: How the video is compressed.
    """
    console = Console(highlight=False)
    # Everything that is cheap to refuse is refused before the head is loaded.
    _check(output, overwrite, audio, track, camera_path, audio_features, side_by_side)
    path = None if camera_path is None else read_camera_path(camera_path)
    heard = None if audio is None else load_sound(audio, sound)
    keep_freed_memory()
    from degstalk_ns.export.render import TakeRenderer
    from degstalk_ns.plugin.runs import load_run

    head = load_run(load_config, data)
    take = _take(head, heard, track, path, camera_path, audio_features, expression, speech).between(start, end)
    for note in (*head.notes, *take.notes):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    renderer = TakeRenderer(head, take, side_by_side)
    mark = Watermark(*renderer.size) if watermark else None
    asked = renderer.fingerprint(head) + str((video, watermark))
    export = VideoExport(output, len(take), hashlib.sha256(asked.encode()).hexdigest(), video)
    missing = export.missing()
    wanted = sum(last - first for first, last in missing)
    if len(take) >= LONG:
        minutes, rest = divmod(round(len(take) / FRAME_RATE), 60)
        console.print(f"{len(take)} frames, {minutes} min {rest} s; it may be interrupted and goes on", markup=False)
    if wanted < len(take):
        console.print(f"going on: {len(take) - wanted} of {len(take)} frames are there already", markup=False)
    progress, begin = Progress(console), time.perf_counter()
    if missing:
        with progress.stage("frames", wanted) as advance:
            for first, last in missing:

                def pictures(first: int = first, last: int = last):  # type: ignore[no-untyped-def]
                    for image in renderer.frames(first, last):
                        yield image if mark is None else mark.draw(image)
                        advance(1)

                export.write(first, pictures())
    seconds = time.perf_counter() - begin
    with progress.stage("joining", len(take)) as advance:
        export.finish(take.soundtrack, Provenance.now(head.name, take.spoken).metadata(), advance)
    rate = f", {wanted / seconds:.1f} frames/s" if wanted else ""
    console.print(f"{output}: {len(take)} frames, {len(take) / FRAME_RATE:.2f} s{rate}", markup=False, soft_wrap=True)


def _check(
    output: Path,
    overwrite: bool,
    audio: Path | None,
    track: str | None,
    camera_path: Path | None,
    features: Path | None,
    side_by_side: bool,
) -> None:
    if output.suffix.lower() != ".mp4":
        raise UserError(f"--output {output}: expected a name that ends in .mp4")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; give a name for the video in it")
    if output.exists() and not overwrite:
        raise UserError(f"--output {output}: exists; give another name, or --overwrite to replace it")
    if audio is not None and track is not None:
        raise UserError("--audio and --track: give one of them; both say what drives the head")
    if audio is None and track is None and camera_path is None:
        raise UserError("nothing to show: give --audio SOUND, --track val (or train, all) or --camera-path PATH.json")
    if features is not None and audio is None:
        raise UserError("--audio-features: needs --audio, the sound that they belong to")
    if side_by_side and (track is None or camera_path is not None):
        raise UserError("--side-by-side: needs --track and the recorded camera; nothing else has a recorded frame")


def _take(  # type: ignore[no-untyped-def]
    head,
    heard: Sound | None,
    track: Literal["train", "val", "all"] | None,
    path: CameraPath | None,
    name: Path | None,
    features: Path | None,
    expression: Literal["source", "neutral"],
    speech: SpeechConfig,
) -> Take:
    recording, recorded = head.recording, head.model.recorded_track
    if heard is not None:
        take = take_of_sound(heard, perform(heard, recording, expression, features, speech))
    elif track is not None:
        take = take_of_recording(recording, recorded, track)
    else:
        assert path is not None and name is not None
        return take_of_path(recording, recorded, path, name)
    return take if path is None else take.seen_from(path)
