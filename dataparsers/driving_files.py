"""Reads and checks what drives the avatar frame by frame: audio windows, 3DMM, action units, landmarks.

It must not know cameras, pictures or nerfstudio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.audio.features import read_vectors, read_windows
from degstalk_ns.audio.windows import VECTORS_PER_SECOND
from degstalk_ns.dataparsers.layout import Layout, remedy
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.transforms import FrameTable
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.landmarks.ibug68 import NUM_POINTS_68, eye_opening, lip_opening
from degstalk_ns.reading.access import refuse_unreadable
from degstalk_ns.reading.arrays import read_npz
from degstalk_ns.reading.tensors import read_plain

Float32 = NDArray[np.float32]


AUDIO_PREFERENCE: Final[tuple[str, ...]] = ("mel", "hu", "ds")
"""Order in which ``audio="auto"`` looks for features."""
PHONETIC: Final[str] = "whisper-base"
"""The features that new audio moves the mouth by."""


def read_audio_windows(layout: Layout, audio: str, notes: list[str]) -> tuple[str, Float32]:
    """The features' name and their windows [T, L, C]; ``notes`` gets a line where "auto" had a choice."""
    names = AUDIO_PREFERENCE if audio == "auto" else (audio,)
    present = [name for name in names if layout.audio_features(name).exists()]
    name = present[0] if present else None
    if len(present) > 1:
        unused = ", ".join(f"aud_{other}.npy" for other in present[1:])
        notes.append(f"aud_{name}.npy drives the mouth; {unused} is there too: choose with the dataparser's --audio")
    if name is None:
        if (layout.root / "aud.npy").exists():
            raise UserError(
                f"{layout.root / 'aud.npy'}: features are read from aud_<name>.npy; call the file aud_ds.npy if it "
                f"holds DeepSpeech's [T, 16, 29], or let `degstalk process --complete {layout.root}` do so"
            )
        there = sorted(path.stem.removeprefix("aud_") for path in layout.root.glob("aud_*.npy"))
        raise UserError(
            f"{' or '.join(str(layout.audio_features(name)) for name in names)}: missing"
            f"{', but there is audio ' + ', '.join(there) if there else ''}; {remedy(layout.root)}"
        )
    return name, read_windows(layout.audio_features(name))


def read_phonetic_vectors(layout: Layout, splits: Mapping[str, FrameTable]) -> NDArray[np.floating] | None:
    """Vectors of Whisper's base model [V, 512], from the first frame of the video on; None where there are none."""
    path = layout.audio_features(PHONETIC)
    if not path.exists():
        return None
    vectors = read_vectors(path)
    table = next(iter(splits.values()))
    early = int(table.aud_ids[0] - table.img_ids[0]) * VECTORS_PER_SECOND // int(FRAME_RATE)
    if early >= 0:
        return vectors[early:]
    return np.concatenate([vectors[:1].repeat(-early, 0), vectors])


def on_video_clock(
    windows: Float32,
    splits: dict[str, FrameTable],
    path: Path,
    notes: list[str],
) -> Float32:
    """Audio windows such that row i belongs to frame i; afterwards ``aud_ids`` of both tables equal ``img_ids``.

    Usually they do already. A dataset may start its audio a constant number of frames early or late.
    """
    img_ids = np.concatenate([table.img_ids for table in splits.values()])
    shifts = np.concatenate([table.aud_ids for table in splits.values()]) - img_ids
    shift = int(shifts[0])
    if (shifts != shift).any():
        raise UserError(
            f'{path.parent / "transforms_train.json"}: "aud_id" minus "img_id" must be the same for all frames, got '
            f"{int(shifts.min())} to {int(shifts.max())}"
        )
    if shift == 0:
        return windows
    notes.append(f"audio starts {shift} frames before the video" if shift > 0 else f"audio starts {-shift} frames late")
    for name, table in splits.items():
        splits[name] = FrameTable(table.img_ids, table.img_ids.copy(), table.c2w)
    if shift > 0:
        return windows[shift:]
    return np.concatenate([np.zeros_like(windows[:1]).repeat(-shift, 0), windows])


def common_length(lengths: Mapping[str, int], options: ReadOptions, root: Path, notes: list[str]) -> int:
    shortest, longest = min(lengths, key=lambda k: lengths[k]), max(lengths, key=lambda k: lengths[k])
    if lengths[longest] - lengths[shortest] > options.length_tolerance:
        counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise UserError(
            f"{root}: lengths in frames differ by more than {options.length_tolerance}: {counts}; all must belong to "
            f"one recording at 25 fps; {remedy(root)}"
        )
    if lengths[longest] != lengths[shortest]:
        trimmed = ", ".join(f"{name} ({count})" for name, count in lengths.items() if count != lengths[shortest])
        notes.append(f"trimmed to the {lengths[shortest]} frames of {shortest}: {trimmed}")
    return lengths[shortest]


_UNUSED: Final[tuple[str, ...]] = ("shape_params", "identity_params")
_FACE_MODEL_WIDTHS: Final[Mapping[str, int | None]] = {"expression_params": None, "jaw_params": 3, "eyelid_params": 2}


