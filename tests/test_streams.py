"""Sounds of any channels, rates that change midway, and tracks that cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from video_files import RATE, tone

from degstalk_ns.audio.sound import load_sound, natural_format
from degstalk_ns.audio.streams import Piece, Resampler, as_floats, mixed
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.preprocess.steps import decode


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 7, 8, 16])
def test_any_number_of_channels_becomes_their_mean(channels: int, tmp_path: Path) -> None:
    samples = tone(1.0)[:, None] * np.linspace(0.2, 1.6, channels)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    found = load_sound(tmp_path / "a.wav").samples
    expected = samples.mean(1)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found[100:-100], expected[100:-100], atol=2e-3)
    assert natural_format(tmp_path / "a.wav", "a") == (44_100, "stereo" if channels == 2 else "mono")


@pytest.mark.parametrize("kind", ["u8", "s16", "s32", "flt", "dbl", "u8p", "s16p", "s32p", "fltp", "dblp"])
def test_samples_of_any_format_are_floats(kind: str) -> None:
    left, right = tone(0.01), -0.5 * tone(0.01)
    both = np.stack([left, right])
    scale = {"u": 127, "s": 32767 if "16" in kind else 2**31 - 129}.get(kind[0], 1)
    types = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}
    stored = (both * scale + (128 if kind[0] == "u" else 0)).astype(types[kind.removesuffix("p")])
    if not kind.endswith("p"):
        stored = np.ascontiguousarray(stored.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(stored, format=kind, layout="stereo")
    np.testing.assert_allclose(as_floats(frame), both, atol=0.02 if kind[0] == "u" else 1e-4)


def test_what_is_no_number_is_silence() -> None:
    frame = av.AudioFrame.from_ndarray(np.array([[np.nan, np.inf, 0.5]], np.float32), format="fltp", layout="mono")
    assert as_floats(frame).tolist() == [[0.0, 1.0, 0.5]]


def test_rate_and_channels_may_change_midway() -> None:
    resampler, blocks = Resampler(SAMPLE_RATE, 1), []
    for rate, channels in ((44_100, 1), (44_100, 2), (24_000, 6), (8_000, 1), (44_100, 2)):
        t = np.arange(rate) / rate
        samples = np.repeat(0.5 * np.sin(2 * np.pi * 440 * t)[None].astype(np.float32), channels, 0)
        for part in np.array_split(samples, 30, axis=1):
            blocks += resampler.put(Piece(part, rate, None))
    blocks += resampler.rest()
    found = np.concatenate(blocks, 1)[0]
    assert abs(len(found) - 5 * SAMPLE_RATE) < 20
    assert (np.abs(np.fft.rfft(found))[1:].argmax() + 1) * SAMPLE_RATE / len(found) == pytest.approx(440, abs=0.5)
    assert np.abs(found).max() < 0.6
    assert mixed(np.ones((3, 2), np.float32), 2).shape == (2, 2)


def test_two_sound_files_in_one(tmp_path: Path) -> None:
    content = b""
    for rate, channels in ((44_100, 1), (48_000, 2), (24_000, 1)):
        path = tmp_path / f"{rate}.mp3"
        samples = np.repeat(np.interp(np.arange(rate), np.arange(RATE) * rate / RATE, tone(1.0))[:, None], channels, 1)
        soundfile.write(path, samples, rate)
        content += path.read_bytes()
    (tmp_path / "cat.mp3").write_bytes(content)
    found = load_sound(tmp_path / "cat.mp3")
    assert found.seconds == pytest.approx(3.0, abs=0.25)
    for second in range(3):  # each of the three is heard
        assert found.samples[second * RATE + RATE // 4 :][: RATE // 2].std() == pytest.approx(0.35, abs=0.05)


def _video_in_stereo(path: Path, sound: NDArray[np.float32]) -> Path:
    """A black video with a PCM track of ``sound`` [2, S]."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        for _ in range(round(25 * sound.shape[1] / RATE)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
        samples = np.ascontiguousarray((sound * 32767).astype(np.int16).T).reshape(1, -1)
        piece = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        piece.sample_rate = RATE
        container.mux(track.encode(piece))
        container.mux(track.encode(None))
    return path


