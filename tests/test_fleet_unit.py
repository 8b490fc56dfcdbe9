"""One step of a fleet, with small programs in place of the commands: what is kept, refused, tried again, and told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from degstalk_ns.errors import UserError
from degstalk_ns.fleet import unit
from degstalk_ns.fleet.manifest import Manifest, manifest_of
from degstalk_ns.fleet.steps import FleetStep, step_command, steps_of
from degstalk_ns.fleet.store import StepMark, Store
from degstalk_ns.fleet.unit import LOG, find_step, granted, run_step, run_subject


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    (tmp_path / "hello.wav").write_bytes(b"sound")
    content = {
        "output": str(tmp_path / "out"),
        "subjects": [{"name": "a", "drawn": {"size": 64}}, {"name": "b", "dataset": str(tmp_path)}],
        "training": {"seeds": [5], "options": ["--x", "1"]},
        "sounds": [{"name": "hello", "path": str(tmp_path / "hello.wav")}],
        "needs": {"train": {"cpus": 3}},
    }
    return manifest_of(content, "m")


def _do(monkeypatch: pytest.MonkeyPatch, manifest: Manifest, program: str, name: str = "process") -> StepMark:
    store = Store(manifest.output)
    monkeypatch.setattr(unit, "step_command", lambda *_: ["python", "-c", program])
    monkeypatch.setattr(unit, "TOLD_EVERY", 0.1)
    return run_step(manifest, find_step(manifest, "a", name, store), store)


def test_what_is_done_is_not_done_again(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = _do(monkeypatch, manifest, "print('made')")
    assert mark.done and mark.size > 0 and mark.reason == ""
    assert _do(monkeypatch, manifest, "raise SystemExit(1)") == mark
    assert (Store(manifest.output).folder("a", "process") / LOG).read_text() == "made\n"


@pytest.mark.parametrize(
    ("program", "reason", "refused"),
    [
        (
            "import sys; sys.exit('degstalk: a.mp4: cannot be read as a video')",
            "a.mp4: cannot be read as a video",
            True,
        ),
        ("import sys; print('[degstalk] error: no'); sys.exit(1)", "no", True),
        ("raise ValueError('deep inside')", "Traceback: ValueError: deep inside", False),
        ("import os; os.kill(os.getpid(), 9)", "nothing was said", False),
    ],
)
def test_a_failure_is_told_in_one_line(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, program: str, reason: str, refused: bool
) -> None:
    mark = _do(monkeypatch, manifest, program)
    assert (mark.done, mark.reason, mark.refused) == (False, reason, refused)
    assert _do(monkeypatch, manifest, "print(1)").done  # and does not stand in the way


def test_what_it_waits_for_must_be_done(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"train\.degstalk-fast\.seed5 comes after process, which is not done"):
        _do(monkeypatch, manifest, "print(1)", "train.degstalk-fast.seed5")
    with pytest.raises(UserError, match="its steps are: process, train"):
        _do(monkeypatch, manifest, "print(1)", "trian")


def test_how_far_it_is_can_be_seen_from_elsewhere(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(Store, "set_progress", lambda self, *given: told.append(given[-1].fraction))
    _do(monkeypatch, manifest, "import time\nfor i in range(5): print(f'{i}0 ({i}0.50%)', flush=True); time.sleep(.2)")
    seen = [fraction for fraction in told if fraction is not None]
    assert seen == sorted(seen) and 0.4 <= seen[-1] <= 0.41 and len(set(seen)) > 2


def test_threads_follow_what_is_granted(manifest: Manifest) -> None:
    train = next(step for step in steps_of(manifest) if step.kind == "train")
    given = granted(train)
    assert {given[name] for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")} == {"3"}
    assert given["CUDA_VISIBLE_DEVICES"] == ""
    with_gpu = FleetStep("a", "train", "t", train.need.model_copy(update={"gpus": 0.5}), "x")
    assert "CUDA_VISIBLE_DEVICES" not in granted(with_gpu)


def test_the_commands_are_those_of_a_person(manifest: Manifest, tmp_path: Path) -> None:
    def command(step: FleetStep) -> str:
        return " ".join(step_command(step, manifest, lambda name: Path("out") / step.subject / name, Path))

    steps = {step.name: step for step in steps_of(manifest) if step.subject == "a"}
    assert (
        command(steps["process"]) == "degstalk sample out/a/process/dataset --seed 0 --size 64 --seconds 10 --overwrite"
    )
    assert command(steps["train.degstalk-fast.seed5"]) == (
        "ns-train degstalk-fast --data out/a/process/dataset --output-dir out/a/train.degstalk-fast.seed5 "
        "--experiment-name run --timestamp run --vis tensorboard --machine.seed 5 --pipeline.model.seed 5 --x 1"
    )
    config = "--load-config out/a/train.degstalk-fast.seed5/run/degstalk-fast/run/config.yml"
    assert command(steps["evaluate.degstalk-fast.seed5"]).startswith(f"ns-eval {config} --output-path out/a/evaluate.")
    spoken = command(steps["render.degstalk-fast.seed5.hello"])
    assert spoken.startswith(f"degstalk render {config} --data out/a/process/dataset --audio {tmp_path}/hello.wav")
    other = [step for step in steps_of(manifest) if step.subject == "b"]
    assert [step.kind for step in other] == ["train", "evaluate", "render"]
    assert f"--data {tmp_path}" in command(other[0])


def test_what_changes_an_input_changes_what_depends_on_it(manifest: Manifest, tmp_path: Path) -> None:
    before = {step.key: step.content for step in steps_of(manifest)}
    (tmp_path / "hello.wav").write_bytes(b"other sound")
    changed = {key[1] for key, content in before.items() if key[0] == "a"} - {
        step.name for step in steps_of(manifest) if step.subject == "a" and before[step.key] == step.content
    }
    assert changed == {"render.degstalk-fast.seed5.hello"}


def test_a_subject_stops_where_it_is_refused(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {"process": "print(1)", "train": "import sys; sys.exit('degstalk: no')"}
    monkeypatch.setattr(unit, "step_command", lambda step, *_: ["python", "-c", programs[step.kind]])
    ended = run_subject(manifest, "a", Store(manifest.output))
    assert [(step.kind, mark.done) for step, mark in ended] == [("process", True), ("train", False)]


@pytest.mark.skipif(sys.platform != "linux", reason="asked of the system on Linux only")
def test_the_command_dies_with_the_step(manifest: Manifest, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from degstalk_ns.fleet import unit; from degstalk_ns.fleet.manifest import Manifest\n"
        "from degstalk_ns.fleet.store import Store\n"
        "unit.step_command = lambda *_: ['python', '-c', 'import time; time.sleep(120)']\n"
        "m = Manifest.model_validate_json(sys.argv[2]); s = Store(m.output)\n"
        "unit.run_step(m, unit.find_step(m, 'a', 'process', s), s)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), manifest.model_dump_json()])
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while not children and time.monotonic() < deadline:
        children = psutil.Process(process.pid).children()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert children and not alive
