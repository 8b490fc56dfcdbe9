from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from drawn_person import picture
from numpy.typing import NDArray
from video_files import RATE, grey, tone, write_video

from degstalk_ns.errors import UserError
from degstalk_ns.preprocess.steps import decode
from degstalk_ns.preprocess.steps.decode import THUMBNAIL, cuts, thumbnail


def shades(path: Path) -> list[int]:
    info = decode.probe(path)
    return [int(frame.mean().round()) for _, frame in decode.frames(info)]


def test_other_frame_rate_becomes_25(tmp_path: Path) -> None:
    # 30 frames/s whose shade tells the time: 1 a frame
    video = write_video(tmp_path / "a.mkv", [i / 30 for i in range(150)], [grey(i) for i in range(150)], tone(5))
    info = decode.probe(video)
    assert info.num_frames == 125
    assert info.seconds == pytest.approx(5, abs=0.01)
    expected = [i / 25 * 30 for i in range(125)]
    np.testing.assert_allclose(shades(video), expected, atol=0.51)


def test_variable_frame_rate_goes_by_timestamps(tmp_path: Path) -> None:
    # 2 s at 10 frames/s, then 3 s at 50 frames/s; the shade is 20 times the second
    times = [i / 10 for i in range(20)] + [2 + i / 50 for i in range(150)]
    video = write_video(tmp_path / "a.mkv", times, [grey(round(20 * t)) for t in times], tone(5))
    found = shades(video)
    assert len(found) == 125
    nearest = [20 * min(times, key=lambda t, i=i: abs(t - i / 25)) for i in range(125)]  # type: ignore[misc]
    # a tie between two frames may go either way: within one slow frame's step
    np.testing.assert_allclose(found, nearest, atol=2.01)
    np.testing.assert_allclose(found[50:], nearest[50:], atol=0.51)