def test_the_loud_stereo_of_a_video_is_not_clipped(tmp_path: Path) -> None:
    loud = np.tile(0.9 / 0.5 * tone(4.2)[None], (2, 1)).astype(np.float32)
    found = decode.read_audio(decode.probe(_video_in_stereo(tmp_path / "loud.mkv", loud)))
    assert np.abs(found).max() == pytest.approx(0.9, abs=0.005)
    assert found.std() == pytest.approx(0.9 / np.sqrt(2), rel=0.01)  # a clipped sine has more


def test_a_rate_that_changes_midway_in_a_video(tmp_path: Path) -> None:
    """Two sounds one after the other in a file of MPEG audio, beside a picture: as some recorders join them."""
    content = b""
    for rate in (44_100, 32_000):
        path = tmp_path / f"{rate}.mp3"
        soundfile.write(path, np.interp(np.arange(3 * rate), np.arange(3 * RATE) * rate / RATE, tone(3.0)), rate)
        content += path.read_bytes()
    (tmp_path / "cat.mp3").write_bytes(content)
    with av.open(str(tmp_path / "cat.mp3")) as sound, av.open(str(tmp_path / "a.ts"), "w") as container:
        video = container.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream_from_template(sound.streams.audio[0])
        for _ in range(150):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
        for packet in sound.demux(sound.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = track
                container.mux(packet)
    found = decode.read_audio(decode.probe(tmp_path / "a.ts"))
    for second in (1, 4):  # one of each
        assert found[second * RATE :][:RATE].std() == pytest.approx(0.35, abs=0.05)


def _two_tracks(path: Path, first: bytes) -> Path:
    """A video whose first sound track is in a format that nobody reads, and whose second is a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        tracks = [container.add_stream("aac", rate=RATE, layout="mono") for _ in range(2)]
        for _ in range(105):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
        for track, loudness in zip(tracks, (0.1, 1.0), strict=True):
            piece = av.AudioFrame.from_ndarray(loudness * tone(4.2)[None], format="fltp", layout="mono")
            piece.sample_rate = RATE
            container.mux(track.encode(piece))
            container.mux(track.encode(None))
    return _renamed(path, first, 1)


def _renamed(path: Path, name: bytes, tracks: int) -> Path:
    """Gives the first sound tracks another codec, of which FFmpeg knows nothing."""
    data, place = path.read_bytes(), 0
    for _ in range(tracks if name != b"mp4a" else 0):
        for word, other in ((b"mp4a", name), (b"esds", b"skip")):
            place = data.index(word, place)
            data = data[:place] + other + data[place + 4 :]
    path.write_bytes(data)
    return path


def test_a_track_that_cannot_be_decoded_does_not_hide_the_next(tmp_path: Path) -> None:
    path = _two_tracks(tmp_path / "a.mp4", b"apac")
    for samples in (load_sound(path).samples, decode.read_audio(decode.probe(path))):
        loud = np.percentile(np.abs(samples), 99)  # but for the onset, which encoders let overshoot
        assert loud == pytest.approx(0.5, abs=0.02)
    assert (
        np.abs(load_sound(_two_tracks(tmp_path / "b.mp4", b"mp4a")).samples).max() < 0.1
    )  # the first, where it can be


def test_a_video_that_nobody_decodes_is_refused(tmp_path: Path) -> None:
    path = _two_tracks(tmp_path / "a.mp4", b"mp4a")
    data = path.read_bytes()
    place = data.index(b"mp4v")
    path.write_bytes(data[:place] + data[place:].replace(b"mp4v", b"zzzz", 1).replace(b"esds", b"skip", 1))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context is None
    with pytest.raises(UserError, match=r"a\.mp4: there is no decoder here for its video; convert it"):
        decode.probe(path)


def test_no_track_that_can_be_decoded_is_refused(tmp_path: Path) -> None:
    path = _renamed(_two_tracks(tmp_path / "a.mp4", b"mp4a"), b"apac", 2)
    with pytest.raises(UserError, match=r"a\.mp4: (has no readable audio|holds no samples)"):
        load_sound(path)
    with pytest.raises(UserError, match="none of its audio can be decoded"):
        decode.read_audio(decode.probe(path))
