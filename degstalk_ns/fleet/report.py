"""What has become of every subject, as Markdown and as a page: states, metrics, and frames beside the recorded ones.

It must not know how the steps were run.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any, Final

import cv2
import numpy as np
from markdown_it import MarkdownIt
from numpy.typing import NDArray

from degstalk_ns.files import read_rgb
from degstalk_ns.fleet.schedule import FleetSchedule, StepRecord
from degstalk_ns.fleet.steps import METRICS, PICTURES
from degstalk_ns.fleet.store import Store

REPORT: Final[str] = "report"
SHOWN: Final[dict[str, str]] = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "lmd": "LMD"}
STRIP_FRAMES, STRIP_SIDE = 4, 160
"""Frames of a subject's strip, and the height of each in pixels."""
PICTURED: Final[int] = 200
"""Strips in a page at most, some 20 kB each: those of lowest PSNR, which are the ones to look at."""


def metrics_of(store: Store, record: StepRecord) -> dict[str, float]:
    """The metrics that an evaluation has left; empty where there are none."""
    content: Any = store.read(record.step.subject, record.step.name, METRICS) if record.whole else None
    found = content.get("results", {}) if isinstance(content, Mapping) else {}
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}


def write_report(schedule: FleetSchedule, store: Store, engine: str, seconds: float) -> None:
    """`report.md` and `report.html`, both beside the results; pictures lie in the page."""
    text = report_markdown(schedule, store, engine, seconds)
    page = _page(schedule, store, text)
    for name, content in ((f"{REPORT}.md", text), (f"{REPORT}.html", page)):
        store.write_text(content, name)


def report_markdown(schedule: FleetSchedule, store: Store, engine: str, seconds: float) -> str:
    """A table of the subjects, one of metrics, and every step that failed, was held up or was tried again."""
    records = list(schedule.records.values())
    done = sum(record.state == "done" for record in records)
    kept = sum(record.state == "kept" for record in records)
    lines = [
        "# Fleet",
        "",
        f"{len(records)} steps on engine {engine} in {seconds:.0f} s: {done} done, {kept} done before, "
        f"{sum(record.state == 'failed' for record in records)} failed, "
        f"{sum(record.state == 'held up' for record in records)} held up.",
        "",
    ]
    evaluated = [(record, metrics_of(store, record)) for record in records if record.step.kind == "evaluate"]
    if evaluated:
        lines += [f"| subject | method | seed | {' | '.join(SHOWN.values())} |", "|---" * (3 + len(SHOWN)) + "|"]
        for record, metrics in evaluated:
            values = [f"{metrics[key]:.4f}" if key in metrics else "" for key in SHOWN]
            step = record.step
            lines.append(f"| {step.subject} | {step.method} | {step.seed} | {' | '.join(values)} |")
        left_out = [
            SHOWN[key] for key in SHOWN if any(key not in metrics for record, metrics in evaluated if record.whole)
        ]
        if left_out:
            lines += ["", f"{' and '.join(left_out)}: left out where empty; `log.txt` beside the metrics says why."]
        lines.append("")
    for title, wanted in (
        ("Failed", [f"{_called(r)}: {r.mark.reason if r.mark else ''}" for r in records if r.state == "failed"]),
        ("Held up by them", [_called(r) for r in records if r.state == "held up"]),
        ("Tried again", [f"{_called(r)}: {why}" for r in records for why in r.retried]),
    ):
        if wanted:
            lines += [f"## {title}", "", *(f"- {line}" for line in wanted), ""]
    lines += ["## Steps", "", "| subject | step | state | seconds | memory, GB | node |", "|---|---|---|---|---|---|"]
    for record in records:
        mark = record.mark
        took, node = (f"{mark.seconds:.1f}", mark.node) if mark else ("", "")
        held = f"{mark.memory / 1e9:.1f}" if mark and mark.memory else ""
        lines.append(f"| {record.step.subject} | {record.step.name} | {record.state} | {took} | {held} | {node} |")
    return "\n".join(lines) + "\n"


def _called(record: StepRecord) -> str:
    return f"{record.step.subject}, {record.step.name}"


def picture_strip(store: Store, record: StepRecord) -> NDArray[np.uint8] | None:
    """Recorded beside rendered frames of an evaluation, RGB uint8; None where it has left none."""
    folder = store.take(*record.step.key) / PICTURES
    paths = sorted(path for path in folder.glob("*composition*.png"))
    if not paths:
        return None
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(STRIP_FRAMES, len(paths))).round().astype(int)]
    frames = [read_rgb(path) for path in chosen]
    small = [
        cv2.resize(f, (round(f.shape[1] * STRIP_SIDE / f.shape[0]), STRIP_SIDE), interpolation=cv2.INTER_AREA)
        for f in frames
    ]
    return np.hstack(small)


def _page(schedule: FleetSchedule, store: Store, text: str) -> str:
    strips: list[str] = []
    whole = [record for record in schedule.records.values() if record.step.kind == "evaluate" and record.whole]
    for record in sorted(whole, key=lambda record: metrics_of(store, record).get("psnr", 0.0)):
        if len(strips) == PICTURED:
            break
        strip = picture_strip(store, record)
        if strip is not None:
            data = cv2.imencode(".jpg", cv2.cvtColor(strip, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
            picture = base64.b64encode(data.tobytes()).decode()
            name = html.escape(f"{record.step.subject}, {record.step.method}, seed {record.step.seed}")
            strips.append(
                f'<figure><figcaption>{name}: recorded beside rendered</figcaption><img alt="{name}" '
                f'src="data:image/jpeg;base64,{picture}"></figure>'
            )
    style = "body{font:15px sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:left}img{max-width:100%}"
    told = MarkdownIt("js-default").render(text)  # raw HTML in it stays text
    title = f"<h2>Frames, {f'the {PICTURED} of ' if len(whole) > PICTURED else ''}lowest PSNR first</h2>"
    body = "\n".join([told, title, *strips])
    return f'<!doctype html><meta charset="utf-8"><title>Fleet</title><style>{style}</style>\n{body}\n'
