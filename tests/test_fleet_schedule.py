"""Steps on an engine that is only played: what waits for what, what is tried again, and what is not."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from degstalk_ns.errors import UserError
from degstalk_ns.fleet.engines.engine import StepEnd
from degstalk_ns.fleet.live import live_table, watch
from degstalk_ns.fleet.manifest import Manifest, Need, manifest_of
from degstalk_ns.fleet.report import report_markdown, write_report
from degstalk_ns.fleet.schedule import FleetSchedule
from degstalk_ns.fleet.steps import FleetStep, steps_of
from degstalk_ns.fleet.store import StepMark, StepProgress, Store

Outcome = Callable[[FleetStep, int], StepMark | str]
"""How the n-th try of a step ends: with a mark, or lost with a reason."""


class Played:
    """An engine that does what it is told; ``room`` steps at once."""

    name, told, node, patience = "played", "look there", "n1", 0

    def __init__(self, store: Store, outcome: Outcome, room: int = 2) -> None:
        self.store, self.outcome, self.room = store, outcome, room
        self.started: list[tuple[str, str]] = []
        self.running: list[FleetStep] = []
        self.most = 0

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None: ...

    def check(self, manifest: Manifest, needs: dict[str, Need]) -> list[str]:
        return []

    def has_room(self, step: FleetStep) -> bool:
        return len(self.running) < self.room

    def start(self, step: FleetStep) -> None:
        self.started.append(step.key)
        self.running.append(step)
        self.most = max(self.most, len(self.running))

    def ended(self, patience: float) -> list[StepEnd]:
        if self.patience:
            self.patience -= 1
            return []
        if not self.running:
            return []
        step = self.running.pop(0)
        found = self.outcome(step, self.started.count(step.key))
        if isinstance(found, str):
            return [StepEnd(step.key, found, self.node)]
        self.store.set_mark(*step.key, found)
        return [StepEnd(step.key, node="n1")]


def done(step: FleetStep, number: int) -> StepMark:
    return StepMark(step.content, True, seconds=1.0, node="n1")


def manifest(folder: Path, **more: object) -> Manifest:
    subjects = [{"name": name, "drawn": {"seed": i}} for i, name in enumerate(("a", "b", "c"))]
    return manifest_of({"output": str(folder / "out"), "subjects": subjects, **more}, "m")


def played(folder: Path, outcome: Outcome, **more: object) -> tuple[FleetSchedule, Played]:
    asked = manifest(folder, **more)
    store = Store(asked.output)
    schedule = FleetSchedule(steps_of(asked), store, asked.retries)
    engine = Played(store, outcome)
    schedule.run(engine)
    return schedule, engine


def test_steps_begin_when_those_before_are_done(tmp_path: Path) -> None:
    schedule, engine = played(tmp_path, done)
    assert schedule.complete and engine.most == 2 and len(engine.started) == 9
    for subject in "abc":
        order = [step for name, step in engine.started if name == subject]
        assert order == ["process", "train.degstalk-fast.seed0", "evaluate.degstalk-fast.seed0"]


def test_the_same_again_does_nothing_and_a_change_only_what_it_concerns(tmp_path: Path) -> None:
    played(tmp_path, done)
    _, engine = played(tmp_path, done)
    assert engine.started == []
    schedule, engine = played(
        tmp_path, done, subjects=[{"name": n, "drawn": {"seed": s}} for n, s in (("a", 0), ("b", 9), ("c", 2))]
    )
    assert {name for name, _ in engine.started} == {"b"} and len(engine.started) == 3
    assert [record.state for record in schedule.records.values()].count("kept") == 6
    _, engine = played(tmp_path, done, training={"options": ["--max-num-iterations", "50"]})
    assert [name for name, step in engine.started if step == "process"] == ["b"] and len(
        engine.started
    ) == 7  # b is back


def test_a_lost_machine_is_retried_and_told(tmp_path: Path) -> None:
    def outcome(step: FleetStep, number: int) -> StepMark | str:
        return "the node died" if step.key == ("b", "train.degstalk-fast.seed0") and number < 3 else done(step, number)

    schedule, engine = played(tmp_path, outcome)
    assert schedule.complete and engine.started.count(("b", "train.degstalk-fast.seed0")) == 3
    text = report_markdown(schedule, Store(manifest(tmp_path).output), "played", 3.0)
    assert text.count("- b, train.degstalk-fast.seed0: n1: the node died") == 2 and "## Tried again" in text


@pytest.mark.parametrize(("seen", "words"), [("n7", "n7: the node died"), ("", "the node died")])
def test_a_lost_machine_is_named_by_what_it_said_last(tmp_path: Path, seen: str, words: str) -> None:
    def outcome(step: FleetStep, number: int) -> StepMark | str:
        if step.key != ("a", "process") or number > 1:
            return done(step, number)
        return "the node died"

    asked = manifest(tmp_path)
    store = Store(asked.output)
    schedule = FleetSchedule(steps_of(asked), store, asked.retries)
    engine = Played(store, outcome, room=1)
    engine.node = ""
    store.set_progress("a", "process", StepProgress("of an earlier try", 0.0, 0.5, ""))

    def show(schedule: FleetSchedule) -> None:
        if seen and schedule.records["a", "process"].tries == 1:
            store.set_progress("a", "process", StepProgress(seen, 1.0, 0.5, ""))

    engine.patience = 2  # rounds that it runs for
    schedule.run(engine, show)
    assert schedule.records["a", "process"].retried == [words]


def test_a_machine_that_is_always_lost_is_given_up(tmp_path: Path) -> None:
    schedule, engine = played(tmp_path, lambda step, number: "the worker died", retries=1)
    assert len(engine.started) == 6 and not schedule.complete
    assert [record.state for record in schedule.records.values()] == ["failed", "held up", "held up"] * 3


def test_bad_input_is_not_retried_and_holds_up_only_what_depends_on_it(tmp_path: Path) -> None:
    def outcome(step: FleetStep, number: int) -> StepMark:
        if step.key == ("a", "process"):
            return StepMark(step.content, False, "a.mp4: cannot be read as a video", refused=True)
        return done(step, number)

    schedule, engine = played(tmp_path, outcome)
    assert engine.started.count(("a", "process")) == 1
    states = {key: record.state for key, record in schedule.records.items()}
    assert [states["a", name] for name in ("process", "train.degstalk-fast.seed0")] == ["failed", "held up"]
    assert all(state == "done" for (name, _), state in states.items() if name != "a")
    store = Store(manifest(tmp_path).output)
    write_report(schedule, store, "played", 3.0)
    page = (tmp_path / "out/report.html").read_text()
    assert "<li>a, process: a.mp4: cannot be read as a video</li>" in page and "<h2>Held up by them</h2>" in page
    assert page.count("<tr>") == 2 + 12  # two heads, three evaluations, nine steps
    _, again = played(tmp_path, done)  # mended: the failed step is tried again by the next call
    assert len(again.started) == 3


def test_the_page_shows_the_worst_and_says_what_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degstalk_ns.fleet.report.PICTURED", 2)
    found = {"a": 30.0, "b": 10.0, "c": 20.0}
    store = Store(str(tmp_path / "out"))
    for subject, psnr in found.items():
        folder = store.folder(subject, "evaluate.degstalk-fast.seed0")
        (folder / "pictures").mkdir(parents=True)
        cv2.imwrite(str(folder / "pictures/0_composition.png"), np.zeros((8, 16, 3), np.uint8))
        (folder / "metrics.json").write_text(json.dumps({"results": {"psnr": psnr, "ssim": 0.5}}))
    schedule, _ = played(tmp_path, done)
    write_report(schedule, store, "played", 3.0)
    page = (tmp_path / "out/report.html").read_text()
    assert re.findall(r"<figcaption>(\w)", page) == ["b", "c"] and "the 2 of lowest PSNR first" in page
    assert "LPIPS and LMD: left out where empty" in page and "PSNR and" not in page


def test_the_live_table_has_what_runs_and_what_failed(tmp_path: Path) -> None:
    asked = manifest(tmp_path)
    store = Store(asked.output)
    schedule = FleetSchedule(steps_of(asked), store, 0)
    seen: list[int] = []
    schedule.run(Played(store, lambda step, number: "gone", room=1), lambda s: seen.append(live_table(s).row_count))
    assert max(seen) >= 3


def test_without_a_terminal_every_end_and_every_retry_is_a_line(tmp_path: Path) -> None:
    asked = manifest(tmp_path)
    store = Store(asked.output)

    def outcome(step: FleetStep, number: int) -> StepMark | str:
        return "the node died" if step.key == ("a", "process") and number < 3 else done(step, number)

    console = Console(file=io.StringIO(), width=200)
    watch(FleetSchedule(steps_of(asked), store, asked.retries), Played(store, outcome), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "look there" and len(lines) == 1 + 2 + 9
    for time in (1, 2):
        assert lines.count(f"a, process: tried again, time {time} (n1: the node died)") == 1


@pytest.mark.parametrize("address", ["memory://fleet/out", "local"])
def test_a_store_keeps_marks_and_what_was_begun(address: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out") if address == "local" else address)
    store.check_writable()
    assert store.mark("a", "train") is None
    store.begin("a", "train", "content 1")
    (store.folder("a", "train") / "deep").mkdir()
    (store.folder("a", "train") / "deep/half.ckpt").write_bytes(b"half")
    store.give("a", "train")
    store.set_mark("a", "train", StepMark("content 1", False, "lost"))
    assert store.mark("a", "train") == StepMark("content 1", False, "lost")
    store.begin("a", "train", "content 1")  # goes on
    assert store.mark("a", "train") is None and (store.folder("a", "train") / "deep/half.ckpt").read_bytes() == b"half"
    store.begin("a", "train", "content 2")  # anew
    assert not (store.folder("a", "train") / "deep").exists()
    store.give("a", "train")
    assert store.read("a", "train", "begun.json") == "content 2"


def test_a_store_that_is_not_a_folder_brings_the_work_to_another_machine(tmp_path: Path) -> None:
    first, second = (Store("memory://fleet/two") for _ in range(2))
    first._here, second._here = tmp_path / "one", tmp_path / "two"  # two machines
    first.begin("a", "train", "x")
    (first.folder("a", "train") / "step-1.ckpt").write_bytes(b"1")
    first.give("a", "train")
    second.begin("a", "train", "x")
    assert (second.folder("a", "train") / "step-1.ckpt").read_bytes() == b"1"
    (second.folder("a", "train") / "step-1.ckpt").rename(second.folder("a", "train") / "step-2.ckpt")
    second.give("a", "train")
    assert [path.rsplit("/", 1)[-1] for path in first._system.find(first._there("a", "train"))] == [
        "begun.json",
        "step-2.ckpt",
    ]


def test_files_of_others_are_not_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "out/a/train").mkdir(parents=True)
    (tmp_path / "out/a/train/diary.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files that are not of a fleet"):
        Store(str(tmp_path / "out")).begin("a", "train", "x")
    assert (tmp_path / "out/a/train/diary.txt").read_text() == "mine"


def test_an_unwritable_output_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        Store(str(tmp_path / "file/out")).check_writable()
    with pytest.raises(UserError, match="cannot be reached"):
        Store("nosuchprotocol://a/b")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_told_at_once(scheme: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from degstalk_ns.fleet.engines.on_ray import RayCluster

    with socket.socket() as held:  # bound, and not listening
        held.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{held.getsockname()[1]}"
        manifest = manifest_of({"output": str(tmp_path), "subjects": [{"name": "a", "drawn": {}}]}, "a")
        with pytest.raises(UserError, match=f"--address {address}: no Ray cluster answers there"):
            RayCluster(manifest, address).__enter__()


@pytest.mark.parametrize("mode", [None, "token"])
def test_a_cluster_that_refuses_is_told_with_how_to_give_its_token(
    mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from degstalk_ns.fleet.engines.on_ray import RayCluster

    def refuse(**_: object) -> None:
        raise ConnectionError("ray client connection timeout")  # what Ray 2.60 says of a missing token

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    manifest = manifest_of({"output": str(tmp_path), "subjects": [{"name": "a", "drawn": {}}]}, "a")
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        with pytest.raises(UserError, match=f"--address {address}: no Ray cluster answers there") as refused:
            RayCluster(manifest, address).__enter__()
    assert ("RAY_AUTH_TOKEN" in str(refused.value)) == (mode is None)
