"""The viewer as someone sees and hears it: a real browser without a window, a head, sound, and a file of one's own.

The plates of the dataset carry the number of their frame as black and white fields, so the picture on the screen itself
says which moment it shows.
"""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile
import torch
from synthetic import make_dataset

from degstalk_ns.animation import hearing
from degstalk_ns.audio.mel import mel_windows
from degstalk_ns.audio.sound import UNLIMITED, load_sound
from degstalk_ns.avatar.avatar import Avatar
from degstalk_ns.dataparsers.layout import Layout, train_count
from degstalk_ns.scripts.check_viewer import APART, ARGUMENTS, BROWSER, BROWSER_PATIENCE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")
QUIET = "DEGSTALK_BROWSER" in os.environ
"""Whether this machine has nothing else to do, so that times may be asserted; elsewhere they are printed."""

FRAMES, SIZE, FIELD, BITS = 275, 64, 8, 8
# The number in the fields of the picture that is on the screen, and where the sound is at that instant.
READ = f"""() => {{
    const canvas = document.querySelector("#degstalk-stage canvas");
    const data = canvas.getContext("2d").getImageData(0, 0, {SIZE}, {FIELD}).data;
    let number = 0;
    for (let bit = 0; bit < {BITS}; bit++) {{
        const at = 4 * ({SIZE} * {FIELD // 2} + bit * {FIELD} + {FIELD // 2});
        if (data[at] > 127) number |= 1 << bit;
    }}
    let sum = 0;
    const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < all.length; i += 4) sum = (sum * 31 + all[i]) | 0;
    return {{ number, sum, at: degstalk.audio.currentTime, playing: !degstalk.audio.paused }};
}}"""
# The picture that is on the screen, below the fields, as bytes of red, green, blue and opacity.
PICTURE = f"""() => {{
    const canvas = document.querySelector("#degstalk-stage canvas");
    return Array.from(canvas.getContext("2d").getImageData(0, {FIELD}, {SIZE}, {SIZE - FIELD}).data);
}}"""
WATCH = f"""async (milliseconds) => {{
    const read = {READ}, seen = [], end = performance.now() + milliseconds;
    while (performance.now() < end) {{
        await new Promise(requestAnimationFrame);
        seen.push(read());
    }}
    return seen;
}}"""


def _numbered_plates(root: Path) -> None:
    for frame in range(FRAMES):
        path = str(Layout(root).plate(frame))
        plate = cv2.imread(path)
        for bit in range(BITS):
            plate[:FIELD, bit * FIELD : (bit + 1) * FIELD] = 255 * (frame >> bit & 1)
        cv2.imwrite(path, plate)


def _exaggerate(avatar: Avatar) -> None:
    """Let an untrained mouth hear the sound more than itself, move by centimetres, and be seen."""
    for parameter in avatar.mouth_field.audio.parameters():
        if parameter.ndim == 1:
            parameter.zero_()
    avatar.mouth_field.mean_scale.mul_(13_000.0)  # type: ignore[operator]
    avatar.region("mouth").params["opacities"].fill_(3.0)
    avatar.region("mouth").params["sh0"].fill_(1.7)


