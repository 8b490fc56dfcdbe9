"""The sample's dataset on disk, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from degstalk_ns.audio.sound import UNLIMITED, load_sound
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.landmarks.blendshapes import EXPRESSION_NAMES
from degstalk_ns.landmarks.ibug68 import MOUTH_LANDMARKS
from degstalk_ns.sample import write
from degstalk_ns.sample.acting.performance import perform
from degstalk_ns.sample.acting.script import write_script
from degstalk_ns.sample.drawing.scene import SampleScene
from degstalk_ns.sample.write import SampleConfig, make
from degstalk_ns.scripts import cli

TINY = SampleConfig(seconds=2.0, size=64, seed=5)


@pytest.fixture(scope="module")
def scene() -> SampleScene:
    """The scene of :data:`TINY`, which takes seconds to build."""
    script = write_script(TINY.seconds, TINY.seed)
    return SampleScene(perform(script, TINY.frames, TINY.seed), TINY.seed, TINY.size)


@pytest.fixture
def built(scene: SampleScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the test building it again."""
    monkeypatch.setattr(write, "SampleScene", lambda performance, seed, size: scene)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("sample") / "data" / "sample"
    summary = make(output, TINY)
    assert (summary.frames, summary.train, summary.val, summary.size) == (50, 45, 5, 64)
    return output


def _digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_dataset_reads_completely(made: Path) -> None:
    recording = read_recording(made)
    assert not recording.notes and recording.audio_name == "mel"
    assert (recording.num_frames, len(recording.train), len(recording.val)) == (50, 45, 5)
    assert recording.audio.shape == (50, 16, 64) and recording.expression.shape == (50, len(EXPRESSION_NAMES))
    assert recording.focal == 3 * 64 and recording.cx == recording.cy == 32
    for i in range(50):
        frame = read_frame(recording, i, ("image", "masks", "teeth", "plate", "torso_image"))
        assert (np.sum(list(frame.masks.values()), 0) == 1).all()
        assert frame.head.any() and frame.hair.any()
        assert not (frame.teeth & ~frame.mouth).any()


def test_nothing_is_left_beside_it(made: Path) -> None:
    assert [path.name for path in made.parent.iterdir()] == ["sample"]
    assert {path.name for path in made.iterdir()} <= write._dataset_names(made)


def test_sound_and_signals_belong_to_the_frames(made: Path) -> None:
    layout = Layout(made)
    sound = load_sound(layout.audio, UNLIMITED).samples
    assert len(sound) == 2 * SAMPLE_RATE
    recording = read_recording(made)
    loudness = np.sqrt(np.mean(sound.reshape(50, -1).astype(float) ** 2, 1)) ** 0.5
    assert np.corrcoef(loudness, recording.jaw[:, 0])[0, 1] > 0.6
    opening = recording.expression[:, EXPRESSION_NAMES.index("innerLipOpening")]
    assert np.corrcoef(opening, recording.mouth_opening)[0, 1] > 0.99
    lips = np.stack([np.loadtxt(layout.landmarks(i)) for i in range(50)])[:, MOUTH_LANDMARKS]
    gap = lips[:, 18, 1] - lips[:, 14, 1]
    assert np.corrcoef(gap, recording.jaw[:, 0])[0, 1] > 0.7
    quiet = loudness < 1e-3
    assert quiet[:3].all() and recording.jaw[:4, 0].max() < 0.05


def test_the_plate_is_the_frame_outside_the_face(made: Path) -> None:
    recording = read_recording(made)
    for i in (0, 30):
        frame = read_frame(recording, i)
        outside = ~(frame.head | frame.mouth)
        np.testing.assert_array_equal(frame.plate[outside, :3], frame.image[outside])


def test_the_same_seed_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    make(tmp_path / "again", TINY)
    assert _digest(tmp_path / "again") == _digest(made)


