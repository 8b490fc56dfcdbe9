#!/usr/bin/env python
"""One command that kills what this project runs, at random moments, and looks at what is left and what goes on from it.

    python tests/kills.py --video me.mp4 --output kills --kills 30

`degstalk sample`, `degstalk process`, `ns-train` and `degstalk render` are killed by SIGKILL with all that they start,
and given again, until they end by themselves. Then their result must be that of a run which nobody has disturbed, byte
for byte (weights bit for bit, video frame for frame), what was done before a kill must not have been done again, and
nothing half-written may be left. Writes a table. Exit code 0: all so; 1: not so.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import av
import torch

from degstalk_ns.files import PART_PREFIX
from degstalk_ns.preprocess.record import RECORD_NAME

STEPS, INTERVAL = 150, 15
"""Steps of a training, and of them between two checkpoints."""
SEGMENT = 25
"""Frames of a part of a video."""


def run_of(*command: str) -> list[str]:
    """A console command of this Python."""
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plain_bytes(value: object) -> bytes:
    """Of a tensor, or of a dictionary that holds some: bit for bit."""
    if isinstance(value, torch.Tensor):
        return repr((value.dtype, value.shape)).encode() + value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return b"".join(repr(key).encode() + plain_bytes(value[key]) for key in sorted(value, key=repr))
    return repr(value).encode()


class Work(ABC):
    """A command, in a folder of its own."""

    name: str
    records: frozenset[str] = frozenset()
    """Names of files that hold times, which differ from run to run."""

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """What a person types, first and after each kill."""

    def ended(self, folder: Path) -> bool:
        """Whether it was killed when all was done, so that there is nothing to give again."""
        return False

    def kept(self, folder: Path) -> dict[str, str]:
        """What is done and may not be done again: name -> what would change if it were."""
        return {}

    def lost(self, folder: Path, printed: str) -> str:
        """What the kill cost; raises AssertionError where that is more than it may be."""
        return ""

    def result(self, folder: Path) -> dict[str, str]:
        """What must be as in an undisturbed run."""
        files = [path for path in (folder / "out").rglob("*") if path.is_file() and path.name not in self.records]
        return {str(path.relative_to(folder)): digest(path) for path in sorted(files)}


class Sample(Work):
    name = "degstalk sample"

    def command(self, folder: Path) -> list[str]:
        return run_of("degstalk", "sample", "out", "--seconds", "6", "--size", "96")

    def ended(self, folder: Path) -> bool:
        return (folder / "out").exists()

    def lost(self, folder: Path, printed: str) -> str:
        assert not (folder / "out").exists() or (folder / "out/transforms_val.json").exists(), "half a dataset"
        return "all, it is whole or not there"


@dataclass
class Process(Work):
    video: Path
    name = "degstalk process"
    records = frozenset({RECORD_NAME})

    def command(self, folder: Path) -> list[str]:
        return run_of("degstalk", "process", str(self.video), "out")

    def kept(self, folder: Path) -> dict[str, str]:
        """The frames, which are not written again once they are there."""
        return {str(path): str(path.stat().st_mtime_ns) for path in (folder / "out/ori_imgs").glob("[0-9]*.jpg")}

    def lost(self, folder: Path, printed: str) -> str:
        record = folder / "out" / RECORD_NAME
        done = record.read_text(encoding="utf-8").count('"complete": true') if record.exists() else 0
        return f"the step it was in ({done} done)"


@dataclass
class Train(Work):
    data: Path
    name = "ns-train"

    def checkpoints(self, folder: Path) -> list[Path]:
        return sorted(folder.glob("out/run/degstalk-fast/only/nerfstudio_models/*.ckpt"))

    def command(self, folder: Path) -> list[str]:
        command = [
            *run_of("ns-train", "degstalk-fast", "--data", str(self.data), "--output-dir", "out"),
            *("--experiment-name", "run", "--timestamp", "only", "--vis", "tensorboard", "--length.most", "1"),
            *("--max-num-iterations", str(STEPS), "--steps-per-save", str(INTERVAL), "--steps-per-eval-image", "100"),
        ]
        saved = self.checkpoints(folder)
        return [*command, "--load-dir", str(saved[-1].parent)] if saved else command

    def lost(self, folder: Path, printed: str) -> str:
        reached = max((int(step) for step in re.findall(r"^(\d+) \(\d+\.\d+%\)", printed, re.M)), default=0)
        saved = self.checkpoints(folder)
        step = int(saved[-1].stem.split("-")[1]) + 1 if saved else 0
        assert len(saved) <= 2, "more checkpoints than the newest and the one before"
        for path in saved:
            torch.load(path, weights_only=False)
        assert reached - step < INTERVAL + 1, f"step {reached} was reached, and {step} saved"
        return f"{max(reached - step, 0)} steps of {reached}"

    def result(self, folder: Path) -> dict[str, str]:
        (*_, newest) = self.checkpoints(folder)
        weights = torch.load(newest, weights_only=False)["pipeline"]
        return {name: hashlib.sha256(plain_bytes(value)).hexdigest() for name, value in weights.items()}


@dataclass
class Render(Work):
    config: Path
    name = "degstalk render"

    def ended(self, folder: Path) -> bool:
        return (folder / "out/talk.mp4").exists()

    def command(self, folder: Path) -> list[str]:
        more = ("--track", "all", "--side-by-side", "--video.segment-frames", str(SEGMENT))
        return run_of("degstalk", "render", "--load-config", str(self.config), "--output", "out/talk.mp4", *more)

    def kept(self, folder: Path) -> dict[str, str]:
        parts = sorted((folder / "out/.talk.mp4.parts").glob("*.mp4"))
        return {str(path): str(path.stat().st_mtime_ns) for path in parts}

    def lost(self, folder: Path, printed: str) -> str:
        return f"under {SEGMENT} frames ({SEGMENT * len(self.kept(folder))} kept)"

    def result(self, folder: Path) -> dict[str, str]:
        assert sorted(os.listdir(folder / "out")) == ["talk.mp4"], os.listdir(folder / "out")
        found = {}
        with av.open(str(folder / "out/talk.mp4")) as video:
            for number, frame in enumerate(video.decode(video=0)):
                found[f"frame {number}"] = hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest()
        with av.open(str(folder / "out/talk.mp4")) as video:
            sound = b"".join(frame.to_ndarray().tobytes() for frame in video.decode(audio=0))
        return found | {"sound": hashlib.sha256(sound).hexdigest()}


@dataclass
class Tally:
    """What the kills of one command showed."""

    seconds: float
    kills: int = 0
    ended: int = 0
    moments: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def start(work: Work, folder: Path) -> tuple[subprocess.Popen[str], Path]:
    log = folder / "printed.txt"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(
            work.command(folder),
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            text=True,
        )
    return process, log


def half_written(folder: Path) -> list[str]:
    marks = (PART_PREFIX, ".incomplete", ".unfinished", ".parts")
    return [str(path) for path in folder.rglob("*") if any(mark in path.name for mark in marks)]


def undisturbed(work: Work, folder: Path) -> tuple[dict[str, str], float]:
    """The result of a run that nobody kills, and its seconds."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    process, log = start(work, folder)
    if process.wait():
        raise SystemExit(f"kills: {work.name} fails without being killed:\n{log.read_text()[-3000:]}")
    return work.result(folder), time.monotonic() - began


