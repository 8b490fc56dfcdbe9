"""`degstalk render`: options in, an animation rendered into a video, a summary printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from degstalk_ns.animation.animation import Animation
from degstalk_ns.animation.camera_path import read_camera_path
from degstalk_ns.animation.new_sound import NewSoundConfig
from degstalk_ns.audio.sound import SoundLimits, load_sound
from degstalk_ns.console.progress import Progress
from degstalk_ns.errors import UserError
from degstalk_ns.export.render import check_video_path, render_video
from degstalk_ns.export.writer import VideoConfig
from degstalk_ns.kernels.memory import keep_freed_memory

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
    new_sound: Annotated[NewSoundConfig, tyro.conf.arg(name="new-sound")] = NewSoundConfig(),  # noqa: B008 (frozen)
    video: Annotated[VideoConfig, tyro.conf.arg(name="video")] = VideoConfig(),  # noqa: B008 (frozen)
) -> None:
    """Render a video of a trained avatar: speaking new audio, replaying its recording, or along a camera path.

    If rendering is interrupted, the same command resumes it. The metadata of the video says that it is synthetic.

    Args:
        load_config: Path of the config.yml of the run, such as outputs/me/degstalk-fast/<time>/config.yml.
        output: Video file to write, an .mp4.
        audio: Audio file that drives the mouth: wav, mp3, flac, ogg, m4a, or a video with an audio track.
        track: Part of the recording to render instead of new audio: train, val (the held-out frames), or all.
        camera_path: Camera path exported from the Render tab of the viewer. With --audio or --track it is stretched to
            their duration, and otherwise its own times select the moments of the recording.
        audio_features: Precomputed features of --audio (.npy), for an avatar trained on features not computed here.
        expression: With --audio, brows and eyes move as recorded (source) or stay still (neutral); blinks continue in
            both cases.
        side_by_side: With --track, show the recorded frame to the left of the rendered one.
        start: Start of the part that is rendered, in seconds from the beginning of the audio or track.
        end: End of the part that is rendered, in seconds; by default the end of the audio or track.
        watermark: Write the word "synthetic" into the corner of every frame.
        overwrite: Replace the output if it exists.
        data: Folder of the dataset, if it has moved since the training.
        sound: Limits on the length and size of --audio.
        new_sound: How new audio drives the head.
        video: How the video is compressed.
    """
    console = Console(highlight=False)
    # Everything that is cheap to refuse is refused before the avatar is loaded.
    check_video_path(output, overwrite)
    _check(audio, track, camera_path, audio_features, side_by_side)
    path = None if camera_path is None else read_camera_path(camera_path)
    heard = None if audio is None else load_sound(audio, sound)
    keep_freed_memory()
    from degstalk_ns.plugin.runs import load_run

    run = load_run(load_config, data)
    if heard is not None:
        animation = Animation.from_sound(
            heard, run.recording, upper_face=expression, features=audio_features, config=new_sound
        )
    elif track is not None:
        animation = Animation.from_recording(run.recording, track)
    else:
        assert path is not None
        animation = Animation.from_path(run.recording, path, str(camera_path))
    if path is not None and (heard is not None or track is not None):
        animation = animation.seen_from(path)
    animation = animation.between(start, end)
    for note in (*run.notes, *animation.notes, *(() if path is None else path.notes)):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if len(animation) >= LONG:
        minutes, rest = divmod(round(animation.duration), 60)
        console.print(
            f"{len(animation)} frames, {minutes} min {rest} s; it may be interrupted and goes on", markup=False
        )
    done = render_video(
        run,
        animation,
        output,
        side_by_side=side_by_side,
        watermark=watermark,
        overwrite=overwrite,
        config=video,
        progress=Progress(console),
    )
    rate = f", {done.rendered / done.seconds:.1f} frames/s" if done.rendered else ""
    console.print(f"{output}: {done.frames} frames, {animation.duration:.2f} s{rate}", markup=False, soft_wrap=True)


def _check(
    audio: Path | None, track: str | None, camera_path: Path | None, features: Path | None, side_by_side: bool
) -> None:
    if audio is not None and track is not None:
        raise UserError("--audio and --track: give one of them; both say what drives the avatar")
    if audio is None and track is None and camera_path is None:
        raise UserError("choose what to render: --audio FILE, --track val (or train, all), or --camera-path FILE.json")
    if features is not None and audio is None:
        raise UserError("--audio-features: needs --audio, the audio that they belong to")
    if side_by_side and (track is None or camera_path is not None):
        raise UserError("--side-by-side: needs --track and the recorded camera; nothing else has a recorded frame")
