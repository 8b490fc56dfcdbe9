"""Experiments: what is trained, what is trained again and what is not, and what the tables tell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from degstalk_ns.configs import variants
from degstalk_ns.configs.methods import degstalk_fast
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.experiment import adapters, plan
from degstalk_ns.experiment.figure import SIDE, chosen_rows, figure, picture_path, shown_frames
from degstalk_ns.experiment.plan import Subject, Trial, TrialState, steps_within, subjects_of, trials_of
from degstalk_ns.experiment.published import TABLE_1, TABLE_2
from degstalk_ns.experiment.tables import as_json, comparable, markdown, summary
from degstalk_ns.scripts import cli
from degstalk_ns.scripts.commands import experiment

METHOD = "degstalk-fast"
PROBED = adapters.probed


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_a_table_stands_before_further_seeds_are_trained(tmp_path: Path) -> None:
    subjects = [Subject("a", tmp_path), Subject("b", tmp_path)]
    trials = trials_of(("x", "y"), subjects, 2)
    assert [(trial.seed, trial.subject, trial.method) for trial in trials] == [
        (seed, subject, method) for seed in (0, 1) for subject in "ab" for method in "xy"
    ]
    assert len({trial.folder(tmp_path) for trial in trials}) == len(trials)


def test_subjects_must_be_there_and_be_told_apart(tmp_path: Path) -> None:
    for name in ("one/me", "two/me", "two/you"):
        (tmp_path / name).mkdir(parents=True)
    assert [subject.name for subject in subjects_of([tmp_path / "one/me", tmp_path / "two/you"])] == ["me", "you"]
    with pytest.raises(UserError, match="are both called me"):
        subjects_of([tmp_path / "one/me", tmp_path / "two/me"])
    with pytest.raises(UserError, match="no such dataset folder"):
        subjects_of([tmp_path / "three"])
    with pytest.raises(UserError, match="no dataset given"):
        subjects_of([])


def test_a_budget_becomes_steps_or_is_refused() -> None:
    assert steps_within(8, 0.096, METHOD) == 5000
    with pytest.raises(UserError, match=r"enough for 120 steps of degstalk-fast at 500 ms; give at least 2\.5 minutes"):
        steps_within(1, 0.5, METHOD)
    for minutes in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="expected minutes"):
            steps_within(minutes, 0.1, METHOD)
    with pytest.raises(UserError, match="--seeds"):
        trials_of(("x",), [Subject("a", Path())], 0)


def test_what_is_known_of_a_trial_is_known_only_of_that_one(tmp_path: Path) -> None:
    state = TrialState("mark", 500).after(3.0, trained=False).after(4.0, trained=True)
    state.save(tmp_path)
    assert TrialState.read(tmp_path, "mark") == state == TrialState("mark", 500, 7.0, True)
    assert TrialState.read(tmp_path, "other") is None and TrialState.read(tmp_path / "x", "mark") is None
    (tmp_path / "trial.json").write_text("{")
    assert TrialState.read(tmp_path, "mark") is None


def test_a_fingerprint_changes_with_all_that_a_trial_depends_on(
    dataset_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject("me", dataset_copy)
    config = degstalk_fast.config
    monkeypatch.setattr(adapters, "prepare_lpips", lambda: None)
    first = adapters.fingerprint(config, subject, 8, 0)
    assert adapters.fingerprint(deepcopy(config), subject, 8, 0) == first
    other = deepcopy(config)
    other.pipeline.model.losses.lips_l1 = 1.0
    marks = [
        adapters.fingerprint(other, subject, 8, 0),
        adapters.fingerprint(config, subject, 9, 0),
        adapters.fingerprint(config, subject, 8, 1),
        adapters.fingerprint(config, subject, 8),
    ]
    (dataset_copy / "au.csv").write_text((dataset_copy / "au.csv").read_text() + "\n")
    marks.append(adapters.fingerprint(config, subject, 8, 0))
    parsing = next((dataset_copy / "parsing").iterdir())
    os.utime(parsing, (2e9, 2e9))
    marks.append(adapters.fingerprint(config, subject, 8, 0))
    monkeypatch.setattr(adapters, "prepare_lpips", lambda: "no weights")
    marks.append(adapters.fingerprint(config, subject, 8, 0))
    assert len({first, *marks}) == 8


# --- tables -----------------------------------------------------------------------------------------------------------


def _states(psnr: dict[tuple[str, int], float]) -> dict[Trial, TrialState]:
    return {
        Trial("m", subject, seed): TrialState("", 500, 60.0, True, {"psnr": value}, {"face": 10, "mouth": 5})
        for (subject, seed), value in psnr.items()
    }


def test_means_are_over_subjects_and_the_spread_over_seeds() -> None:
    found = summary(_states({("a", 0): 30.0, ("b", 0): 34.0, ("a", 1): 31.0, ("b", 1): 37.0}), "psnr")
    assert found == (pytest.approx(33.0), pytest.approx(np.std([32.0, 34.0], ddof=1)))
    assert summary(_states({("a", 0): 30.0}), "psnr") == (30.0, None)
    assert summary(_states({("a", 0): 30.0}), "ssim") is None


def test_means_stand_beside_each_other_only_over_the_same_trials() -> None:
    subjects = [Subject("a", Path()), Subject("b", Path())]

    def state(value: float) -> TrialState:
        return TrialState("", 500, 60.0, True, {"psnr": value})

    states = {Trial(method, subject, 0): state(30.0) for method in "mn" for subject in "ab"}
    states |= {Trial("m", subject, 1): state(40.0) for subject in "ab"}
    states[Trial("n", "a", 1)] = state(50.0)
    states[Trial("n", "b", 1)] = TrialState("", 500, failed="the loss is not finite")
    assert {trial.seed for trial in comparable("mn", subjects, states)} == {0}
    page = markdown("table2", ["m", "n"], subjects, states, [])
    assert "| m | 30.00 |" in page and "±" not in page
    assert "left out: n on b, seed 1 (failed: the loss is not finite)" in page
    assert "left out: m on a, seed 1 (done, but not by all methods)" in page
    early = {trial: one for trial, one in states.items() if trial.seed == 0 and trial != Trial("n", "b", 0)}
    assert set(comparable("mn", subjects, early)) == {Trial("m", "a", 0), Trial("n", "a", 0)}
    assert comparable("mn", subjects, {Trial("m", "a", 0): state(1.0)}) == {Trial("m", "a", 0): state(1.0)}


def test_the_page_names_its_protocols_and_keeps_what_is_published_apart() -> None:
    states = _states({("a", 0): 30.0, ("b", 0): 34.0})
    subjects = [Subject("a", Path()), Subject("b", Path())]
    page = markdown("table2", ["m", "n"], subjects, states, ["about"])
    ours, published = page.split("## As published")
    for protocol in ("## Reconstruction", "## Audio-driven", "## Plate withheld"):
        assert f"\n{protocol}\n" in ours
    rows = [line for line in ours.splitlines() if line.startswith("| m |")]
    assert rows[0].startswith("| m | 32.00 |") and "| 1.0 min | 500 | 15 |" in rows[0]
    assert [row.split("|")[2].strip() for row in rows[1:3]] == ["30.00", "34.00"]
    assert next(line for line in ours.splitlines() if line.startswith("| n |")).replace("|", "").split() == ["n"]
    assert "left out" not in ours
    assert "36.79 | 0.1500 | 2.630 | 0.9692" in published and "MediaPipe" in published and "36.79" not in ours
    assert len({row.name for row in TABLE_1}) == 5 and len({row.method for row in TABLE_2}) == 5
    content = json.loads(json.dumps(as_json("table1", states, 8)))
    assert content["trials"][0]["metrics"] == {"psnr": 30.0} and len(content["published"]) == 5


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_the_frames_are_chosen_by_the_recording_and_shown_side_by_side(dataset: Path, tmp_path: Path) -> None:
    recording = read_recording(dataset)
    rows = chosen_rows(recording)
    opening = recording.mouth_opening[recording.val.aud_ids]
    assert rows[0] == recording.val.aud_ids[np.argmax(opening)] and len(set(rows)) == len(rows) == 2
    shown = shown_frames(recording)
    lips = recording.lips_rect[rows[0]]
    top, bottom, left, right = shown[0].mouth
    assert top <= (lips[0] + lips[1]) // 2 < bottom and left <= (lips[2] + lips[3]) // 2 < right
    for kind, level in (("own", 10), ("other", 20)):
        path = picture_path(tmp_path, rows[0], kind)
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full_like(shown[0].truth, level))
    drawn = figure(shown, {"one": tmp_path, "two": tmp_path / "nothing"})
    tiles = drawn[-8 * SIDE :].reshape(8, SIDE, 3, SIDE, 3)[:, SIDE // 2, :, SIDE // 2]
    assert (tiles[:3, 1] == 10).all() and (tiles[3, 1] == 20).all() and (tiles[:, 2] == 128).all()


# --- the whole command ------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Two methods whose trainings take seconds; gives the methods of every training that is started."""
    started: list[str] = []
    popen = subprocess.Popen

    def noted(command: list[str], **options):  # type: ignore[no-untyped-def]
        if any("nerfstudio.scripts.train" in word for word in command):
            started.append(command[3])
            command = [*command, "--machine.device-type=cpu"]
            command += [f"--pipeline.model.avatar.{region}.num-points=300" for region in ("face", "mouth")]
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", noted)
    monkeypatch.setattr(plan, "LEAST_STEPS", 10)
    monkeypatch.setattr(adapters, "probed", lambda *_: 1.0)
    monkeypatch.setitem(plan.METHODS, "table1", ("talking-gaussian", "degstalk"))
    yield started


