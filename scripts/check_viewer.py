#!/usr/bin/env python
"""One command that looks at the viewer as a user does: frame rate, step with the sound, and pictures of the page.

    python scripts/check_viewer.py --load-config outputs/.../config.yml --output check_viewer

Starts ns-viewer and a Chromium without a window on this machine, plays for some seconds, measures in the page how many
frames are shown and how far each is from the sound, sends files, and saves pictures of the page at each station.
Exit code 0: at least 10 frames a second, and in step to 80 ms after 5 s; 1: not so; 2: playwright or Chromium misses.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--use-gl=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nerfstudio's title bar asks for pictures from afar
]
BROWSER_PATIENCE = 90_000
"""Milliseconds for what takes one second on a machine that has nothing else to do."""
SLOWEST, APART = 10.0, 0.08
"""What is asked of the viewer: frames a second, and seconds between picture and sound."""
SETTLED = 5.0
"""Seconds of playing after which picture and sound must have found each other."""
MISSING = 2

# Each time the page is painted: where the sound is, and which moment the picture shows.
WATCH = """async (milliseconds) => {
    const seen = [], end = performance.now() + milliseconds, first = degstalk.framesShown;
    const start = performance.now(), late = degstalk.framesLate;
    while (performance.now() < end) {
        await new Promise(requestAnimationFrame);
        if (!degstalk.audio.paused) seen.push([degstalk.audio.currentTime, degstalk.shown]);
    }
    const seconds = (performance.now() - start) / 1000;
    return { seen, seconds, shown: degstalk.framesShown - first, late: degstalk.framesLate - late };
}"""


@contextmanager
def viewer(config: Path) -> Iterator[tuple[int, int]]:
    """ns-viewer in a process of its own; gives its port and the number of its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("ns-viewer")), "--load-config", str(config)]
    process = subprocess.Popen([*command, "--viewer.websocket-port", str(port)])
    try:
        deadline = time.monotonic() + 2 * BROWSER_PATIENCE / 1000
        while True:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("check_viewer: ns-viewer did not start")
            time.sleep(0.2)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


class Visit:
    """A page of the viewer, and where pictures of it go."""

    def __init__(self, page: Any, folder: Path) -> None:
        self.page, self._folder = page, folder
        self._count = 0

    def open(self, address: str) -> None:
        self.page.goto(address, timeout=BROWSER_PATIENCE)
        self.page.wait_for_selector('[data-degstalk="play"][aria-disabled="false"]', timeout=2 * BROWSER_PATIENCE)
        self.page.wait_for_function("degstalk.shown !== null", timeout=BROWSER_PATIENCE)

    def picture(self, name: str) -> None:
        """Save what the page looks like, once it has come to rest."""
        time.sleep(1.5)
        self._count += 1
        self.page.screenshot(path=self._folder / f"{self._count:02d}_{name}.png")

    def press(self, name: str) -> None:
        self.page.click(f'[data-degstalk="{name}"]')

    def choose(self, label: str, option: str) -> None:
        """One of a dropdown's options."""
        row = self.page.locator(f'xpath=//label[normalize-space()="{label}"]/ancestor::*[.//input][1]').first
        row.locator("input").first.click()
        self.page.get_by_role("option", name=option, exact=True).click()
        time.sleep(0.3)

    def send(self, file: Path, tone: str) -> str:
        """Send a sound file; gives the line that says what became of it."""
        self.page.locator('input[type="file"]').first.set_input_files(file)
        self.page.wait_for_selector(f'[data-degstalk="line"][data-tone="{tone}"]', timeout=2 * BROWSER_PATIENCE)
        return str(self.page.locator('[data-degstalk="line"]').inner_text())

    def play(self, seconds: float) -> dict[str, float]:
        """Play from the start; frames a second, and seconds between picture and sound once they have settled."""
        self.page.evaluate("degstalk.seek(0, true)")
        self.press("play")
        self.page.wait_for_function("degstalk.audio.currentTime > 0.5", timeout=BROWSER_PATIENCE)
        seen = self.page.evaluate(WATCH, 1000 * seconds)
        self.press("play")
        apart = [abs(at - shown) for at, shown in seen["seen"] if at > SETTLED and shown is not None] or [np.inf]
        return {
            "frames a second": seen["shown"] / seen["seconds"],
            "frames dropped in the page": seen["late"],
            "seconds apart, median": float(np.median(apart)),
            "seconds apart, 95 of 100": float(np.quantile(apart, 0.95)),
            "seconds watched": seen["seconds"],
        }


def stations(visit: Visit, folder: Path, seconds: float) -> dict[str, float]:
    """Goes through the page as a user would; gives what playing measured."""
    visit.picture("start")
    measured = visit.play(seconds)
    visit.press("play")
    visit.picture("playing")
    visit.press("play")
    visit.choose("Output", "depth")
    visit.picture("depth")
    visit.choose("Output", "rgb")
    visit.choose("Recorded frame", "wipe")
    visit.picture("wipe")
    visit.choose("Recorded frame", "side by side")
    visit.picture("beside")
    visit.choose("Recorded frame", "off")
    visit.choose("Camera", "free camera")
    visit.picture("free_camera")
    visit.choose("Camera", "nerfstudio's own view")
    visit.picture("own_view")
    visit.choose("Camera", "recorded camera")
    visit.page.get_by_text("Expression", exact=True).first.click()
    visit.picture("expression")
    text = folder / "renamed.wav"
    text.write_text("no sound at all\n" * 50)
    print(visit.send(text, "problem"))
    visit.picture("refused")
    tone = np.sin(700 * np.arange(48_000 * 4) / 48_000) * np.sin(9 * np.arange(48_000 * 4) / 48_000)
    soundfile.write(folder / "mine.flac", 0.5 * tone, 48_000)
    print(visit.send(folder / "mine.flac", "good"))
    visit.press("play")
    visit.picture("uploaded")
    for made in (text, folder / "mine.flac"):
        made.unlink()
    return measured


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--load-config", type=Path, required=True, help="config.yml of a trained run")
    parser.add_argument("--output", type=Path, default=Path("check_viewer"), help="folder for pictures and figures")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to watch it play")
    parser.add_argument("--repeats", type=int, default=1, help="how often to play before the pictures are made")
    options = parser.parse_args(arguments)
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        print("check_viewer: playwright drives the browser: pip install playwright", file=sys.stderr)
        return MISSING
    if BROWSER is None:
        print("check_viewer: no Chromium here (Debian: apt-get install chromium)", file=sys.stderr)
        return MISSING
    options.output.mkdir(parents=True, exist_ok=True)
    with viewer(options.load_config) as (port, _), sync_playwright() as driver:
        address = f"http://127.0.0.1:{port}"
        browser = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        visit = Visit(browser.new_page(viewport={"width": 1280, "height": 800}), options.output)
        visit.open(address)
        for _ in range(options.repeats - 1):
            print(json.dumps(visit.play(options.seconds)))
        measured = stations(visit, options.output, options.seconds)
        browser.close()
    (options.output / "measured.json").write_text(json.dumps(measured, indent=2) + "\n")
    for name, value in measured.items():
        print(f"{name:28} {value:8.3f}")
    good = measured["frames a second"] >= SLOWEST and measured["seconds apart, median"] <= APART
    print("as asked" if good else f"NOT as asked: {SLOWEST:.0f} frames a second, {APART} s apart")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
