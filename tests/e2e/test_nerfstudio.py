"""The commands a user types, on a tiny dataset: train, resume after a kill, evaluate, render; and their refusals.

The first training is the console script itself; all else is run by :class:`commands.Commands`.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from commands import Commands, Running
from pictures import evaluated_pictures

from degstalk_ns.dataparsers.recording import read_recording

STEPS = 60
FOLDER = Path("outputs/run/degstalk-fast/only")


def _arguments(data: Path, *more: str) -> list[str]:
    return [
        *("ns-train", "degstalk-fast"),
        *("--data", str(data), "--experiment-name", "run", "--timestamp", "only", "--vis", "tensorboard"),
        *("--max-num-iterations", str(STEPS), "--steps-per-save", "20", "--steps-per-eval-image", "30"),
        *more,
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands("ns-train", "ns-eval", "ns-render", "ns-viewer") as commands:
        yield commands


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run in it, trained with the viewer on as users have it."""
    cwd = tmp_path_factory.mktemp("trained")
    arguments = _arguments(dataset, "--vis", "viewer+tensorboard", "--viewer.websocket-port", str(_free_port()))
    arguments[0] = str(Path(sys.executable).parent / arguments[0])
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return cwd


def _saved(folder: Path) -> str:
    """The newest checkpoint; the one before may lie beside it, and nothing else."""
    names = sorted(path.name for path in folder.iterdir())
    assert 1 <= len(names) <= 2 and all(name.endswith(".ckpt") for name in names)
    return names[-1]


def test_training_leaves_config_checkpoint_and_events(trained: Path) -> None:
    folder = trained / FOLDER
    assert (folder / "config.yml").exists()
    assert _saved(folder / "nerfstudio_models") == f"step-{STEPS - 1:09d}.ckpt"
    assert list(folder.glob("events.out.tfevents*"))


def test_training_lowers_the_error(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / FOLDER), size_guidance={"scalars": 0})
    events.Reload()
    losses = [event.value for event in events.Scalars("Train Loss Dict/face_l1")]
    assert losses[-1] < 0.7 * losses[0]
    assert np.isfinite(losses).all()


def test_evaluation_measures_what_it_shows_and_says_what_it_cannot(
    commands: Commands, trained: Path, dataset: Path
) -> None:
    arguments = ["ns-eval", "--load-config", str(FOLDER / "config.yml"), "--output-path", "e.json"]
    done = commands.run([*arguments, "--render-output-path", "pictures"], trained)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((trained / "e.json").read_text())["results"]
    recording = read_recording(dataset)
    shown = evaluated_pictures(trained / "pictures", recording)
    for image, truth in zip(recording.val.img_ids, shown.truth, strict=True):
        np.testing.assert_array_equal(truth, cv2.imread(str(recording.layout.frame(int(image))))[..., ::-1])
    shown.agree_with(results)
    assert not any(np.isnan(value) for value in results.values())
    # It is driven: frozen or without sound, the lips look otherwise.
    assert results["lips_l1_change_frozen"] > 0 and results["lips_l1_change_silent"] > 0
    assert ("lpips" in results) != ("LPIPS is left out" in done.stdout)
    assert "Traceback" not in done.stderr
    frames = len(list((trained / "pictures").glob("*_composition_*.png")))
    shapes = {name: (64, 64, 3) for name in ("face", "mouth", "plate", "masks")}
    for name, shape in {**shapes, "composition": (64, 128, 3), "attention": (64, 128, 3)}.items():
        pictures = [cv2.imread(str(path)) for path in sorted((trained / "pictures").glob(f"*_{name}_*.png"))]
        assert len(pictures) == frames > 0 and all(picture.shape == shape for picture in pictures)
        # After so few steps the silhouette without its overlap may hold nothing of the face or the mouth.
        assert name in ("face", "mouth", "attention") or all(picture.any() for picture in pictures)


def test_dataset_render_writes_every_output(commands: Commands, trained: Path) -> None:
    done = commands.run(
        ["ns-render", "dataset", "--load-config", str(FOLDER / "config.yml"), "--output-path", "renders"],
        trained,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    frames = sorted((trained / "renders/test/rgb").iterdir())
    assert len(frames) == len(list((trained / "renders/test/gt-rgb").iterdir())) > 0
    for name in ("face", "mouth", "plate", "depth", "audio_attention"):
        assert (trained / "renders/test" / name).is_dir()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="nerfstudio writes videos with the ffmpeg program")
