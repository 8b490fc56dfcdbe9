"""`bench look-ahead`: how well the lips follow held-out audio if they may hear only so far ahead, as live use needs it.

It must not know nerfstudio, nor how frames are rendered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from degstalk_ns.animation.animation import recorded_track
from degstalk_ns.animation.hearing import Ears, check_look_ahead, choose_ears
from degstalk_ns.animation.new_sound import NewSoundConfig
from degstalk_ns.animation.spoken import spoken_tracks
from degstalk_ns.avatar.driving import DrivingTrack, no_sound
from degstalk_ns.console.report import Curve, Report, Table
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError

LOOK_AHEADS = (0.04, 0.08, 0.16, 0.24, 0.4)
"""Seconds. 40 ms, one video frame, is the least that the audio features can do with."""
Measured = dict[str, float]
Measure = Callable[[dict[str, DrivingTrack], Callable[[str], None]], Measured]
"""Drives the held-out frames with each of some tracks, and tells ``<name>_r``, ``<name>_lmd``, ``<name>_spread`` and
``<name>_lag``, as far as they could be measured; see :func:`~degstalk_ns.metrics.frames.spoken_metrics`."""
_NUMBERS = ("r", "lmd", "spread", "lag")
_CONTROLS = {"shuffled": "audio of another moment", "still": "a still mouth"}
UNHEARD = "unheard"
"""No limit, but the face itself hears no audio, as it does under a limit: what an avatar loses by that alone."""


def bench_look_ahead(
    recording: Recording,
    measure: Measure,
    look_aheads: Sequence[float],
    advance: Callable[[str], None],
) -> tuple[Report, dict[str, list[Curve]]]:
    """Measures the lips for each of ``look_aheads`` (seconds), with no limit, and the controls of
    :func:`~degstalk_ns.animation.spoken.spoken_tracks`; by Whisper's vectors, where the model is at hand, and log-mel.

    Returns:
        The report, and the curves of a plot: correlation of the opening and landmark distance over milliseconds.

    Raises:
        UserError: no look-ahead, one that cannot be kept, or a recording whose audio is not known.
    """
    if not look_aheads:
        raise UserError("no look-ahead to measure: give seconds, for example 0.08 0.24")
    chosen, notes = choose_ears(recording, "auto")
    ears: list[Ears] = ["whisper", "mel"] if chosen == "whisper" else ["mel"]
    limits = sorted(set(look_aheads))
    for seconds in limits:
        check_look_ahead(seconds, chosen)
    drivings: dict[str, DrivingTrack] = {"tracked": recorded_track(recording)}
    for ear in ears:
        for limit in (*limits, None):
            advance(f"hearing by {ear}, look-ahead {'not limited' if limit is None else f'{limit * 1e3:g} ms'}")
            tracks, more = spoken_tracks(recording, NewSoundConfig(ears=ear, look_ahead=limit))
            drivings[_key(ear, limit)] = tracks["spoken"]
            notes += more
            if limit is None and ear == ears[0]:
                unheard = tracks["spoken"].with_audio(no_sound(tuple(tracks["spoken"].audio.shape)))
                drivings |= {name: tracks[name] for name in _CONTROLS} | {UNHEARD: unheard}
    found = measure(drivings, advance)
    table = Table(
        f"Lips of {recording.val.aud_ids.size} held-out frames, driven by audio",
        ("", "r of the opening", "LMD, pixels", "spread", "lag, frames"),
    )
    table.add("the tracked mouth", *_cells(found, "tracked"))
    for ear in ears:
        table.add(f"{ear}, no limit", *_cells(found, _key(ear, None)))
        for limit in reversed(limits):
            table.add(f"{ear}, {limit * 1e3:g} ms", *_cells(found, _key(ear, limit)))
    table.add(f"{ears[0]}, no limit, face without audio", *_cells(found, UNHEARD))
    for name, title in _CONTROLS.items():
        table.add(title, *_cells(found, name))
    report = Report("look-ahead", [table], list(dict.fromkeys(notes)), {"look_aheads": limits, "measured": found})
    return report, {
        "r of the opening": [*_curves(found, "r", ears, limits), *_levels(found, "r", ears[0], limits)],
        "LMD, pixels": [*_curves(found, "lmd", ears, limits), *_levels(found, "lmd", ears[0], limits)],
    }


def _key(ear: Ears, limit: float | None) -> str:
    return f"{ear}_unlimited" if limit is None else f"{ear}_{limit * 1e3:g}ms"


def _cells(found: Measured, name: str) -> list[str]:
    values = [found.get(f"{name}_{number}") for number in _NUMBERS]
    formats = ("{:.2f}", "{:.2f}", "{:.2f}", "{:+.0f}")
    return ["" if value is None else form.format(value) for form, value in zip(formats, values, strict=True)]


def _curves(found: Measured, number: str, ears: Sequence[Ears], limits: Sequence[float]) -> list[Curve]:
    return [
        Curve(ear, [x * 1e3 for x in limits], [found.get(f"{_key(ear, x)}_{number}", math.nan) for x in limits])
        for ear in ears
    ]


def _levels(found: Measured, number: str, ear: Ears, limits: Sequence[float]) -> list[Curve]:
    """What does not depend on the look-ahead, as level lines."""
    names = {_key(ear, None): f"{ear}, no limit", "tracked": "tracked"} | _CONTROLS
    ends = [limits[0] * 1e3, limits[-1] * 1e3]
    return [
        Curve(title, ends, [found[f"{name}_{number}"]] * 2, level=True)
        for name, title in names.items()
        if f"{name}_{number}" in found
    ]