@pytest.mark.usefixtures("built")
def test_another_seed_says_and_does_something_else(made: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", SampleConfig(seconds=2.0, size=64, seed=6))
    mine, other = _digest(made), _digest(tmp_path / "other")
    assert mine.keys() == other.keys()
    assert all(
        mine[name] != other[name] for name in ("aud.wav", "ori_imgs/10.jpg", "3dmm.npz", "transforms_train.json")
    )


def test_a_folder_that_exists_is_refused(made: Path, tmp_path: Path) -> None:
    before = _digest(made)
    with pytest.raises(UserError, match="--overwrite"):
        make(made, TINY)
    assert _digest(made) == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="exists already"):
        make(tmp_path / "empty", TINY)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    for overwrite in (False, True):  # it is not said to be replaced by an option that would not
        with pytest.raises(UserError, match="is no dataset, which --overwrite would replace"):
            make(tmp_path / "mine", SampleConfig(seconds=2.0, size=64, overwrite=overwrite))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        make(tmp_path / "file", SampleConfig(seconds=2.0, size=64, overwrite=True))
    with pytest.raises(UserError, match="cannot be written"):
        make(tmp_path / "file" / "sample", TINY)


@pytest.mark.usefixtures("built")
def test_overwrite_replaces_a_dataset_and_nothing_else(made: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(made, tmp_path / "old"))
    Layout(old).frame(4711).write_bytes(b"left over")
    again = SampleConfig(seconds=2.0, size=64, seed=5, overwrite=True)
    make(old, again)
    assert _digest(old) == _digest(made)
    (old / "notes.txt").write_text("mine")
    before = _digest(old)
    with pytest.raises(UserError, match=r"notes\.txt"):
        make(old, again)
    assert _digest(old) == before


def _after(calls: int, error: BaseException) -> Callable[..., None]:
    """A writer that works for some calls and then fails."""
    real, left = write.writing.write_teeth, [calls]

    def failing(*arguments: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error
        real(*arguments)  # type: ignore[arg-type]

    return failing


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("there", [False, True])
def test_a_disk_that_fills_up_leaves_nothing(
    there: bool, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a" / "b" / "sample"
    if there:
        shutil.copytree(made, output)
    before = _digest(tmp_path)
    monkeypatch.setattr(write.writing, "write_teeth", _after(8, OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(UserError, match="disk is full"):
        make(output, SampleConfig(seconds=2.0, size=64, overwrite=there))
    assert _digest(tmp_path) == before
    assert there or not list(tmp_path.iterdir())


@pytest.mark.usefixtures("built")
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(write.writing, "write_teeth", _after(8, KeyboardInterrupt()))
    with pytest.raises(SystemExit) as stop:
        cli.main(["sample", str(tmp_path / "sample"), "--seconds", "2", "--size", "64", "--seed", "5"])
    assert stop.value.code == 130 and "nothing was kept" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_too_little_room_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write.shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    with pytest.raises(UserError, match="free some space"):
        make(tmp_path / "sample", SampleConfig(seconds=10.0, size=512))
    assert not list(tmp_path.iterdir())


def test_the_estimate_of_the_disk_is_an_upper_bound(made: Path) -> None:
    used = sum(path.stat().st_size for path in made.rglob("*") if path.is_file())
    assert used < 50 * (write.BYTES_PER_PIXEL * 64**2 + write.BYTES_PER_FRAME)


NOBODY = 2**22 + 1
"""No process has this number: Linux gives none above 2 ** 22."""


@pytest.mark.usefixtures("built")
def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    start = f".sample.part-{platform.node()}-"
    for name in (start + str(NOBODY), start + str(os.getppid()), start + "mine", ".sample.part-elsewhere-7"):
        (tmp_path / name / "bg").mkdir(parents=True)
    make(tmp_path / "sample", TINY)
    # Another machine's, a running process' and what has another form of name stay.
    left = {path.name for path in tmp_path.iterdir()} - {"sample"}
    assert left == {start + str(os.getppid()), start + "mine", ".sample.part-elsewhere-7"}


def test_a_dataset_that_a_killed_run_had_put_aside_comes_back(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / f".sample.old-{platform.node()}-{NOBODY}")
    with pytest.raises(UserError, match="exists already"):
        make(tmp_path / "sample", TINY)
    assert _digest(tmp_path / "sample") == _digest(made) and len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("built")
def test_an_interruption_after_the_new_dataset_is_in_place_says_so(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Path(shutil.copytree(made, tmp_path / "sample"))
    Layout(target).frame(4711).write_bytes(b"left over")

    def interrupted(folder: Path, ignore_errors: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write.shutil, "rmtree", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main(["sample", str(target), "--seconds", "2", "--size", "64", "--seed", "5", "--overwrite"])
    said = capsys.readouterr().err
    assert stop.value.code == 130 and "the new dataset is whole" in said and "nothing was kept" not in said
    assert _digest(target) == _digest(made)
