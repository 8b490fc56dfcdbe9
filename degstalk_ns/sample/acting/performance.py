"""How the sample head acts: the state of its face and its pose in every frame, and the driving signals that tell them.

It must not know what the face looks like, nor files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.landmarks.blendshapes import BLENDSHAPES
from degstalk_ns.sample.acting.script import Script, articulation
from degstalk_ns.sample.body.surfels import NECK_PIVOT, FaceState

_Curve = NDArray[np.float64]


@dataclass(frozen=True)
class PerformanceConfig:
    """How lively the head is. Angles in radians, lengths in metres, times in seconds."""

    yaw: float = np.deg2rad(10.0)
    """Largest drift of the head to either side; pitch and roll alike."""
    pitch: float = np.deg2rad(4.0)
    roll: float = np.deg2rad(3.0)
    nod: float = np.deg2rad(2.5)
    """How far the chin goes down on a fully stressed syllable."""
    nod_seconds: float = 0.16
    """Standard deviation in time of a nod."""
    shift: tuple[float, float, float] = (0.005, 0.003, 0.004)
    """Largest drift of the neck's joint along x, y, z."""
    periods: tuple[float, float] = (3.0, 7.5)
    """Shortest and longest period of the waves that the drift is made of."""
    blink_every: tuple[float, float] = (2.0, 5.0)
    blink_closing: tuple[float, float] = (0.06, 0.08)
    blink_closed: float = 0.05
    """More than a frame, so that every blink is seen closed."""
    blink_opening: tuple[float, float] = (0.1, 0.13)
    fixation: tuple[float, float] = (0.6, 2.2)
    """How long the eyes rest on one place."""
    saccade: float = 0.05
    """Duration of a jump of the eyes."""
    gaze: tuple[float, float] = (0.16, 0.07)
    """Largest yaw and pitch of the eyes away from the camera."""
    counter_rotation: float = 0.75
    """How much of the head's turning the eyes make good: they look at the camera more than at the nose's direction."""
    smile: float = 0.45
    """Largest change of the mouth's corners."""
    brows: float = 0.55
    """How far the brows go up on a fully stressed syllable."""
    gaze_range: float = np.deg2rad(30.0)
    """Turn of an eye that counts as 1 in the blendshapes eyeLook..."""


@dataclass(frozen=True)
class Performance:
    """T frames at 25 fps.

    Attributes:
        states: T states of the face.
        room_from_head: [T, 4, 4] float32, rigid.
    """

    states: tuple[FaceState, ...]
    room_from_head: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.states)

    def values(self, name: str) -> _Curve:
        """A field of the states over time, [T] (gaze: [T, 2])."""
        return np.array([getattr(state, name) for state in self.states], np.float64)


def perform(script: Script, frames: int, seed: int, config: PerformanceConfig | None = None) -> Performance:
    """The mouth as the script asks, everything else from the seed; frame ``i`` is at ``i / 25`` s."""
    config = config or PerformanceConfig()
    times = np.arange(frames) / FRAME_RATE
    rng = [np.random.default_rng([seed, 3, k]) for k in range(6)]
    angles = _angles(script, times, rng[0], config)
    shift = np.stack([limit * _drift(times, rng[1], config) for limit in config.shift], 1)
    mouth = articulation(script, times)
    curves = {
        **mouth,
        "smile": config.smile * (0.25 + 0.75 * _drift(times, rng[2], config)) * (1 - 0.5 * mouth["rounded"]),
        "brows": 0.2 * _drift(times, rng[3], config) + config.brows * _bumps(script, times, 0.13, lead=0.08),
        "blink": _blinks(times, rng[4], config),
    }
    gaze = _gaze(times, angles, rng[5], config)
    states = tuple(
        FaceState(
            **{name: float(curve[i]) for name, curve in curves.items()}, gaze=(float(gaze[i, 0]), float(gaze[i, 1]))
        )
        for i in range(frames)
    )
    return Performance(states, _matrices(angles, shift))


def _drift(times: _Curve, rng: np.random.Generator, config: PerformanceConfig) -> _Curve:
    """A slow, smooth wander within -1..1: waves of three random periods."""
    periods = np.exp(rng.uniform(np.log(config.periods[0]), np.log(config.periods[1]), 3))
    phases = rng.uniform(0, 2 * np.pi, 3)
    weights = np.array([0.5, 0.3, 0.2])
    return np.asarray(np.sin(2 * np.pi * times[:, None] / periods + phases) @ weights)


def _bumps(script: Script, times: _Curve, width: float, lead: float = 0.0) -> _Curve:
    """0..1, near 1 at stressed syllables."""
    total = np.zeros(len(times))
    for time, stress in script.stresses():
        total = np.maximum(total, stress * np.exp(-0.5 * ((times + lead - time) / width) ** 2))
    return _smoothed(total)


def _smoothed(curve: _Curve) -> _Curve:
    """Without the corners that a maximum leaves: a mean over five frames, weighed in the middle."""
    kernel = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    return np.convolve(np.pad(curve, 2, mode="edge"), kernel, mode="valid")


