#!/usr/bin/env python
"""One command that lets a training and the viewer run for long, and plots what of the machine they hold.

    python tests/soak.py --output soak --steps 20000 --minutes 60 --connections 50

Trains on a synthetic person of 128 x 128; then a client without a browser plays that avatar in ns-viewer, leaves and
comes back, every second time without saying goodbye, sends a sound now and then, and moves controls. It begins with a
crowd of pages at once, so that pools and buffers have their full size before anything is judged. Memory, threads, open
files and speed of the process are sampled all the while. Exit code 0: after the warm-up, memory grows by less than
5 %, threads and files by none, and frames come no slower while it plays; 1: not so. Let nothing else run beside it.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import psutil
import soundfile
from fake_page import FakePage, until

from degstalk_ns.scripts.check_viewer import viewer

WARM = 0.2
"""Part of the time that is not judged: kernels, caches and the plates in memory fill up."""
GROWTH = 0.05
"""Most that memory may grow by, over all that is judged."""
SLOWER = 0.1
"""Most of the speed of playing that may be lost. That of training is shown only: it changes with the stages."""
EVERY = 2.0
"""Seconds between two samples of a training."""
STATE_EVERY = 0.25
"""Seconds between two words of a page on where its sound is."""
CROWD = 8
"""Pages at once in the warm-up."""
CROWD_SECONDS = 30.0
LABELS = {"memory": "memory, MiB", "threads": "threads", "files": "open files", "speed": "speed"}


def console(*command: str) -> list[str]:
    """A console command of this Python."""
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


class Samples:
    """What a process and its children hold, again and again."""

    def __init__(self, pid: int, speed: str) -> None:
        self._process, self.speed = psutil.Process(pid), speed
        self.rows: list[tuple[float, ...]] = []
        self._began = time.monotonic()

    def take(self, speed: float) -> None:
        """One more, of a process that still runs."""
        processes = [self._process, *self._process.children(recursive=True)]
        memory = sum(process.memory_info().rss for process in processes) / 2**20
        threads, files = (sum(getattr(p, name)() for p in processes) for name in ("num_threads", "num_fds"))
        self.rows.append((time.monotonic() - self._began, memory, threads, files, speed))

    def columns(self) -> dict[str, np.ndarray]:
        return dict(zip(("time", *LABELS), np.array(self.rows).T, strict=True))

    def verdict(self) -> dict[str, float]:
        """How each has grown over what is judged: memory as a fraction by a straight line through it, threads and
        files in numbers, between the medians of the first and the last tenth; speed as a fraction likewise."""
        columns = {name: values[int(WARM * len(self.rows)) :] for name, values in self.columns().items()}
        time_, memory = columns["time"], columns["memory"]
        slope = np.polyfit(time_, memory, 1)[0] * (time_[-1] - time_[0])
        tenth = max(len(time_) // 10, 1)
        ends = (slice(None, tenth), slice(-tenth, None))
        first, last = ({name: np.median(values[end]) for name, values in columns.items()} for end in ends)
        return {
            "minutes": float((time_[-1] - time_[0]) / 60),
            "memory": float(slope / memory[:tenth].mean()),
            "memory, ends": float(last["memory"] / first["memory"] - 1),
            "threads": float(last["threads"] - first["threads"]),
            "files": float(last["files"] - first["files"]),
            "speed": float(last["speed"] / first["speed"] - 1),
        }

    def faults(self, steady: bool) -> list[str]:
        """What has grown; with ``steady``, also that it has become slower."""
        found = self.verdict()
        grown = [name for name, most in (("memory", GROWTH), ("threads", 0.0), ("files", 0.0)) if found[name] > most]
        return grown + (["slower"] if steady and found["speed"] < -SLOWER else [])


def train(data: Path, output: Path, steps: int) -> tuple[Samples, Path]:
    """A training of so many steps; gives the path of its config.yml."""
    log = output / "training.txt"
    command = [
        *console("ns-train", "degstalk-fast", "--data", str(data), "--output-dir", str(output)),
        *("--experiment-name", "soak", "--timestamp", "only", "--vis", "tensorboard", "--length.most", "1"),
        *("--max-num-iterations", str(steps), "--steps-per-save", "2000", "--steps-per-eval-image", "2000"),
    ]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    samples = Samples(process.pid, "training steps/s")
    before, at = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(EVERY)
        told = re.findall(r"^(\d+) \(\d+\.\d+%\)", log.read_text(errors="replace")[-4000:], re.M)
        if told and int(told[-1]) > before:
            step, now = int(told[-1]), time.monotonic()
            if before and process.poll() is None:
                samples.take((step - before) / (now - at))
            before, at = step, now
    if process.returncode:
        raise SystemExit(f"soak: the training failed:\n{log.read_text()[-3000:]}")
    return samples, output / "soak/degstalk-fast/only/config.yml"


class Listener(FakePage):
    """A page whose sound begins again when it has ended, and which says where it is as often as page.js does."""

    def listen(self, until_then: float) -> None:
        """Plays until ``time.monotonic()`` is there."""
        while time.monotonic() < until_then:
            time.sleep(STATE_EVERY)
            self.report("state")

    def report(self, kind: str, **more: Any) -> None:
        sound = self.given("sound")
        if self._started and sound:
            more["at"] = (time.monotonic() - self._started) % sound[-1][3]
            more["clip"] = sound[-1][0]
        super().report(kind, **more)

    def drop(self) -> None:
        """Leave as a machine does that loses its network."""
        self._socket.socket.shutdown(socket.SHUT_RDWR)


def a_sound() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal(5 * 16000), 16000, format="WAV")
    return file.getvalue()


def crowd(port: int) -> None:
    """Many pages at once, each of which sends a sound and plays; half of them leave without a word."""
    pages = [Listener(port) for _ in range(CROWD)]
    for page in pages:
        until(lambda page=page: page.given("sound") and page.given("frame"))

    def visit(page: Listener) -> None:
        page.upload("noise.wav", a_sound())
        page.play()
        page.listen(time.monotonic() + CROWD_SECONDS)

    with ThreadPoolExecutor(CROWD) as pool:
        list(pool.map(visit, pages))
    for number, page in enumerate(pages):
        page.drop() if number % 2 else page.close()


def play(config: Path, minutes: float, connections: int, say: Callable[[str], None]) -> Samples:
    """So many visits to the viewer, one after the other."""
    with viewer(config) as (port, pid):
        samples = Samples(pid, "frames/s that a page gets")
        each = 60 * minutes / connections
        crowd(port)
        for visit in range(connections):
            ends = time.monotonic() + each
            page = Listener(port)
            until(lambda page=page: page.given("sound") and page.given("frame"))
            if visit % 5 == 4:
                text, tone = page.upload("noise.wav", a_sound())
                assert "drives the avatar" in text, (text, tone)
            page.play()
            before, at = len(page.given("frame")), time.monotonic()
            while (now := time.monotonic()) < ends - 1:
                page.listen(min(now + 10.0, ends))
                page.change("Mouth", not len(samples.rows) % 3)
                frames, now = len(page.given("frame")), time.monotonic()
                samples.take((frames - before) / (now - at))
                before, at = frames, now
            page.drop() if visit % 2 else page.close()
            say(f"visit {visit + 1} of {connections}: {samples.rows[-1]}")
        return samples


def plot(parts: dict[str, Samples], path: Path) -> None:
    figure, axes = plt.subplots(len(LABELS), len(parts), figsize=(7 * len(parts), 9), sharex="col", squeeze=False)
    for column, (name, samples) in enumerate(parts.items()):
        columns = samples.columns()
        axes[0, column].set_title(name)
        for row, (key, label) in enumerate(LABELS.items()):
            axes[row, column].plot(columns["time"] / 60, columns[key], linewidth=1)
            axes[row, column].set_ylim(0, 1.15 * columns[key].max())
            axes[row, column].set_ylabel(samples.speed if key == "speed" else label)
            axes[row, column].axvline(WARM * columns["time"][-1] / 60, color="grey", linestyle=":")
        axes[-1, column].set_xlabel("minutes; what is right of the dotted line is judged")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--load-config", type=Path, help="play this avatar, and train none")
    given = parser.parse_args()
    output: Path = given.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Samples] = {}
    config = given.load_config
    if config is None:
        data = output / "person"
        if not data.exists():
            subprocess.run(console("degstalk", "sample", str(data), "--size", "128"), check=True)
        parts["training"], config = train(data, output, given.steps)
    parts["playing"] = play(config.resolve(), given.minutes, given.connections, lambda line: print(line, flush=True))
    plot(parts, output / "soak.png")
    found = {name: {"grown": part.verdict(), "rows": part.rows} for name, part in parts.items()}
    (output / "soak.json").write_text(json.dumps(found), encoding="utf-8")
    faults = [f"{name}: {fault}" for name, part in parts.items() for fault in part.faults(name == "playing")]
    for name, part in parts.items():
        print(name, {key: round(value, 3) for key, value in part.verdict().items()})
    print("faults:", ", ".join(faults) or "nothing")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