def read_face_model(layout: Layout, notes: list[str]) -> tuple[Path, dict[str, Float32]]:
    """The file that was read, and its arrays [T, width]. ``notes`` gets a line for what of it is not used.

    A torch file, which only another program writes, goes before the .npz file of `degstalk process`.
    """
    if layout.face_model_pt.exists():
        path = layout.face_model_pt
        content = read_plain(path, remedy(layout.root))
        if layout.face_model_npz.exists():
            notes.append(f"{path.name} drives the face; {layout.face_model_npz.name} is there too and is not read")
    elif layout.face_model_npz.exists():
        path = layout.face_model_npz
        content = read_npz(path, (*_FACE_MODEL_WIDTHS, *_UNUSED), remedy(layout.root))
    else:
        raise UserError(f"{layout.face_model_npz} or {layout.face_model_pt.name}: missing; {remedy(layout.root)}")
    unused = [key for key in _UNUSED if next(_leaves(content, key), None) is not None]
    if unused:
        notes.append(f"{path.name}: {', '.join(unused)} describe the person, not a frame, and are not used")
    arrays: dict[str, Float32] = {}
    for key, width in _FACE_MODEL_WIDTHS.items():
        parts = [np.asarray(part) for part in _leaves(content, key)]
        if not parts:
            raise UserError(f"{path}: has no {key} [T, {width or 'E'}]; {remedy(layout.root)}")
        # One array for all frames, or one a frame.
        array = parts[0] if len(parts) == 1 else np.stack(parts) if len({p.shape for p in parts}) == 1 else np.empty(0)
        if array.ndim > 2:
            array = array.reshape([n for n in array.shape if n != 1])
        elif array.ndim == 1 and len(parts) == 1:
            array = array[None]
        if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape or width not in (None, array.shape[1]):
            raise UserError(
                f"{path}: {key} is {list(array.shape)}, expected [T, {width or 'E'}]; {remedy(layout.root)}"
            )
        arrays[key] = np.ascontiguousarray(array, np.float32)
    if len({len(array) for array in arrays.values()}) != 1:
        counts = ", ".join(f"{key} {len(array)}" for key, array in arrays.items())
        raise UserError(f"{path}: its arrays differ in length ({counts}); {remedy(layout.root)}")
    return path, arrays


def expression_names(layout: Layout, width: int, notes: list[str]) -> tuple[str, ...]:
    """Names of the expression's columns; empty where the file has none, or not as many as there are columns, of which
    ``notes`` gets a line."""
    if layout.face_model_pt.exists() or not layout.face_model_npz.exists():
        return ()
    stored = read_npz(layout.face_model_npz, ("expression_names",), remedy(layout.root)).get("expression_names")
    if stored is None:
        return ()
    names = tuple(str(name) for name in np.atleast_1d(stored).reshape(-1)) if stored.dtype.kind == "U" else ()
    if len(names) == width:
        return names
    notes.append(
        f"{layout.face_model_npz.name}: {len(names)} expression_names for {width} columns of expression_params: the "
        "names are not used"
    )
    return ()


def _leaves(tree: Any, key: str) -> Iterator[Any]:
    """Every array called ``key``, however deep it is nested in mappings and lists."""
    if isinstance(tree, Mapping):
        if key in tree:
            value = tree[key]
            if hasattr(value, "detach"):
                value = value.detach().float().numpy()
            yield value
            return
        for branch in tree.values():
            yield from _leaves(branch, key)
    elif isinstance(tree, (list, tuple)):
        for branch in tree:
            yield from _leaves(branch, key)


def check_driving_finite(array: Float32, path: Path, name: str, root: Path) -> None:
    bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
    if bad.any():
        more = f" (and {int(bad.sum()) - 1} more frames)" if bad.sum() > 1 else ""
        raise UserError(
            f"{path}: {name} holds NaN or infinite values at frame {int(np.argmax(bad))}{more}; {remedy(root)}"
        )


def read_landmarks(layout: Layout, there: set[int], needed: set[int], length: int, notes: list[str]) -> Float32:
    """[T, 68, 2] pixels. Frames without a file (dropped by the scripts of AD-NeRF and its successors) are interpolated
    in time, and ``notes`` gets a line with their number."""
    known = sorted(i for i in there if i < length)
    points = np.empty((len(known), NUM_POINTS_68, 2), np.float32)
    usable = np.ones(len(known), bool)
    for place, i in enumerate(known):
        path = layout.landmarks(i)
        try:
            values = np.array(path.read_text(encoding="utf-8").split(), np.float32)
        except (OSError, ValueError):
            values = np.empty(0, np.float32)
        if values.size == points[0].size and np.isfinite(values).all():
            points[place] = values.reshape(NUM_POINTS_68, 2)
        elif i in needed:
            refuse_unreadable(path)
            raise UserError(f'{path}: expected {NUM_POINTS_68} lines "x y" in pixels; {remedy(layout.root)}')
        else:
            usable[place] = False
    at = np.asarray(known)[usable]
    points = points[usable].reshape(len(at), -1)
    if len(at) == length:
        return points.reshape(length, NUM_POINTS_68, 2)
    notes.append(
        f"landmarks (.lms) of {length - len(at)} of {length} frames are missing or unreadable, none of them in the "
        "transforms: interpolated"
    )
    columns = [np.interp(np.arange(length), at, column) for column in points.T]
    return np.stack(columns, 1).astype(np.float32).reshape(length, NUM_POINTS_68, 2)


def blink(units: Mapping[str, Float32], landmarks: Float32, options: ReadOptions) -> Float32:
    if "AU45_r" in units:
        return np.clip(units["AU45_r"] / options.blink_full_scale, 0.0, 1.0).astype(np.float32)
    ratio = eye_opening(landmarks)
    # A fixed closed-eye ratio, not the recording's smallest: someone who never blinks must not seem to.
    relative = ratio / max(float(np.percentile(ratio, 90)), 1e-3)
    return np.clip((1.0 - relative) / (1.0 - options.closed_eye_ratio), 0.0, 1.0).astype(np.float32)


def mouth_opening(units: Mapping[str, Float32], landmarks: Float32) -> Float32:
    if "AU25_r" in units:
        return np.maximum(units["AU25_r"], 0.0).astype(np.float32)
    return lip_opening(landmarks).astype(np.float32)
