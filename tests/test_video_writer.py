"""Exported videos: streams, lengths, colours, sync, metadata; and what an interruption leaves."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from degstalk_ns.audio.sound import Soundtrack, load_sound
from degstalk_ns.errors import UserError
from degstalk_ns.export.provenance import Provenance
from degstalk_ns.export.writer import VideoConfig, VideoExport

RATE = 16_000
SMALL = VideoConfig(segment_frames=10)


def _wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def _tone(seconds: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE)


def _pictures(first: int, end: int, width: int = 64, height: int = 48) -> Iterator[np.ndarray]:
    """Each tells its number by its brightness."""
    for number in range(first, end):
        yield np.full((height, width, 3), (number * 5) % 250, np.uint8)


def _export(output: Path, frames: int, sound: Soundtrack | None, config: VideoConfig = SMALL, **size: int) -> None:
    export = VideoExport(output, frames, "one", config)
    for first, end in export.missing():
        export.write(first, _pictures(first, end, **size))
    export.finish(sound, Provenance.now("me/degstalk-fast/only, step 39", "new audio").metadata())


def test_streams_lengths_profile_and_metadata(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    sound = _wav(tmp_path / "a.wav", _tone(1.33))
    _export(output, 34, Soundtrack(load_sound(sound), 0.0, 1.33))
    with av.open(str(output)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.name == "h264" and video.codec_context.profile == "High"
        assert video.codec_context.pix_fmt == "yuv420p" and video.average_rate == 25
        assert audio.codec_context.name == "aac"
        ends = [float(stream.duration * stream.time_base) for stream in (video, audio)]
        assert ends[0] == 34 / 25 and abs(ends[0] - ends[1]) <= 0.04
        said = container.metadata["comment"]
        assert "Synthetic" in said and "degstalk-ns" in said and "step 39" in said and "+00:00" in said
        assert container.metadata["description"] == said
        assert str(tmp_path) not in str(container.metadata)
        assert sum(1 for _ in container.decode(video)) == 34
    content = output.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # a browser can start before all of it is there
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_frames_come_back_in_order_with_their_colours_at_odd_sizes(tmp_path: Path) -> None:
    export = VideoExport(tmp_path / "out.mp4", 12, "one", SMALL)
    colours = np.random.default_rng(0).integers(20, 235, (12, 3))
    for first, end in export.missing():
        export.write(first, (np.full((33, 47, 3), colours[k], np.uint8) for k in range(first, end)))
    export.finish(None, {})
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert frames[0].shape == (34, 48, 3)
    for frame, colour in zip(frames, colours, strict=True):
        assert np.abs(frame[10:20, 10:20].astype(int) - colour).max() <= 4


def test_an_interrupted_export_leaves_no_video_and_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_text("what was there before")
    export = VideoExport(output, 34, "one", SMALL)

    def interrupted() -> Iterator[np.ndarray]:
        yield from _pictures(10, 15)
        raise KeyboardInterrupt

    export.write(0, _pictures(0, 10))
    with pytest.raises(KeyboardInterrupt):
        export.write(10, interrupted())
    assert output.read_text() == "what was there before"
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["out.mp4"]

    again = VideoExport(output, 34, "one", SMALL)
    assert again.missing() == [(10, 20), (20, 30), (30, 34)]
    for first, end in again.missing():
        again.write(first, _pictures(first, end))
    again.finish(None, {})
    with av.open(str(output)) as container:
        means = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    assert np.abs(np.array(means) - [(k * 5) % 250 for k in range(34)]).max() < 4
    assert not again.folder.exists()


def test_parts_of_other_inputs_are_not_used(tmp_path: Path) -> None:
    export = VideoExport(tmp_path / "out.mp4", 20, "one", SMALL)
    export.write(0, _pictures(0, 10))
    assert len(VideoExport(tmp_path / "out.mp4", 20, "one", SMALL).missing()) == 1
    assert len(VideoExport(tmp_path / "out.mp4", 20, "two", SMALL).missing()) == 2


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        VideoExport(tmp_path / "file" / "out.mp4", 20, "one")


@pytest.mark.parametrize("minutes", [10])
def test_sound_and_picture_stay_together_over_ten_minutes(tmp_path: Path, minutes: int) -> None:
    """A flash and a click at the same moments, the last in the tenth minute."""
    seconds, config = 60 * minutes, VideoConfig(segment_frames=2000, preset="ultrafast")
    moments = [1.0, 299.48, seconds - 1.0]
    samples = np.zeros(seconds * RATE, np.float32)
    for moment in moments:
        samples[round(moment * RATE) : round(moment * RATE) + 320] = 0.9
    sound = _wav(tmp_path / "clicks.wav", samples)
    flashes = {round(moment * 25) for moment in moments}
    export = VideoExport(tmp_path / "out.mp4", 25 * seconds, "one", config)
    dark, bright = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    for first, end in export.missing():
        export.write(first, (bright if k in flashes else dark for k in range(first, end)))
    export.finish(Soundtrack(load_sound(sound), 0.0, seconds), {})

    with av.open(str(tmp_path / "out.mp4")) as container:
        streams = (container.streams.video[0], container.streams.audio[0])
        ends = [float((stream.duration + (stream.start_time or 0)) * stream.time_base) for stream in streams]
        assert abs(ends[0] - ends[1]) <= 0.04
        seen = [frame.time for frame in container.decode(video=0) if frame.to_ndarray(format="gray").mean() > 128]
    with av.open(str(tmp_path / "out.mp4")) as container:
        heard: list[float] = []
        for frame in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()).max(0) > 0.4)
            if len(loud) and (not heard or frame.time > heard[-1] + 0.1):
                heard.append(frame.time + loud[0] / frame.sample_rate)
    assert len(seen) == len(heard) == len(moments)
    assert np.abs(np.array(seen) - np.array(heard)).max() < 0.04


def test_a_part_of_a_sound_starts_where_the_part_starts(tmp_path: Path) -> None:
    samples = np.zeros(4 * RATE, np.float32)
    samples[2 * RATE : 2 * RATE + 320] = 0.9
    sound = _wav(tmp_path / "click.wav", samples)
    _export(tmp_path / "out.mp4", 50, Soundtrack(load_sound(sound), 1.0, 2.0))
    with av.open(str(tmp_path / "out.mp4")) as container:
        loud = [
            frame.time + np.flatnonzero(np.abs(frame.to_ndarray()).max(0) > 0.4)[0] / frame.sample_rate
            for frame in container.decode(audio=0)
            if np.abs(frame.to_ndarray()).max() > 0.4
        ]
    assert abs(loud[0] - 1.0) < 0.02


def test_what_goes_wrong_with_the_pictures_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from _pictures(0, 3)
        raise PermissionError(13, "Permission denied", "ori_imgs/3.jpg")

    export = VideoExport(tmp_path / "out.mp4", 10, "one", SMALL)
    with pytest.raises(UserError, match=r"^ori_imgs/3\.jpg: cannot be read \(Permission denied\)"):
        export.write(0, broken())
    assert export.missing() == [(0, 10)]
    assert [path.name for path in export.folder.iterdir()] == ["export.json"]


def test_a_damaged_part_is_rendered_anew(tmp_path: Path) -> None:
    export = VideoExport(tmp_path / "out.mp4", 20, "one", SMALL)
    for first, end in export.missing():
        export.write(first, _pictures(first, end))
    part = export.folder / "00000010.mp4"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match="renders it anew"):
        export.finish(None, {})
    assert export.missing() == [(10, 20)] and not export.output.exists()
    export.write(10, _pictures(10, 20))
    export.finish(None, {})
    with av.open(str(export.output)) as container:
        assert len(list(container.decode(video=0))) == 20


@pytest.mark.parametrize(
    ("option", "value"), [("segment_frames", 0), ("segment_frames", -1), ("quality", 52), ("audio_bit_rate", 0)]
)
def test_options_that_no_encoder_takes_are_refused(option: str, value: int) -> None:
    with pytest.raises(UserError, match=f"--video.{option.replace('_', '-')} {value}: expected a number from"):
        VideoConfig(**{option: value})