def disturb(work: Work, folder: Path, kills: int, chance: random.Random) -> Tally:
    """Kill and repeat ``work`` until it was killed ``kills`` times and has ended."""
    wanted, seconds = undisturbed(work, folder / "undisturbed")
    tally = Tally(seconds)
    while tally.kills < kills or not tally.ended:
        place = folder / f"chain{tally.ended}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        kept: dict[str, str] = {}
        while True:
            began = time.monotonic()
            process, log = start(work, place)
            moment = chance.uniform(0, seconds) if tally.kills < kills else None
            try:
                code = process.wait(moment)
                if not kept:
                    seconds = min(seconds, time.monotonic() - began)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                tally.kills += 1
                try:
                    cost = work.lost(place, log.read_text(errors="replace"))
                except Exception as error:
                    cost = f"FAULT: {error}"
                    tally.faults.append(str(error))
                tally.moments.append(f"{moment:.1f} s: {cost}")
                print(f"{work.name}: killed after {tally.moments[-1]}", flush=True)
                now = work.kept(place)
                again = [name for name, stamp in kept.items() if now.get(name, stamp) != stamp]
                tally.faults += [f"done again: {name}" for name in again[:3]]
                kept = now
                if not work.ended(place):
                    continue
                code = 0
            if code:
                tally.faults.append(f"does not go on: {log.read_text()[-500:]}")
            elif (found := work.result(place)) != wanted:
                other = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
                tally.faults.append(f"another result: {sorted(other)[:5]}")
            tally.faults += [f"left behind: {name}" for name in half_written(place)]
            now = work.kept(place)
            again = [name for name, stamp in kept.items() if now.get(name, stamp) != stamp]
            tally.faults += [f"done again: {name}" for name in again[:3]]
            tally.ended += 1
            print(f"{work.name}: ended; {len(tally.faults)} faults so far", flush=True)
            break
    return tally


def table(tallies: dict[str, Tally]) -> str:
    lines = ["| command | undisturbed | kills | ends compared | faults |", "|---|---|---|---|---|"]
    for name, tally in tallies.items():
        lines.append(f"| `{name}` | {tally.seconds:.1f} s | {tally.kills} | {tally.ended} | {len(tally.faults)} |")
    for name, tally in tallies.items():
        lines += ["", f"`{name}`, killed after, and what that cost:", ""]
        lines += [f"- {moment}" for moment in tally.moments]
        lines += [f"- FAULT: {fault}" for fault in tally.faults]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="a talking person, some seconds; without it process is left out")
    parser.add_argument("--output", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--only", nargs="+", help="some of Sample, Process, Train, Render, after all before were done")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    output: Path = given.output.resolve()
    output.mkdir(parents=True, exist_ok=given.only is not None)
    chance = random.Random(given.seed)
    tallies: dict[str, Tally] = {}
    works: list[type[Work]] = [Sample, *([Process] if given.video else []), Train, Render]
    for index, kind in enumerate(works):
        if given.only is not None and kind.__name__ not in given.only:
            continue
        shutil.rmtree(output / kind.__name__, ignore_errors=True)
        kills = given.kills // len(works) + (index < given.kills % len(works))
        if kind is Process:
            work: Work = Process(given.video.resolve())
        elif kind is Train:
            work = Train(output / "Sample/undisturbed/out")
        elif kind is Render:
            work = Render(output / "Train/undisturbed/out/run/degstalk-fast/only/config.yml")
        else:
            work = Sample()
        tallies[work.name] = disturb(work, output / kind.__name__, kills, chance)
        (output / "kills.md").write_text(table(tallies), encoding="utf-8")
    print(table(tallies))
    sys.exit(any(tally.faults for tally in tallies.values()))


if __name__ == "__main__":
    main()