def test_only_the_asked_frames_come(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", [i / 25 for i in range(110)], [grey(i) for i in range(110)], tone(5))
    info = decode.probe(video)
    got = [(i, int(frame.mean().round())) for i, frame in decode.frames(info, range(0, 110, 30))]
    assert got == [(0, 0), (30, 30), (60, 60), (90, 90)]


def test_odd_sizes(tmp_path: Path) -> None:
    picture = np.zeros((33, 47, 3), np.uint8)
    picture[:, :10] = (200, 30, 10)
    video = write_video(tmp_path / "a.mkv", [i / 25 for i in range(101)], [picture] * 101, tone(5))
    info = decode.probe(video)
    assert (info.width, info.height) == (47, 33)
    _, frame = next(decode.frames(info))
    np.testing.assert_allclose(frame, picture, atol=3)


def _mp4(path: Path, picture: np.ndarray, frames: int = 105, last: float | None = None) -> Path:
    """A video of one picture with a tone; its last frame stands for ``last`` seconds."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.height, video.width, video.pix_fmt = *picture.shape[:2], "yuv420p"
        video.bit_rate = 2_000_000
        audio = container.add_stream("aac", rate=RATE)
        packets = []
        for _ in range(frames):
            packets += video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        packets += video.encode(None)
        if last is not None:
            packets[-1].duration = round(last / float(packets[-1].time_base))
        container.mux(packets)
        piece = av.AudioFrame.from_ndarray(tone(4)[None], format="fltp", layout="mono")
        piece.sample_rate = RATE
        container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(
    "matrix",
    [
        *((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)),  # turned by 0 to 3 quarters
        *((-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)),  # and mirrored
    ],
)
def test_every_display_matrix(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = 255  # top left quarter is white,
    picture[:8, 48:] = (0, 0, 255)  # and near the top right corner it is blue
    path = _mp4(tmp_path / "a.mp4", picture)
    # Cameras write the turn into the track header of an mp4: (a, b, u, c, d, v, x, y, w) in 16.16 fixed point.
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd")
    place = header + 4 + 4 + 20 + 16
    a, b, c, d = (value * 65536 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))

    info = decode.probe(path)
    _, frame = next(decode.frames(info))
    # Each pixel goes where the matrix sends it: (x, y) to (a x + c y, b x + d y), about the picture's centre.
    a, b, c, d = matrix
    y, x = np.mgrid[:32, :64] - np.array([15.5, 31.5])[:, None, None]
    shown_x, shown_y = a * x + c * y, b * x + d * y
    shown_x, shown_y = (np.round(value - value.min()).astype(int) for value in (shown_x, shown_y))
    upright = np.zeros((shown_y.max() + 1, shown_x.max() + 1, 3), np.uint8)
    upright[shown_y, shown_x] = picture
    assert (info.height, info.width) == upright.shape[:2]
    assert np.abs(frame.astype(int) - upright).mean() < 10


def test_a_last_frame_that_stands_still_is_held(tmp_path: Path) -> None:
    picture = np.full((32, 64, 3), 200, np.uint8)
    info = decode.probe(_mp4(tmp_path / "a.mp4", picture, last=3.0))
    assert info.num_frames == 104 + 75
    shown = [image for _, image in decode.frames(info)]
    assert len(shown) == info.num_frames and np.array_equal(shown[-1], shown[104])


def test_sizes_are_looked_at_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _mp4(tmp_path / "a.mp4", np.zeros((32, 64, 3), np.uint8))
    monkeypatch.setattr(decode, "MOST_STORED_PIXELS", 64 * 32 - 1)
    opened = decode._open

    @contextmanager
    def undecodable(path: Path) -> Iterator[SimpleNamespace]:
        with opened(path) as container:
            yield SimpleNamespace(streams=container.streams, decode=lambda *_: pytest.fail("a frame was decoded"))

    monkeypatch.setattr(decode, "_open", undecodable)
    with pytest.raises(UserError, match="64 x 32 pixels; at most"):
        decode.probe(path)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"minutes long; at most 0\.05 are accepted"):
        decode.probe(path, maximum_seconds=3.0)


def test_playlists_are_not_opened(tmp_path: Path) -> None:
    video = _mp4(tmp_path / "a.mp4", np.zeros((32, 64, 3), np.uint8))
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile {video.name}\n")
    with pytest.raises(UserError, match="cannot be read as a video"):
        decode.probe(playlist)
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4,\n{video.name}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UserError, match="cannot be read as a video"):
        decode.probe(playlist)


def test_a_stray_timestamp_is_no_video_of_hours(tmp_path: Path) -> None:
    times = [*(i / 25 for i in range(110)), 80_000.0]
    with pytest.raises(UserError, match=r"after 4\.4 s the picture stands still for 79996 s, or a timestamp is wrong"):
        decode.probe(write_video(tmp_path / "a.mkv", times, [grey(9)] * 111, tone(4)))


def test_sound_is_16khz_mono_and_as_long_as_the_video(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", [i / 25 for i in range(110)], [grey(9)] * 110, tone(6))
    sound = decode.read_audio(decode.probe(video))
    assert sound.dtype == np.float32
    assert sound.shape == (110 * 640,)
    np.testing.assert_allclose(sound, tone(6)[: 110 * 640], atol=1e-3)


def test_sound_that_starts_late_keeps_its_place(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", [i / 25 for i in range(110)], [grey(9)] * 110, tone(2), sound_start=1.5)
    sound = decode.read_audio(decode.probe(video))
    assert sound.shape == (110 * 640,)
    start, end = round(1.5 * RATE), round(3.5 * RATE)
    assert not sound[: start - 32].any()
    assert np.abs(sound[start + 100 : start + 200]).max() > 0.4
    assert not sound[end + 32 :].any()


def test_video_that_starts_late_moves_the_sound(tmp_path: Path) -> None:
    burst = np.zeros(5 * RATE, np.float32)
    burst[2 * RATE : 2 * RATE + 800] = 0.5  # 2 s into the file, 1.2 s into the video
    video = write_video(tmp_path / "a.mkv", [0.8 + i / 25 for i in range(105)], [grey(i) for i in range(105)], burst)
    info = decode.probe(video)
    assert info.num_frames == 105
    found = np.flatnonzero(np.abs(decode.read_audio(info)) > 0.1)
    assert found[0] == pytest.approx(1.2 * RATE, abs=20)
    assert shades(video) == list(range(105))


def test_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("this is a text\n" * 100)
    with pytest.raises(UserError, match=r"notes\.mp4: cannot be read as a video"):
        decode.probe(path)
    with pytest.raises(UserError, match="no such file"):
        decode.probe(tmp_path / "absent.mp4")


def test_sound_without_pictures(tmp_path: Path) -> None:
    import soundfile

    path = tmp_path / "a.wav"
    soundfile.write(path, tone(5), RATE)
    with pytest.raises(UserError, match="no video stream"):
        decode.probe(path)


def test_no_sound(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", [i / 25 for i in range(110)], [grey(9)] * 110)
    with pytest.raises(UserError, match="no audio"):
        decode.probe(video)


def test_too_short(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", [i / 25 for i in range(90)], [grey(9)] * 90, tone(4))
    with pytest.raises(UserError, match=r"3\.6 s long; expected at least 4 s"):
        decode.probe(video)
    assert decode.probe(video, minimum_seconds=3).num_frames == 90


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 48, 3), dtype=np.uint8) for _ in range(200)]
    video = write_video(tmp_path / "a.mkv", [i / 25 for i in range(200)], images, tone(8))
    info = decode.probe(video)
    video.write_bytes(video.read_bytes()[: int(video.stat().st_size * 0.6)])
    with pytest.raises(UserError, match="damaged"):
        list(decode.frames(info))


def test_identity_tells_files_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a" * 5_000_000)
    two.write_bytes(b"a" * 4_999_999 + b"b")
    assert decode.identity(one) != decode.identity(two)
    assert decode.identity(one) == decode.identity(one)


CUT_FRAMES = 60


def _moving_pattern(seed: int = 0, speed: float = 0.15) -> np.ndarray:
    """A soft pattern that moves to and fro, with noise, [60, 32, 32]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:THUMBNAIL, :THUMBNAIL]
    waves = random.uniform(0.1, 0.5, (6, 2))
    shift = np.cumsum(speed * np.sin(np.arange(CUT_FRAMES) / 5))
    frames = [128 + 12 * sum(np.sin(a * (x + s) + b * y) for a, b in waves) for s in shift]
    return np.clip(np.stack(frames) + random.normal(0, 1, (CUT_FRAMES, THUMBNAIL, THUMBNAIL)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("speed", [0.0, 0.15, 1.0])
def test_a_video_in_one_piece_has_no_cut(speed: float) -> None:
    assert cuts(_moving_pattern(speed=speed)) == []


@pytest.mark.parametrize("places", [[30], [2], [20, 41]])
def test_the_frames_after_cuts_are_found(places: list[int]) -> None:
    parts = np.split(np.arange(CUT_FRAMES), places)
    video = np.concatenate([_moving_pattern(seed)[part] for seed, part in enumerate(parts)])
    assert cuts(video) == places


def test_a_change_of_light_over_a_second_is_no_cut_and_a_flash_is() -> None:
    video = _moving_pattern().astype(np.int64)
    fading = video + np.linspace(0, 60, CUT_FRAMES).astype(np.int64)[:, None, None]
    assert cuts(np.clip(fading, 0, 255).astype(np.uint8)) == []
    video[25] += 80
    assert cuts(np.clip(video, 0, 255).astype(np.uint8)) == [25, 26]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_shortest_videos_have_none(count: int) -> None:
    assert cuts(_moving_pattern()[:count]) == []


def test_thumbnails_are_small_and_grey() -> None:
    frame = np.zeros((200, 120, 3), np.uint8)
    frame[:100] = 255
    small = thumbnail(frame)
    assert small.shape == (THUMBNAIL, THUMBNAIL) and small.dtype == np.uint8
    assert (small[:15] == 255).all() and (small[17:] == 0).all()


@pytest.mark.parametrize("aspect", [Fraction(20, 1), Fraction(1, 20)])
def test_pixels_that_are_no_squares_at_all_are_refused(tmp_path: Path, aspect: Fraction) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for _ in range(110):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(9), format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="times as wide as high"):
        decode.probe(path)


def _zoomed(frame: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    side = frame.shape[0]
    shift = side / 2 * (1 - factor)
    return np.asarray(cv2.warpAffine(frame, np.array([[factor, 0, shift], [0, factor, shift]]), (side, side)), np.uint8)


@pytest.mark.parametrize("factor", [1.1, 1.3])
def test_a_jump_of_the_zoom_is_a_cut_and_a_slow_zoom_is_none(factor: float) -> None:
    frames = [picture(i) for i in range(100)]
    jump = [thumbnail(_zoomed(frame, factor) if i >= 50 else frame) for i, frame in enumerate(frames)]
    assert cuts(np.stack(jump)) == [50]
    slow = [thumbnail(_zoomed(frame, 1 + (factor - 1) * i / 100)) for i, frame in enumerate(frames)]
    assert cuts(np.stack(slow)) == [] == cuts(np.stack([thumbnail(frame) for frame in frames]))
