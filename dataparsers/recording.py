"""Reads a talking-head dataset from disk: the small things once, checked; the frames one by one, when asked for.

Reads what `degstalk process` writes and what the scripts of the AD-NeRF family write (same layout, other files).
It must not know nerfstudio, the model, or how any of the files is made.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.audio.windows import VECTORS_PER_SECOND
from degstalk_ns.dataparsers.action_units import read_action_units
from degstalk_ns.dataparsers.driving_files import (
    PHONETIC,
    Float32,
    blink,
    check_driving_finite,
    common_length,
    expression_names,
    mouth_opening,
    on_video_clock,
    read_audio_windows,
    read_face_model,
    read_landmarks,
    read_phonetic_vectors,
)
from degstalk_ns.dataparsers.frame import check_masks, frame_size
from degstalk_ns.dataparsers.layout import Layout, remedy, require_dataset_folder
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.plausibility import doubts, length_doubts
from degstalk_ns.dataparsers.transforms import FrameTable, read_transforms, trimmed
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.landmarks.ibug68 import BELOW_NOSE_68, eye_centres, lip_opening, lips_rectangles
from degstalk_ns.landmarks.triangulation import triangulated


@dataclass(frozen=True, eq=False)
class Recording:
    """Everything of a dataset that is small. Arrays are read-only.

    The driving arrays have one row for each of the T frames of the track: row t belongs to the frame with ``img_id``
    t, and its time is t / (T - 1).

    Attributes:
        width, height: of a frame in pixels (after ``downscale``).
        focal, cx, cy: pinhole camera in pixels (after ``downscale``).
        train, val: the splits.
        audio: [T, L, C] float32, a window of L feature vectors a frame.
        audio_name: "mel", "hu", "ds" or another name of ``aud_<name>.npy``.
        phonetic: [V, 512] float16 or float32, vectors of Whisper's base model, 50 a second, from the first frame on;
            None where the dataset has none.
        expression: [T, E] float32, coefficients of a face model, or intensities (0 to 5) of action units.
        eyelids: [T, 2] float32; jaw: [T, 3] float32. Where action units drive the face, the eyelids are its
            ``lid_units``, and there is no jaw.
        blink: [T] float32, 0 (open) to 1 (closed).
        mouth_opening: [T] float32, grows with the opening: AU25 intensity, or gap of the lips over eye distance.
        places: [3, 3] float32, centre of the right eye, of the left one, and the base of the nose in world units, from
            the landmarks of the training frames.
        lips_rect: [T, 4] int32, rows y0 (inclusive), y1 (exclusive), columns x0, x1, in pixels, never empty.
        notes: what was adapted while reading, one line each.
        expression_names: of the E columns of ``expression``, where the dataset tells them (else empty); columns of
            au.csv for action units.
    """

    layout: Layout
    options: ReadOptions
    width: int
    height: int
    focal: float
    cx: float
    cy: float
    train: FrameTable
    val: FrameTable
    audio: Float32
    audio_name: str
    expression: Float32
    eyelids: Float32
    jaw: Float32
    blink: Float32
    mouth_opening: Float32
    lips_rect: NDArray[np.int32]
    places: Float32
    notes: tuple[str, ...] = ()
    expression_names: tuple[str, ...] = ()
    phonetic: NDArray[np.floating] | None = None

    @property
    def num_frames(self) -> int:
        """T, the length of the driving track in frames."""
        return len(self.audio)

    @cached_property
    def track_rows(self) -> dict[int, int]:
        """Row in the driving arrays of each ``img_id`` of both splits."""
        tables = (self.train, self.val)
        return {
            img: row
            for table in tables
            for img, row in zip(table.img_ids.tolist(), table.aud_ids.tolist(), strict=True)
        }

    def time_of(self, aud_id: int) -> float:
        """Time in [0, 1] of a row of the driving arrays."""
        return aud_id / max(self.num_frames - 1, 1)

    def __deepcopy__(self, memo: dict[int, Any]) -> Recording:
        # nerfstudio copies a dataset's metadata; nothing in here ever changes.
        return self


def read_recording(root: Path | str, audio: str = "auto", options: ReadOptions | None = None) -> Recording:
    """Read and check everything of a dataset but its frames.

    Args:
        root: folder of the dataset.
        audio: which ``aud_<name>.npy`` drives the mouth; "auto" takes the first that exists of
            :data:`~degstalk_ns.dataparsers.driving_files.AUDIO_PREFERENCE`.
        options: defaults where None.

    Raises:
        UserError: anything missing, mismatched or invalid; the line names the file, what was expected, what to do.
    """
    options = options or ReadOptions()
    root = Path(root)
    layout = Layout(root)
    if options.downscale < 1:
        raise UserError(f"downscale must be 1 or more, got {options.downscale}")
    if not (math.isfinite(options.scene_scale) and options.scene_scale > 0):
        raise UserError(f"scene_scale must be a positive number, got {options.scene_scale}")
    require_dataset_folder(root)
    notes: list[str] = []

    camera, splits = read_transforms(layout, options)
    on_disk = _list_files(layout)
    _check_files(layout, splits, on_disk, notes)
    video_length = max(on_disk["frames"]) + 1
    notes += length_doubts(layout.audio, video_length)

    audio_name, windows = read_audio_windows(layout, audio, notes)
    phonetic = read_phonetic_vectors(layout, splits)
    units = read_action_units(layout, notes, _driving_units(options))
    face_file, face_model = _face_signals(layout, units, options, notes)

    windows = on_video_clock(windows, splits, layout.audio_features(audio_name), notes)
    lengths = {"the frames in ori_imgs/": video_length, f"aud_{audio_name}.npy": len(windows)}
    if phonetic is not None:
        lengths[f"aud_{PHONETIC}.npy"] = len(phonetic) * int(FRAME_RATE) // VECTORS_PER_SECOND
    lengths[face_file.name] = len(face_model["expression_params"])
    if units:
        lengths["au.csv"] = min(map(len, units.values()))
    track_length = common_length(lengths, options, root, notes)
    splits = {name: trimmed(table, track_length) for name, table in splits.items()}
    for name, table in splits.items():
        if not len(table):
            raise UserError(
                f"{layout.transforms(name)}: no frame left within the {track_length} frames of "
                f"{', '.join(lengths)}; make the dataset with `degstalk process VIDEO {root}`"
            )

    windows = windows[:track_length]
    face_model = {key: value[:track_length] for key, value in face_model.items()}
    for key, value in face_model.items():
        check_driving_finite(value, face_file, key, root)

    height, width = frame_size(layout, int(splits["train"].img_ids[0]))
    if height % options.downscale or width % options.downscale:
        raise UserError(f"downscale {options.downscale} does not divide the frames' size {width} x {height}")

    needed = {int(i) for table in splits.values() for i in table.img_ids}
    landmarks = read_landmarks(layout, on_disk["landmarks"], needed, track_length, notes)
    check_masks(layout, splits["train"], (height, width), options, landmarks)
    opened = lip_opening(landmarks[:track_length]).astype(np.float32)
    signals = np.concatenate([face_model["expression_params"], face_model["jaw_params"]], 1)
    lips_are_driven = options.signals == "expression"  # action units of the upper face say nothing of them
    notes += doubts(opened, signals if lips_are_driven else signals[:, :0], windows)
    names = options.units
    if options.signals == "expression":
        names = expression_names(layout, face_model["expression_params"].shape[1], notes)
    scale = 1.0 / options.downscale
    recording = Recording(
        layout=layout,
        options=options,
        width=width // options.downscale,
        height=height // options.downscale,
        focal=camera["focal_len"] * scale,
        cx=camera.get("cx", width / 2) * scale,
        cy=camera.get("cy", height / 2) * scale,
        train=splits["train"],
        val=splits["val"],
        audio=windows,
        audio_name=audio_name,
        expression=face_model["expression_params"],
        eyelids=face_model["eyelid_params"],
        jaw=face_model["jaw_params"],
        blink=blink(units, landmarks, options)[:track_length],
        mouth_opening=mouth_opening(units, landmarks)[:track_length],
        lips_rect=lips_rectangles(landmarks * scale, height * scale, width * scale, options.lips_margin),
        places=_places(landmarks, splits["train"], camera, (height, width)),
        notes=tuple(notes),
        expression_names=names,
        phonetic=phonetic,
    )
    for array in (*vars(recording).values(), *vars(recording.train).values(), *vars(recording.val).values()):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return recording


def _face_signals(
    layout: Layout, units: Mapping[str, Float32], options: ReadOptions, notes: list[str]
) -> tuple[Path, dict[str, Float32]]:
    """The file of what drives the face beside the sound, and its arrays [T, width]."""
    if options.signals == "expression":
        return read_face_model(layout, notes)
    if not options.units:
        raise UserError("no action units to drive the face: name columns of au.csv with the dataparser's --units")
    full = {"AU45_r": options.blink_full_scale}
    columns = {name: np.clip(units[name], 0.0, full.get(name)) for name in options.lid_units}
    length = len(units[options.units[0]])
    return layout.action_units, {
        "expression_params": np.stack([units[name] for name in options.units], 1),
        "eyelid_params": np.stack(list(columns.values()), 1) if columns else np.zeros((length, 0), np.float32),
        "jaw_params": np.zeros((length, 0), np.float32),
    }


def _driving_units(options: ReadOptions) -> tuple[str, ...]:
    """Columns of au.csv that drive the face."""
    return (*options.units, *options.lid_units) if options.signals == "action-units" else ()


def _places(landmarks: Float32, train: FrameTable, camera: Mapping[str, float], size: tuple[int, int]) -> Float32:
    points = landmarks[train.aud_ids].astype(np.float64)
    points = np.stack([*eye_centres(points), points[:, BELOW_NOSE_68]], axis=1)
    centre = camera.get("cx", size[1] / 2), camera.get("cy", size[0] / 2)
    seen, before = np.ones(points.shape[:2], bool), np.zeros((points.shape[1], 3))
    return triangulated(points, seen, train.c2w, camera["focal_len"], centre, before).astype(np.float32)


# --- files of the frames --------------------------------------------------------------------------------------------

_KINDS: Final[Mapping[str, Callable[[Layout, int], Path]]] = {
    "frames": Layout.frame,
    "landmarks": Layout.landmarks,
    "parsing": Layout.parsing,
    "teeth": Layout.teeth,
    "torso": Layout.torso,
    "plates": Layout.plate,
}


def _list_files(layout: Layout) -> dict[str, set[int]]:
    """Numbers of the files of each kind: one listing a folder, because a dataset has tens of thousands of files."""
    listings: dict[Path, set[str]] = {}
    numbers: dict[str, set[int]] = {}
    for kind, path_of in _KINDS.items():
        example = path_of(layout, 0)
        folder, suffix = example.parent, example.suffix
        if folder not in listings:
            try:
                with os.scandir(folder) as entries:
                    listings[folder] = {entry.name for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                listings[folder] = set()
        stems = (name[: -len(suffix)] for name in listings[folder] if name.endswith(suffix))
        numbers[kind] = {int(stem) for stem in stems if stem.isascii() and stem.isdigit()}
    return numbers


def _check_files(
    layout: Layout, splits: Mapping[str, FrameTable], on_disk: Mapping[str, set[int]], notes: list[str]
) -> None:
    """Refuse a dataset that lacks files of its frames; ``notes`` gets a line where finished plates are absent."""
    needed = {int(i) for table in splits.values() for i in table.img_ids}
    without_plate = needed - on_disk["plates"]
    for kind in ("frames", "landmarks", "parsing", "teeth", "torso"):
        # A finished plate needs no torso image.
        missing = (without_plate if kind == "torso" else needed) - on_disk[kind]
        if missing:
            more = f" (and {len(missing) - 1} more of its kind)" if len(missing) > 1 else ""
            raise UserError(
                f"{_KINDS[kind](layout, min(missing))}: missing{more}, but the transforms list the frame; "
                f"{remedy(layout.root)}"
            )
    if without_plate and not layout.clean_plate.exists():
        raise UserError(
            f"{layout.clean_plate}: missing, needed because {layout.plate(min(without_plate))} is absent; "
            f"{remedy(layout.root)}"
        )
    if without_plate:
        notes.append(
            f"bg/<i>.png is absent for {len(without_plate)} of {len(needed)} frames: their plates are made from "
            "torso_imgs and bc.jpg each time they are read, which takes longer"
        )