@pytest.fixture(scope="module")
def without_whisper() -> Iterator[None]:
    """Let the mouth follow log-mel bands, whether or not a Whisper model is at hand: bands tell of their own moment,
    and Whisper's vectors of all the sound around it, so that one moment's mouth would depend on what is heard later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hearing, "whisper_availability", lambda: "left out here")
        yield


@pytest.fixture(scope="module")
def address(without_whisper: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of nerfstudio's viewer with an untrained head; what is looked at here does not depend on what it has learnt."""
    from nerfstudio.viewer.viewer import Viewer

    from degstalk_ns.configs.methods import degstalk_fast

    root = make_dataset(tmp_path_factory.mktemp("viewed"), frames=FRAMES, size=SIZE)
    _numbered_plates(root)
    layout = Layout(root)
    np.save(layout.audio_features("mel"), mel_windows(load_sound(layout.audio, UNLIMITED).samples, FRAMES))
    config = deepcopy(degstalk_fast.config.pipeline)
    config.datamanager.data = root
    for region in (config.model.avatar.face, config.model.avatar.mouth):
        region.num_points = 200
    torch.manual_seed(0)
    pipeline = config.setup(device="cpu", test_mode="test")
    pipeline.eval()
    pipeline.model.moving.fill_(True)
    with torch.no_grad():
        for region in ("face", "mouth"):  # small, so that no Gaussian covers the fields of the plate
            pipeline.model.avatar.region(region).params["means"].mul_(0.3)
            pipeline.model.avatar.region(region).params["scales"].sub_(2.0)
        _exaggerate(pipeline.model.avatar)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = deepcopy(degstalk_fast.config.viewer)
    settings.websocket_port = port
    settings.max_num_display_images = 3
    viewer = Viewer(settings, tmp_path_factory.mktemp("log") / "log.txt", root, pipeline, train_lock=threading.Lock())
    viewer.init_scene(pipeline.datamanager.train_dataset, "completed", pipeline.datamanager.eval_dataset)
    yield f"http://127.0.0.1:{port}"
    viewer.viser_server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(address: str, browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    _open(page, address)
    yield page
    page.close()


@pytest.fixture
def page(opened: Any) -> Any:
    """The page, at the start of what it plays."""
    opened.evaluate("degstalk.audio.pause(); degstalk.seek(0, true)")
    opened.wait_for_function("degstalk.audio.paused && degstalk.shown === 0", timeout=BROWSER_PATIENCE)
    return opened


def _open(page: Any, address: str) -> None:
    page.goto(address, timeout=BROWSER_PATIENCE)
    page.wait_for_selector('[data-degstalk="play"][aria-disabled="false"]', timeout=BROWSER_PATIENCE)
    page.wait_for_function("degstalk.shown !== null", timeout=BROWSER_PATIENCE)


def _until(page: Any, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + BROWSER_PATIENCE / 1000
    while not what(seen := page.evaluate(READ)):
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.05)
    return seen


def _drag_slider(page: Any, share: float) -> None:
    box = page.locator(".mantine-Slider-root").first.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * share / 2, y)
    page.mouse.move(box["x"] + box["width"] * share, y)


def test_the_page_shows_the_first_frame_and_the_slider_scrubs(page: Any) -> None:
    first = _until(page, lambda seen: seen["number"] == 0)
    _drag_slider(page, 0.5)  # held, not yet let go
    moved = _until(page, lambda seen: seen["number"] > 80)
    page.mouse.up()
    assert moved["sum"] != first["sum"] and not moved["playing"]
    still = _until(page, lambda seen: abs(seen["at"] * 25 - seen["number"]) < 1)
    page.click('[data-degstalk="forward"]')
    _until(page, lambda seen: seen["number"] == still["number"] + 1)
    page.click('[data-degstalk="back"]')
    _until(page, lambda seen: seen["number"] == still["number"])


def test_sound_and_picture_go_together(page: Any) -> None:
    page.click('[data-degstalk="play"]')
    _until(page, lambda seen: seen["at"] > 5)
    # Another program may take the processor for a while; then the picture waits. It must find its way back.
    apart = []
    for _ in range(4):
        seen = page.evaluate(WATCH, 1000)
        seen = [one for one in seen if one["playing"]]
        apart.append(statistics.median(abs(one["at"] - one["number"] / 25) for one in seen) if seen else 9.0)
        if apart[-1] <= APART:
            break
    print(f"seconds between sound and picture, in each second: {apart}; {page.evaluate('degstalk.fps'):.1f} frames/s")
    assert not QUIET or min(apart) <= APART
    page.click('[data-degstalk="play"]')
    stopped = _until(page, lambda seen: not seen["playing"])
    assert stopped["at"] > 5
    _until(page, lambda seen: abs(seen["at"] * 25 - seen["number"]) < 1)


