"""How far brows are raised, told by the picture: the dark band of a brow is found in every frame's profile of the face.

The mesh of a tracker follows brows only in part, and not at all where one is raised far (measured on a recording with
strong expressions: one brow up by 13 mm, and its points on the mesh by 1 mm). Profiles in, heights out. It must know
neither images nor poses nor files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.landmarks import mesh478 as lm

_FloatArray = NDArray[np.float64]
_Profiles = NDArray[np.float32]

BROW_NAMES: Final[tuple[str, ...]] = ("browRightMiddle", "browRightInner", "browLeftMiddle", "browLeftInner")
"""The points that are followed. The outer ends are not: they are under hair more often than not."""
BROW_POINTS: Final[tuple[int, ...]] = (lm.RIGHT_BROW[2], lm.RIGHT_BROW[4], lm.LEFT_BROW[2], lm.LEFT_BROW[0])
"""Their landmarks."""

EVEN: Final[float] = 1e-2
"""Length of a piece of a profile, about its mean, below which it counts as even skin that looks like nothing."""


@dataclass(frozen=True)
class BrowConfig:
    """Options of how brows are followed. Values without an origin were chosen for this project on talking-head
    videos."""

    half_height: float = 0.010
    """Half the height of the piece of a profile that is matched, in metres."""
    up: float = 0.022
    """Maximum distance by which a brow is looked for above its usual place, in metres."""
    down: float = 0.011
    """Maximum distance by which it is looked for below; further down are the lashes, which look alike."""
    move_cost: float = 20.0
    """Likeness (correlation, at most 1) that a metre of movement between two frames costs: 0.02 for a millimetre."""
    rounds: int = 4
    """Number of times that the usual look of a brow is averaged and looked for in every frame."""
    least_likeness: float = 0.85
    """Minimum of the median correlation with the usual look. Below it the brow is hidden or too faint, and is not
    measured."""
    least_movement: float = 0.5
    """Minimum spread of the measured heights, as a multiple of that of the mesh. Below it something else was followed
    that does not move, such as the rim of glasses, and the brow is not measured."""


def brow_heights(
    profiles: NDArray[np.floating],
    rows: _FloatArray,
    mesh: _FloatArray,
    texel: float,
    config: BrowConfig | None = None,
) -> _FloatArray:
    """How far each point of the brows is raised in every frame.

    Args:
        profiles: [T, B, R] logarithm of the brightness along the face, from the forehead down, through each point; NaN
            in frames without a face.
        rows: [B] row of each point in its profile where the brow usually is.
        mesh: [T, B] heights that a tracker tells, metres; to begin with.
        texel: metres from row to row.
        config: options; defaults where None.

    Returns:
        [T, B] metres above the median frame; a column of NaN where the picture does not show the brow.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    config = config or BrowConfig()
    T, B, _ = profiles.shape
    if rows.shape != (B,) or mesh.shape != (T, B):
        raise ValueError(f"expected rows [{B}] and heights [{T}, {B}], got {list(rows.shape)} and {list(mesh.shape)}")
    heights = np.full((T, B), np.nan)
    for b in range(B):
        known = np.isfinite(profiles[:, b]).all(axis=1)
        if known.sum() > 2:
            own = mesh[:, b] - np.median(mesh[known, b])
            found, likeness = _followed(np.asarray(profiles[:, b], np.float32), known, rows[b], own, texel, config)
            still = found[known].std() < config.least_movement * own[known].std()
            if np.median(likeness[known]) >= config.least_likeness and not still:
                heights[:, b] = found - np.median(found[known])
    return heights


def not_followed(heights: _FloatArray) -> tuple[str, ...]:
    """What a user should know of heights [T, 4] in the order of :data:`BROW_NAMES`: which the picture did not show."""
    missing = [name for name, column in zip(BROW_NAMES, heights.T, strict=True) if np.isnan(column).any()]
    if not missing:
        return ()
    return (
        f"{' and '.join(missing)}: hidden, too faint or behind glasses, so not followed in the picture; how far a brow "
        "is raised there comes from the tracker's mesh, which is less exact",
    )


def _followed(
    profile: _Profiles, known: NDArray[np.bool_], row: float, start: _FloatArray, texel: float, config: BrowConfig
) -> tuple[_FloatArray, _FloatArray]:
    """[T] heights in metres above ``row``, and [T] correlations there."""
    half, up, down = (max(round(length / texel), 1) for length in (config.half_height, config.up, config.down))
    margin = half + max(up, down)
    padded = np.pad(np.where(known[:, None], profile, np.float32(0)), ((0, 0), (margin, margin)), mode="edge")
    pieces = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=1)  # piece r is around row r - margin
    middle = round(row) + margin - half
    first = np.clip(middle - up, 0, pieces.shape[1] - 1)
    pieces = _normalised(pieces[:, first : middle + down + 1])  # from the highest place to the lowest
    usual = middle - first  # index of the usual place
    last = pieces.shape[1] - 1
    at = np.clip(np.rint(usual - start / texel).astype(int), 0, last)
    frames = np.arange(len(profile))
    for _ in range(config.rounds):
        look = _normalised(np.median(pieces[frames, at][known], axis=0))
        likeness = np.where(known[:, None], pieces @ look, 0.0).astype(np.float64)
        at = _path(likeness, config.move_cost * texel)
    between = np.zeros(len(profile))
    inner = (at > 0) & (at < last)
    a, b, c = (likeness[frames[inner], at[inner] + step] for step in (-1, 0, 1))
    curve = a - 2 * b + c
    between[inner] = np.clip(np.where(curve < 0, 0.5 * (a - c) / np.where(curve < 0, curve, -1.0), 0.0), -0.5, 0.5)
    return (usual - at - between) * texel, likeness[frames, at]


def _normalised(pieces: _Profiles) -> _Profiles:
    """Pieces [..., n] without their mean, of length 1; nearly even ones stay near zero."""
    away = pieces - pieces.mean(axis=-1, keepdims=True)
    away /= np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), EVEN)
    return away


def _path(likeness: _FloatArray, cost: float) -> NDArray[np.intp]:
    """[T] the places with the most likeness [T, S] in all, less ``cost`` for each place that is moved (Viterbi)."""
    T, S = likeness.shape
    places = np.arange(S)
    moving = cost * np.abs(places[:, None] - places)
    came = np.zeros((T, S), dtype=np.intp)
    total = likeness[0]
    for t in range(1, T):
        ways = total[:, None] - moving
        came[t] = ways.argmax(axis=0)
        total = ways[came[t], places] + likeness[t]
    path = np.zeros(T, dtype=np.intp)
    path[-1] = total.argmax()
    for t in range(T - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return path
