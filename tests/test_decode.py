from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
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


@pytest.mark.parametrize(
    ("quarter_turns_clockwise", "matrix"), [(1, (0, 1, -1, 0)), (3, (0, -1, 1, 0)), (2, (-1, 0, 0, -1))]
)
def test_rotation_metadata(tmp_path: Path, quarter_turns_clockwise: int, matrix: tuple[int, int, int, int]) -> None:
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32] = 255  # top left quarter is white
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 32, "yuv420p"
        video.bit_rate = 2_000_000
        audio = container.add_stream("aac", rate=RATE)
        for _ in range(105):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        piece = av.AudioFrame.from_ndarray(tone(4)[None], format="fltp", layout="mono")
        piece.sample_rate = RATE
        container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
    # Cameras write the turn into the track header of an mp4: (a, b, u, c, d, v, x, y, w) in 16.16 fixed point.
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd")
    place = header + 4 + 4 + 20 + 16
    a, b, c, d = (value * 65536 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))

    info = decode.probe(path)
    _, frame = next(decode.frames(info))
    upright = np.rot90(picture, -quarter_turns_clockwise)
    assert (info.height, info.width) == upright.shape[:2]
    assert np.abs(frame.astype(int) - upright).mean() < 10


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