def _sessions_become(number: int) -> None:
    deadline = time.monotonic() + BROWSER_PATIENCE / 1000
    while (now := sum(thread.name == "degstalk-page" for thread in threading.enumerate())) != number:
        assert time.monotonic() < deadline, f"{now} pages have a thread, expected {number}"
        time.sleep(0.1)


def test_two_pages_are_two_viewers_and_leave_nothing_behind(page: Any, browser: Any, address: str) -> None:
    _sessions_become(1)
    # In a browser of its own: within one, the page in front may keep the other from getting frames, so from starting.
    second = browser.browser_type.launch(executable_path=BROWSER, args=ARGUMENTS)
    other = second.new_page(viewport={"width": 1000, "height": 700})
    _open(other, address)
    _sessions_become(2)
    _drag_slider(other, 0.4)
    _until(other, lambda seen: seen["number"] > 60)
    other.mouse.up()
    assert page.evaluate(READ)["number"] == 0
    second.close()
    _sessions_become(1)


def _sound(path: Path, *loud: tuple[float, float]) -> Path:
    """Two seconds of a tone between the given moments, and silence else."""
    seconds = np.arange(48_000 * 2) / 48_000
    heard = sum((start <= seconds) & (seconds < end) for start, end in loud)
    soundfile.write(path, 0.5 * np.sin(700 * seconds) * heard, 48_000)
    return path


def _send(page: Any, file: Path, tone: str) -> str:
    """What the page says of a file that is sent."""
    page.evaluate("degstalk.say('')")
    page.wait_for_selector('[data-degstalk="line"][data-tone=""]', state="attached", timeout=BROWSER_PATIENCE)
    page.locator('input[type="file"]').first.set_input_files(file)
    page.wait_for_selector(f'[data-degstalk="line"][data-tone="{tone}"]', timeout=BROWSER_PATIENCE)
    return str(page.locator('[data-degstalk="line"]').inner_text())


def _pictures(page: Any, *moments: float) -> list[np.ndarray]:
    """The pictures at moments of what is played now."""
    found = []
    for moment in moments:
        page.evaluate(f"degstalk.seek({moment} + 1e-4, true)")
        page.wait_for_function(f"Math.abs(degstalk.shown - {moment}) < 0.02", timeout=BROWSER_PATIENCE)
        found.append(np.array(page.evaluate(PICTURE), float))
    return found


def test_a_text_file_is_refused_and_a_sound_file_moves_the_mouth(page: Any, tmp_path: Path) -> None:
    text = tmp_path / "renamed.wav"
    text.write_text("no sound at all\n" * 50)
    said = _send(page, text, "problem")
    assert "renamed.wav" in said and "has no readable audio" in said
    assert page.evaluate("degstalk.duration") == train_count(FRAMES) / 25

    page.get_by_role("checkbox", name="Face").uncheck()  # what moves now is the mouth, over the plates
    seen = {}
    for name, loud in {"early": [(0.2, 0.7)], "late": [(1.3, 1.8)], "both": [(0.2, 0.7), (1.3, 1.8)]}.items():
        assert f"{name}.flac drives the avatar" in _send(page, _sound(tmp_path / f"{name}.flac", *loud), "good")
        page.wait_for_function("degstalk.duration === 2 && degstalk.audio.duration === 2", timeout=BROWSER_PATIENCE)
        page.wait_for_selector('[data-degstalk="play"][aria-disabled="false"]', timeout=BROWSER_PATIENCE)
        seen[name] = _pictures(page, 0.4, 1.6)
    early, late, both = seen["early"], seen["late"], seen["both"]
    # Each moment borrows the same camera and plate in all three: what differs is the mouth.
    for moment, loud, silent in ((0, early, late), (1, late, early)):
        moved = np.abs(loud[moment] - silent[moment]).max()
        same = np.abs(loud[moment] - both[moment]).max()
        assert moved > 20 and same < moved / 20, (moment, moved, same)
    page.click('[data-degstalk="play"]')
    page.wait_for_function("degstalk.framesShown > 0 && degstalk.audio.currentTime > 1.7", timeout=BROWSER_PATIENCE)