def _angles(script: Script, times: _Curve, rng: np.random.Generator, config: PerformanceConfig) -> _Curve:
    """Yaw, pitch, roll [T, 3]; positive turns the face to the picture's right, up, and its crown to the left."""
    yaw, pitch, roll = (limit * _drift(times, rng, config) for limit in (config.yaw, config.pitch, config.roll))
    nods = np.zeros(len(times))
    for time, stress in script.stresses():
        nods += stress * np.exp(-0.5 * ((times - time) / config.nod_seconds) ** 2)
    # Nods that follow each other closely run into one; they never add up to a bow.
    return np.stack([yaw, pitch - config.nod * np.tanh(nods), roll], 1)


def _matrices(angles: _Curve, shift: _Curve) -> NDArray[np.float32]:
    """[T, 4, 4]: rotations about the neck's joint, then the shift."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(angles).T, np.sin(angles).T
    zero, one = np.zeros(len(angles)), np.ones(len(angles))

    def stacked(*rows: tuple[_Curve, _Curve, _Curve]) -> _Curve:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    turn = stacked((cy, zero, sy), (zero, one, zero), (-sy, zero, cy))
    nod = stacked((one, zero, zero), (zero, cp, sp), (zero, -sp, cp))  # looking up is positive
    tilt = stacked((cr, -sr, zero), (sr, cr, zero), (zero, zero, one))
    matrices = np.tile(np.eye(4), (len(angles), 1, 1))
    rotation = turn @ nod @ tilt
    pivot = np.array(NECK_PIVOT)
    matrices[:, :3, :3] = rotation
    matrices[:, :3, 3] = pivot + shift - rotation @ pivot
    return matrices.astype(np.float32)


def _ease(x: _Curve) -> _Curve:
    """0 below 0, 1 above 1, with a smooth step between."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def _blinks(times: _Curve, rng: np.random.Generator, config: PerformanceConfig) -> _Curve:
    blink = np.zeros(len(times))
    start = float(rng.uniform(0.4, 1.0)) * config.blink_every[0]
    while start < times[-1]:
        closing, opening = rng.uniform(*config.blink_closing), rng.uniform(*config.blink_opening)
        since = times - start
        shut = _ease(since / closing) * (1 - _ease((since - closing - config.blink_closed) / opening))
        blink = np.maximum(blink, shut)
        start += float(rng.uniform(*config.blink_every))
    return blink


def _gaze(times: _Curve, angles: _Curve, rng: np.random.Generator, config: PerformanceConfig) -> _Curve:
    """Yaw and pitch of the eyes in the head [T, 2]: on the camera, now and then beside it."""
    places = np.zeros((len(times), 2))
    now = np.zeros(2)
    start = float(rng.uniform(*config.fixation))
    while start < times[-1]:
        away = rng.random() < 0.55
        goal = rng.uniform(-1, 1, 2) * config.gaze if away else np.zeros(2)
        places += (goal - now) * _ease((times - start) / config.saccade)[:, None]
        now = goal
        start += float(rng.uniform(*config.fixation))
    tremor = 0.004 * np.stack([_drift(times, rng, config) for _ in range(2)], 1)
    return places - config.counter_rotation * angles[:, :2] + tremor


_SIDES: Final = ("Left", "Right")


def blendshapes(performance: Performance, config: PerformanceConfig | None = None) -> NDArray[np.float32]:
    """The states as MediaPipe's 52 blendshapes, [T, 52] in 0..1: what `degstalk process` would find in the pictures.

    "Left" is the subject's own, on the picture's right. Blendshapes that the sample's face cannot make stay 0.
    """
    config = config or PerformanceConfig()
    found = np.zeros((len(performance), len(BLENDSHAPES)))

    def put(name: str, values: _Curve) -> None:
        found[:, BLENDSHAPES.index(name)] = np.clip(values, 0.0, 1.0)

    value: Callable[[str], _Curve] = performance.values
    jaw, rounded, pressed, smile, brows = (value(name) for name in ("jaw", "rounded", "pressed", "smile", "brows"))
    yaw, pitch = (performance.values("gaze") / config.gaze_range).T
    put("jawOpen", jaw)
    put("mouthClose", jaw * pressed)
    put("mouthPucker", rounded)
    put("mouthFunnel", rounded * jaw)
    put("browInnerUp", brows)
    for side, outwards in zip(_SIDES, (1.0, -1.0), strict=True):
        put(f"mouthStretch{side}", value("spread"))
        put(f"mouthPress{side}", pressed)
        put(f"mouthSmile{side}", smile)
        put(f"mouthFrown{side}", -smile)
        put(f"browOuterUp{side}", brows)
        put(f"browDown{side}", -brows)
        put(f"eyeBlink{side}", value("blink"))
        put(f"eyeLookOut{side}", outwards * yaw)
        put(f"eyeLookIn{side}", -outwards * yaw)
        put(f"eyeLookUp{side}", pitch)
        put(f"eyeLookDown{side}", -pitch)
    return found.astype(np.float32)