def test_interpolated_render_writes_a_video(commands: Commands, trained: Path) -> None:
    done = commands.run(
        [
            *("ns-render", "interpolate", "--load-config", str(FOLDER / "config.yml")),
            *("--output-path", "between.mp4", "--interpolation-steps", "2", "--rendered-output-names", "rgb"),
        ],
        trained,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    capture = cv2.VideoCapture(str(trained / "between.mp4"))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1].astype(float))
    differences = [np.abs(frame - frames[0]).mean() for frame in frames[1:]]
    assert len(frames) >= 4 and max(differences) > 0.1


def _trained_to_its_first_checkpoint(
    commands: Commands, dataset: Path, folder: Path, steps: int = STEPS
) -> tuple[Running, Path]:
    """A training that goes on, and the folder of its checkpoints."""
    arguments = [str(steps) if word == str(STEPS) else word for word in _arguments(dataset)]
    process = commands.start(arguments, folder)
    models = folder / FOLDER / "nerfstudio_models"
    deadline = time.monotonic() + 300
    while not list(models.glob("step-*.ckpt")):
        assert not process.ended() and time.monotonic() < deadline, "training ended before its first checkpoint"
        time.sleep(0.02)
    return process, models


def test_a_killed_run_resumes_and_ends_as_an_uninterrupted_one(
    commands: Commands, dataset: Path, trained: Path, tmp_path: Path
) -> None:
    process, models = _trained_to_its_first_checkpoint(commands, dataset, tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    saved = max(models.glob("*.ckpt"))
    step = int(saved.stem.split("-")[1])
    assert step < STEPS - 1
    torch.load(saved, weights_only=False)  # whole

    again = commands.run(_arguments(dataset, "--load-dir", str(models)), tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert _saved(models) == f"step-{STEPS - 1:09d}.ckpt"

    # Frames, patches and splits are drawn from the step: the resumed run repeats the uninterrupted one bit by bit.
    name = f"step-{STEPS - 1:09d}.ckpt"
    resumed, whole = (
        torch.load(folder / name, weights_only=False)["pipeline"]
        for folder in (models, trained / FOLDER / "nerfstudio_models")
    )
    assert resumed.keys() == whole.keys()
    tensors = [key for key, value in whole.items() if isinstance(value, torch.Tensor)]
    assert [key for key in tensors if not torch.equal(resumed[key], whole[key])] == []

    finished = commands.run(_arguments(dataset, "--load-dir", str(models)), tmp_path)
    assert finished.returncode == 1
    assert "nothing is left to train" in finished.stderr and "Traceback" not in finished.stderr
    assert _saved(models) == f"step-{STEPS - 1:09d}.ckpt"


def test_a_torn_checkpoint_is_passed_over_by_nerfstudio_s_programs(
    commands: Commands, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "outputs", tmp_path / "outputs")
    models = tmp_path / FOLDER / "nerfstudio_models"
    *_, before, torn = sorted(models.iterdir())
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    file = tmp_path / FOLDER / "config.yml"
    config = yaml.load(file.read_text(), Loader=yaml.Loader)
    config.output_dir = tmp_path / "outputs"
    file.write_text(yaml.dump(config))
    note = f"{torn.name}: is torn and passed over"
    done = commands.run(["ns-eval", "--load-config", str(file), "--output-path", "e.json"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert note in done.stdout
    assert json.loads((tmp_path / "e.json").read_text())["checkpoint"].endswith(before.name)
    port = str(_free_port())
    viewer = commands.start(["ns-viewer", "--load-config", str(file), "--viewer.websocket-port", port], tmp_path)
    deadline = time.monotonic() + 120
    while f":{port}" not in viewer.printed():
        assert not viewer.ended() and time.monotonic() < deadline, viewer.printed()
        time.sleep(0.1)
    viewer.stop()
    assert note in viewer.wait().stdout


def test_an_interrupted_run_says_how_to_go_on(commands: Commands, dataset: Path, tmp_path: Path) -> None:
    # Of so many steps that it cannot end by itself before the signal reaches it.
    process, models = _trained_to_its_first_checkpoint(commands, dataset, tmp_path, steps=3_000)
    os.killpg(process.pid, signal.SIGINT)
    ended = process.wait()
    assert ended.returncode == 130 and "Traceback" not in ended.stdout + ended.stderr, ended.stderr[-2000:]
    line = " ".join(ended.stdout.split())
    words = _arguments(dataset)[2:]
    words[words.index(str(STEPS))] = "3000"
    assert (
        f"interrupted; go on with: {shlex.join(['ns-train', 'degstalk-fast', '--load-dir', str(models), *words])}"
        in line
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pipeline.model.mouth-dilation", "12"], "mouth_dilation must be a fraction of the picture's height"),
        (["--pipeline.datamanager.face-margin", "3"], "face_margin must be a fraction of the frame's height"),
        (["--max-num-iterations", "2"], "at least 3 steps"),
    ],
)
def test_impossible_options_are_one_line(
    commands: Commands, dataset: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    done = commands.run(_arguments(dataset, *options), tmp_path)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


def test_the_long_schedule_on_a_dataset_of_the_reference_at_half_size(
    commands: Commands, reference_dataset: Path, tmp_path: Path
) -> None:
    done = commands.run(
        [
            *("ns-train", "degstalk", "--data", str(reference_dataset), "--vis", "tensorboard"),
            *("--experiment-name", "run", "--timestamp", "only", "--max-num-iterations", "40"),
            *("--steps-per-eval-batch", "15", "--steps-per-eval-image", "20"),
            *("talking-head", "--audio", "ds", "--downscale-factor", "2"),
        ],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    config = "outputs/run/degstalk/only/config.yml"
    done = commands.run(["ns-eval", "--load-config", config, "--output-path", "e.json"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "e.json").read_text())["results"]
    assert "lips_l1_silent" not in results and "silence is not measured" in done.stdout
    done = commands.run(["ns-render", "dataset", "--load-config", config, "--output-path", "renders"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("rgb", "gt-rgb"):
        first = cv2.imread(str(sorted((tmp_path / "renders/test" / name).iterdir())[0]))
        assert first.shape == (32, 32, 3)


def test_missing_dataset_is_one_line(commands: Commands, tmp_path: Path) -> None:
    video = tmp_path / "talk.mp4"
    video.write_bytes(b"some")
    for data, words in (
        (tmp_path / "nowhere", "no such dataset folder"),
        (video, "`degstalk process VIDEO data/me`"),
    ):
        done = commands.run(_arguments(data), tmp_path)
        assert done.returncode == 1
        assert words in done.stderr and "Traceback" not in done.stderr
    done = commands.run(["ns-train", "degstalk-fast", "--vis", "tensorboard"], tmp_path)
    assert done.returncode == 1 and "no dataset given" in done.stderr and "--data FOLDER" in done.stderr
    assert list(tmp_path.iterdir()) == [video]


def test_a_refused_training_leaves_no_run(commands: Commands, dataset_copy: Path, tmp_path: Path) -> None:
    (dataset_copy / "transforms_train.json").write_text("[]")
    work = tmp_path / "work"
    work.mkdir()
    done = commands.run(_arguments(dataset_copy), work)
    assert done.returncode == 1 and "transforms_train.json" in done.stderr and "Traceback" not in done.stderr
    assert [path for path in work.rglob("*") if path.is_file()] == []
    assert not (work / FOLDER).exists()


def test_non_finite_loss_stops_with_step_and_term(commands: Commands, dataset_copy: Path, tmp_path: Path) -> None:
    done = commands.run(_arguments(dataset_copy, "--pipeline.model.losses.lambda-dssim", "nan"), tmp_path)
    assert done.returncode == 1
    assert "loss term face_dssim is not finite at step 0" in done.stderr and "Traceback" not in done.stderr


NERFSTUDIOS_OWN = re.compile(r"\.scheduler$")
"""A null entry of nerfstudio's `optimizers` dictionary, which has no place for a description."""


def test_every_option_of_ours_is_described_in_the_help(commands: Commands, tmp_path: Path) -> None:
    done = commands.run(["ns-train", "degstalk", "--help"], tmp_path, COLUMNS="79", NO_COLOR="1")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.strip("│╭╮╰╯─ ") for line in done.stdout.splitlines()]
    options = {
        line.split()[0].removeprefix("--"): following
        for line, following in itertools.pairwise(lines)
        if line.startswith(("--pipeline.", "--optimizers."))
    }
    assert len(options) > 150
    bare = [
        name for name, text in options.items() if not re.match(r"[A-Z0-9]", text) and not NERFSTUDIOS_OWN.search(name)
    ]
    assert bare == []
    assert "pipeline.model.eval-num-rays-per-chunk" not in options
