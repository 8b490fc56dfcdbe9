"""`degstalk render` on a tiny trained head, in this process; one frame size, few frames."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.files import only_one
from degstalk_ns.plugin.model import DegstalkModel
from degstalk_ns.plugin.runs import load_run
from degstalk_ns.scripts import cli


def _run(*arguments: object) -> int:
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """1 s: a burst of noise, then silence."""
    path = tmp_path / "speech.wav"
    noise = 0.2 * np.random.default_rng(0).normal(size=22_050)
    noise[11_025:] = 0
    soundfile.write(path, noise, 22_050)
    return path


def _render(config: Path, output: Path, *more: object) -> int:
    return _run("render", "--load-config", config, "--output", output, *more)


def test_new_sound_becomes_a_video(trained_config: Path, speech: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "out.mp4"
    assert _render(trained_config, output, "--audio", speech, "--watermark") == 0
    frames = _frames(output)
    assert frames.shape == (25, 64, 64, 3)
    assert np.abs(np.diff(frames[:12].astype(int), axis=0)).max() > 5
    with av.open(str(output)) as container:
        assert (
            "Synthetic" in container.metadata["comment"] and "tiny/degstalk-fast/only" in container.metadata["comment"]
        )
        assert float(container.streams.audio[0].duration * container.streams.audio[0].time_base) == pytest.approx(
            1, abs=0.04
        )
    plain = tmp_path / "plain.mp4"
    assert _render(trained_config, plain, "--audio", speech, "--expression", "neutral") == 0
    # The mark lies in the lower right corner.
    difference = np.abs(_frames(plain).astype(int) - frames).mean((0, 3))
    assert difference[56:, 24:].max() > 60 and difference[:20, :20].max() < 25


def test_a_track_beside_the_recorded_frames(trained_config: Path, dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    assert _render(trained_config, output, "--track", "val", "--side-by-side", "--video.quality", 5) == 0
    recording = load_run(trained_config).recording
    frames = _frames(output)
    assert frames.shape == (len(recording.val), 64, 128, 3)
    truth = read_frame(recording, int(recording.val.img_ids[1]), what=()).image
    assert np.abs(frames[1, :, :64].astype(int) - truth).mean() < 3
    with av.open(str(output)) as container:
        assert container.streams.audio

    part = tmp_path / "part.mp4"
    assert _render(trained_config, part, "--track", "all", "--start", 0.2, "--end", 0.44, "--video.quality", 5) == 0
    assert len(_frames(part)) == 6


def test_a_camera_path(trained_config: Path, speech: Path, tmp_path: Path) -> None:
    recording = load_run(trained_config).recording
    cameras = [
        {"camera_to_world": recording.train.c2w[0].flatten().tolist(), "fov": fov, "render_time": time}
        for fov, time in ((24.0, 0.0), (40.0, 1.0))
    ]
    content = {"render_width": 48, "render_height": 32, "fps": 10, "camera_path": cameras}
    path = tmp_path / "path.json"
    path.write_text(json.dumps(content))
    assert _render(trained_config, tmp_path / "a.mp4", "--camera-path", path) == 0
    assert _frames(tmp_path / "a.mp4").shape == (5, 32, 48, 3)
    for camera in cameras:
        del camera["render_time"]
    path.write_text(json.dumps(content))
    assert _render(trained_config, tmp_path / "b.mp4", "--camera-path", path) == 1
    assert not (tmp_path / "b.mp4").exists()
    assert _render(trained_config, tmp_path / "b.mp4", "--camera-path", path, "--audio", speech) == 0
    frames = _frames(tmp_path / "b.mp4")
    assert frames.shape == (25, 32, 48, 3) and (frames[:, 0, 0] > 245).all()  # no plate fits: a plain colour


def test_an_interrupted_render_goes_on_and_gives_the_same_video(
    trained_config: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--audio", speech, "--video.segment-frames", 10)
    whole, output = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    assert _render(trained_config, whole, *options) == 0
    real, calls = DegstalkModel.frame, []

    def failing(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(DegstalkModel, "frame", failing)
    assert _render(trained_config, output, *options) == cli.INTERRUPTED
    assert not output.exists()
    capsys.readouterr()
    assert _render(trained_config, output, *options) == 0
    assert "resuming: 10 of 25 frames" in capsys.readouterr().out
    assert len(calls) == 15 + 15
    assert (_frames(output) == _frames(whole)).all()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "choose what to render"),
        (["--audio", "{speech}", "--track", "val"], "give one of them"),
        (["--audio", "{folder}/nowhere.wav"], "no such file"),
        (["--audio", "{speech}", "--side-by-side"], "needs --track"),
        (["--audio", "{speech}", "--start", "3"], "nothing lies between"),
        (["--track", "val", "--audio-features", "x.npy"], "needs --audio"),
        (["--camera-path", "{folder}/nowhere.json"], "missing"),
        (["--track", "val", "--output", "{folder}/out.avi"], "ends in .mp4"),
        (["--track", "val", "--output", "{folder}"], "ends in .mp4"),
        (["--track", "val", "--output", "{speech}/out.mp4"], "cannot be written"),
        (["--track", "val", "--load-config", "{folder}/nowhere.yml"], "no such file"),
        (["--track", "val", "--output", "{folder}/there.mp4"], "--overwrite"),
    ],
)
def test_mistakes_are_one_line_and_lose_nothing(
    trained_config: Path,
    speech: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    (tmp_path / "there.mp4").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    filled = [option.format(speech=speech, folder=tmp_path) for option in options]
    assert _render(trained_config, tmp_path / "out.mp4", *filled) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "there.mp4").read_text() == "mine"


def test_a_second_render_of_the_same_video_is_one_line(
    trained_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    with only_one(output):
        assert _render(trained_config, output, "--track", "val", "--overwrite") == 1
    error = capsys.readouterr().err
    assert f"{output}: another degstalk or ns-train is working in it" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_of_an_earlier_version_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, output = tmp_path / "config.yml", tmp_path / "out.mp4"
    config.write_text("!!python/object:degstalk_ns.trainer.DegstalkTrainerConfig\nmethod_name: degstalk\n")
    assert _render(config, output, "--track", "val") == cli.FAILED
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not output.exists()
    assert str(config) in error and "earlier version of degstalk-ns" in error and "train again" in error