def _run(data: Path, output: Path, *more: str, table: str = "table1") -> None:
    cli.main(["experiment", table, "--data", str(data), "--budget", "0.5", "--output", str(output), *more])


def test_a_table_is_made_once_and_again_only_where_something_changed(
    small: list[str], dataset_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "experiments"
    _run(dataset_copy, output)
    assert small == ["talking-gaussian-fast", "degstalk-fast"]
    page, content = (output / "table1/table.md").read_text(), json.loads((output / "table1/table.json").read_text())
    assert "| talking-gaussian-fast |" in page and f"![{dataset_copy.name}]" in page
    for trial in content["trials"]:
        assert trial["metrics"]["psnr"] > 5 and trial["steps"] == 30 and trial["training_seconds"] > 0
        assert "other_plate_psnr" in trial["metrics"]
    assert cv2.imread(str(output / f"table1/{dataset_copy.name}.png")).shape[1] == 3 * SIDE
    _run(dataset_copy, output)
    assert len(small) == 2  # nothing to do
    model = variants.talking_gaussian_fast.config.pipeline.model
    monkeypatch.setattr(model.losses, "lips_l1", 1.5)
    _run(dataset_copy, output)
    assert small[2:] == ["talking-gaussian-fast"]
    # Trained to the end, but the call ended before that was written down; and what can be measured has changed.
    trial = Trial("degstalk-fast", dataset_copy.name, 0)
    folder = trial.folder(plan.trials_folder(output, 0.5))
    saved = json.loads((folder / "trial.json").read_text())
    (folder / "trial.json").write_text(json.dumps(saved | {"trained": False, "measured_with": "less"}))
    _run(dataset_copy, output)
    again = json.loads((folder / "trial.json").read_text())
    assert len(small) == 3 and again["trained"] and again["measured_with"] == saved["measured_with"]
    # The other table shows the same trials where it names the same methods.
    monkeypatch.setitem(plan.METHODS, "table2", ("degstalk",))
    _run(dataset_copy, output, table="table2")
    assert len(small) == 3 and "| degstalk-fast |" in (output / "table2/table.md").read_text()
    capsys.readouterr()


def test_one_that_fails_does_not_stop_the_others(
    small: list[str], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def trained(trial: Trial, subject: Subject, state: TrialState, folder: Path, _: object) -> TrialState:
        if trial.method.startswith("talking"):
            raise UserError("the loss is\nnot finite")
        return state.after(1.0, trained=True)

    def measured(trial: Trial, subject: Subject, state: TrialState, folder: Path, _: object) -> TrialState:
        done = replace(state, metrics={"psnr": 30.0}, measured_with=adapters.measured_with())
        done.save(folder)
        return done

    monkeypatch.setattr(adapters, "trained", trained)
    monkeypatch.setattr(adapters, "measured", measured)
    with pytest.raises(SystemExit):
        _run(dataset, tmp_path)
    said = capsys.readouterr()
    assert "1 of 2 trials failed" in said.err and "the loss is not finite" in said.out
    page = (tmp_path / "table1/table.md").read_text()
    assert "talking-gaussian-fast on " in page and "failed: the loss is not finite" in page and "30.00" in page


def test_a_trial_is_not_trained_twice_at_once(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "_TRAIN", "")  # part of every command line, this process' too
    (tmp_path / "training.pid").write_text(str(os.getpid()))
    with pytest.raises(UserError, match=f"is being trained by process {os.getpid()}"):
        adapters.trained(
            Trial(METHOD, "me", 0), Subject("me", dataset), TrialState("mark", 30), tmp_path, lambda _: None
        )


def test_how_long_a_step_takes_is_told_by_a_short_training_that_leaves_nothing(
    small: list[str], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "PROBED_STEPS", 40)
    said: list[str] = []
    seconds = PROBED(degstalk_fast.config, Subject(dataset.name, dataset), tmp_path, said.append)
    assert 1e-3 < seconds < 5 and small == [METHOD] and "how long a step takes" in said[0]
    assert not list(tmp_path.iterdir())


def test_an_interrupted_training_goes_on_where_it_was(
    small: list[str], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, subject = Trial(METHOD, dataset.name, 0), Subject(dataset.name, dataset)
    folder = trial.folder(tmp_path)

    def interrupting(text: str) -> None:
        if any(adapters.checkpoint_folder(METHOD, folder).glob("*.ckpt")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        # so long that it is still at it when the first checkpoint is there
        adapters.trained(trial, subject, TrialState("mark", 2_000), folder, interrupting)
    kept = TrialState.read(folder, "mark")
    assert kept is not None and kept.seconds > 0 and not kept.trained
    done = int(next(adapters.checkpoint_folder(METHOD, folder).glob("*.ckpt")).stem[5:])
    steps: list[int] = []

    def watching(text: str) -> None:
        steps.append(int(re.findall(r"step (\d+) of", text)[0]))
        if max(steps) > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapters.trained(trial, subject, kept, folder, watching)
    assert 0 < done < max(steps)  # and not from the first step on
    again = TrialState.read(folder, "mark")
    assert again is not None and again.seconds > kept.seconds


def test_a_training_that_fails_is_one_line_with_its_log(small: list[str], dataset_copy: Path, tmp_path: Path) -> None:
    trial, subject = Trial(METHOD, "me", 0), Subject("me", dataset_copy)
    (dataset_copy / "au.csv").write_text("AU25_r\nx\n")
    with pytest.raises(UserError, match=r"training\.log: the training of degstalk-fast on me ended with: .*AU25_r"):
        adapters.trained(trial, subject, TrialState("mark", 30), tmp_path, lambda _: None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "0"], "expected minutes of training"),
        (["--budget", "8", "--seeds", "0"], "--seeds"),
        (["--budget", "8", "--schedule", "long"], "fast or paper"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    small: list[str],
    dataset: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["experiment", "table2", "--data", str(dataset), "--output", str(tmp_path / "out"), *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == cli.FAILED and message in error and error.count("\n") == 1
    assert not small and not (tmp_path / "out").exists()


def test_a_dataset_without_action_units_is_refused_by_the_table_that_needs_them(
    small: list[str], dataset_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset_copy / "au.csv").unlink()
    with pytest.raises(SystemExit):
        _run(dataset_copy, tmp_path / "out")
    assert "au.csv: missing, and its action units are to drive the face" in capsys.readouterr().err and not small


def test_a_dataset_without_torsos_is_refused_by_the_table_that_needs_them(
    small: list[str], dataset_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.rmtree(dataset_copy / "torso_imgs")  # its finished plates are enough for other methods
    read_recording(dataset_copy)
    with pytest.raises(SystemExit):
        _run(dataset_copy, tmp_path / "out")
    assert "torso_imgs" in capsys.readouterr().err and not small


def test_the_methods_of_both_tables_exist_with_both_schedules() -> None:
    for names in plan.METHODS.values():
        for name in names:
            for ending in ("", "-fast"):
                assert experiment._config(name + ending).method_name == name + ending
