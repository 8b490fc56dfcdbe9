"""Reads a talking-head dataset from disk: the small things once, checked; the frames one by one, when asked for.

Reads what `degstalk process` writes and what the scripts of the AD-NeRF family write (same layout, other files).
It must not know nerfstudio, the model, or how any of the files is made.
"""

from __future__ import annotations

import csv
import json
import math
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from degstalk_ns.audio.files import read_windows
from degstalk_ns.dataparsers.layout import MOUTH_LANDMARKS, PALETTE, RGB, Layout
from degstalk_ns.errors import UserError
from degstalk_ns.portrait import frame_plate, freed_plate

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

AUDIO_PREFERENCE: Final[tuple[str, ...]] = ("mel", "hu", "ds")
"""Order in which ``audio="auto"`` looks for features."""
LANDMARKS: Final[int] = 68


@dataclass(frozen=True)
class ReadOptions:
    """How a recording is read."""

    scene_scale: float = 1.0
    """Factor on the camera positions, for datasets whose unit is not about a metre (head within 0.1 of the origin)."""
    downscale: int = 1
    """Frames, masks and plates are read at 1/downscale of their size (pixels)."""
    allow_no_hair: bool = False
    """Accept masks without any hair pixel (a bald person); otherwise they are refused."""
    length_tolerance: int = 10
    """Frames by which audio, 3DMM, action units and video may differ in length; the longer are trimmed. DeepSpeech and
    HuBERT features of the family end up to some frames early or late (0.4 s at 25 fps)."""
    mask_samples: int = 9
    """How many frames, spread over the training split, have their masks looked at when a dataset is opened."""
    palette_share: float = 0.98
    """Share of a mask's pixels that must have a colour of the palette exactly."""
    lips_margin: float = 0.2
    """Margin of the lips rectangle on each side, as a fraction of the lips' width."""
    blink_full_scale: float = 2.0
    """Intensity of AU45 (0..5) that counts as closed eyes (the family clips there)."""
    closed_eye_ratio: float = 0.35
    """Eye height over width that counts as closed, relative to the person's open eyes (their 90th percentile); used
    where there is no au.csv."""


@dataclass(frozen=True)
class FrameTable:
    """The frames of one split, in order of time.

    Attributes:
        img_ids: [n] int64, number of the frame's files.
        aud_ids: [n] int64, row of the frame in the recording's driving arrays (0..T-1); in a recording that was read,
            equal to ``img_ids``.
        c2w: [n, 4, 4] float32, camera to world, OpenGL axes (x right, y up, looking down -z).
    """

    img_ids: NDArray[np.int64]
    aud_ids: NDArray[np.int64]
    c2w: Float32

    def __len__(self) -> int:
        return len(self.img_ids)


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
        expression: [T, E] float32; eyelids: [T, 2] float32; jaw: [T, 3] float32.
        blink: [T] float32, 0 (open) to 1 (closed).
        mouth_opening: [T] float32, grows with the opening: AU25 intensity, or inner-lip gap over lips' width.
        lips_rect: [T, 4] int32, rows y0 (inclusive), y1 (exclusive), columns x0, x1, in pixels, never empty.
        notes: what was adapted while reading, one line each.
        expression_names: of the E columns of ``expression``, where the dataset tells them (else empty).
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
    notes: tuple[str, ...] = ()
    expression_names: tuple[str, ...] = ()

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


FRAME_PARTS: Final[tuple[str, ...]] = ("image", "masks", "teeth", "plate")


class FrameData:
    """One frame. Each part is read from its file when it is first asked for, and kept.

    Masks are bool [H, W]. ``head`` (skin of the face, without mouth interior and hair), ``hair``, ``neck``, ``torso``,
    ``mouth`` and ``background`` are disjoint; ``teeth`` may overlap any of them.

    Every access raises :class:`~degstalk_ns.errors.UserError` where a file is missing, unreadable or of another size.
    """

    def __init__(self, recording: Recording, img_id: int) -> None:
        self.recording = recording
        self.img_id = img_id

    @property
    def _layout(self) -> Layout:
        return self.recording.layout

    @property
    def _full_size(self) -> tuple[int, int]:
        """Height and width on disk."""
        factor = self.recording.options.downscale
        return self.recording.height * factor, self.recording.width * factor

    def _shrunk(self, picture: Bytes, interpolation: int = cv2.INTER_AREA) -> Bytes:
        if self.recording.options.downscale == 1:
            return picture
        size = (self.recording.width, self.recording.height)
        return np.asarray(cv2.resize(picture, size, interpolation=interpolation), np.uint8)

    def _full_image(self) -> Bytes:
        return _read_picture(self._layout.frame(self.img_id), 3, self._full_size, self._layout.root)

    def _full_parsing(self) -> Bytes:
        return _read_picture(self._layout.parsing(self.img_id), 3, self._full_size, self._layout.root)

    def _full_mask(self, *regions: str) -> Mask:
        """Pixels of any of the palette's ``regions``, at the size on disk."""
        codes = _codes(self._full_parsing())
        return np.isin(codes, [_code(PALETTE[name]) for name in regions])

    def _full_clean(self) -> Bytes:
        return _read_picture(self._layout.clean_plate, 3, self._full_size, self._layout.root)

    def _full_torso(self) -> Bytes:
        return _read_picture(self._layout.torso(self.img_id), 4, self._full_size, self._layout.root)

    @cached_property
    def image(self) -> Bytes:
        """RGB frame, uint8 [H, W, 3]."""
        return self._shrunk(self._full_image())

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """Every region of the palette, bool [H, W] each."""
        codes = _codes(self._shrunk(self._full_parsing(), cv2.INTER_NEAREST))
        return {name: codes == _code(colour) for name, colour in PALETTE.items()}

    @property
    def head(self) -> Mask:
        return self.masks["head"]

    @property
    def hair(self) -> Mask:
        return self.masks["hair"]

    @property
    def neck(self) -> Mask:
        return self.masks["neck"]

    @property
    def torso(self) -> Mask:
        return self.masks["torso"]

    @property
    def mouth(self) -> Mask:
        return self.masks["mouth"]

    @property
    def background(self) -> Mask:
        return self.masks["background"]

    @cached_property
    def teeth(self) -> Mask:
        """bool [H, W]."""
        path = self._layout.teeth(self.img_id)
        teeth = np.squeeze(_load_npy(path, "a bool array", self._layout.root))
        if teeth.shape != self._full_size:
            raise _wrong_size(path, teeth.shape, self._full_size, self._layout.root)
        return self._shrunk((teeth != 0).astype(np.uint8), cv2.INTER_NEAREST).astype(bool)

    @cached_property
    def torso_image(self) -> Bytes:
        """RGBA torso and neck, inpainted under the head, straight alpha, uint8 [H, W, 4]."""
        return self._shrunk(self._full_torso())

    @cached_property
    def plate(self) -> Bytes:
        """What is behind the face in this frame (hair, torso, background), RGB uint8 [H, W, 3].

        From ``bg/<i>.png``; where there is none, computed as DEGSTalk's hair preservation does from the frame, its
        masks, the torso image and the clean plate.
        """
        layout = self._layout
        path = layout.plate(self.img_id)
        if path.exists():
            return self._shrunk(_read_picture(path, 3, self._full_size, layout.root))
        head_region = self._full_mask("head", "mouth")
        return self._shrunk(frame_plate(self._full_image(), head_region, self._full_torso(), self._full_clean()))

    @cached_property
    def freed_plate(self) -> Bytes:
        """The plate of this frame for a jaw that moves otherwise than it does here, RGB uint8 [H, W, 3]: see
        :func:`degstalk_ns.portrait.freed_plate`."""
        masks = (self._full_mask(*names) for names in (("head", "mouth"), ("neck",), ("hair",)))
        return self._shrunk(freed_plate(self._full_image(), *masks, self._full_torso(), self._full_clean()))


def read_frame(recording: Recording, img_id: int, what: Sequence[str] = FRAME_PARTS) -> FrameData:
    """Read the parts ``what`` (of :data:`FRAME_PARTS`, or "torso_image") of frame ``img_id`` now.

    Parts not named are read when they are first asked for.

    Raises:
        UserError: a file is missing, unreadable or of another size than the frames.
    """
    frame = FrameData(recording, int(img_id))
    for part in what:
        if part not in (*FRAME_PARTS, "torso_image"):
            raise ValueError(f"a frame has the parts {', '.join((*FRAME_PARTS, 'torso_image'))}, not {part!r}")
        getattr(frame, part)
    return frame


def read_recording(root: Path, audio: str = "auto", options: ReadOptions | None = None) -> Recording:
    """Read and check everything of a dataset but its frames.

    Args:
        root: folder of the dataset.
        audio: which ``aud_<name>.npy`` drives the mouth; "auto" takes the first of :data:`AUDIO_PREFERENCE` there is.
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
    if not root.is_dir():
        raise UserError(f"{root}: no such dataset folder; make it with `degstalk process VIDEO {root}`")
    notes: list[str] = []

    camera, splits = _read_transforms(layout, options)
    on_disk = _list_files(layout)
    _check_files(layout, splits, on_disk)
    video_length = max(on_disk["frames"]) + 1

    audio_name, windows = _read_audio(layout, audio)
    face_file, face_model = _read_face_model(layout)
    units = _read_action_units(layout)

    windows = _on_video_clock(windows, splits, video_length, options, layout.audio_features(audio_name), notes)
    lengths = {"the frames in ori_imgs/": video_length, f"aud_{audio_name}.npy": len(windows)}
    lengths[face_file.name] = len(face_model["expression_params"])
    if units:
        lengths["au.csv"] = min(map(len, units.values()))
    track_length = _common_length(lengths, options, root, notes)
    splits = {name: _trimmed(table, track_length) for name, table in splits.items()}
    for name, table in splits.items():
        if not len(table):
            raise UserError(
                f"{layout.transforms(name)}: no frame left within the {track_length} frames of "
                f"{', '.join(lengths)}; make the dataset with `degstalk process VIDEO {root}`"
            )

    windows = windows[:track_length]
    face_model = {key: value[:track_length] for key, value in face_model.items()}
    for key, value in face_model.items():
        _check_finite(value, face_file, key, root)

    height, width = _frame_size(layout, int(splits["train"].img_ids[0]))
    if height % options.downscale or width % options.downscale:
        raise UserError(f"downscale {options.downscale} does not divide the frames' size {width} x {height}")
    _check_masks(layout, splits["train"], (height, width), options)

    needed = {int(i) for table in splits.values() for i in table.img_ids}
    landmarks = _read_landmarks(layout, on_disk["landmarks"], needed, track_length)
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
        blink=_blink(units, landmarks, options)[:track_length],
        mouth_opening=_mouth_opening(units, landmarks)[:track_length],
        lips_rect=lips_rectangles(landmarks * scale, height * scale, width * scale, options.lips_margin),
        notes=tuple(notes),
        expression_names=_expression_names(layout, face_model["expression_params"].shape[1]),
    )
    for array in (*vars(recording).values(), *vars(recording.train).values(), *vars(recording.val).values()):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return recording


# --- transforms ---------------------------------------------------------------------------------------------------


def _remedy(root: Path) -> str:
    return f"make it with `degstalk process VIDEO {root}`"


def _read_transforms(layout: Layout, options: ReadOptions) -> tuple[dict[str, float], dict[str, FrameTable]]:
    """Camera (focal_len and, where given, cx and cy, full-size pixels) and the tables of "train" and "val"."""
    camera: dict[str, float] = {}
    tables: dict[str, FrameTable] = {}
    for split in ("train", "val"):
        path = layout.transforms(split)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: missing; {_remedy(layout.root)}") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not readable as JSON ({error}); {_remedy(layout.root)}") from None
        if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
            raise UserError(f'{path}: expected an object with "focal_len" and "frames"; {_remedy(layout.root)}')
        if not content["frames"]:
            raise UserError(f'{path}: "frames" is empty, expected at least one frame; {_remedy(layout.root)}')
        own = {key: _number(content[key], path, key) for key in ("focal_len", "cx", "cy") if key in content}
        if own.get("focal_len", 0.0) <= 0:
            raise UserError(f'{path}: expected a positive "focal_len" in pixels; {_remedy(layout.root)}')
        if camera and any(abs(camera.get(key, value) - value) > 1e-3 for key, value in own.items()):
            raise UserError(
                f"{path}: focal_len, cx or cy differ from those of transforms_train.json; both splits share one camera"
            )
        camera = camera or own
        tables[split] = _frame_table(content["frames"], path, options)
    return camera, tables


def _number(value: Any, path: Path, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f'{path}: "{name}" must be a finite number, got {value!r}')
    return float(value)


def _frame_table(frames: Sequence[Any], path: Path, options: ReadOptions) -> FrameTable:
    img_ids, aud_ids, poses = [], [], []
    for place, frame in enumerate(frames):
        if not isinstance(frame, dict) or "img_id" not in frame or "transform_matrix" not in frame:
            raise UserError(f'{path}: frame entry {place} needs "img_id" and "transform_matrix"')
        img_id, aud_id = frame["img_id"], frame.get("aud_id", frame["img_id"])
        for name, value in (("img_id", img_id), ("aud_id", aud_id)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UserError(f'{path}: "{name}" of frame entry {place} must be a whole number from 0, got {value!r}')
        try:
            matrix = np.asarray(frame["transform_matrix"], np.float64)
        except (TypeError, ValueError):
            matrix = np.empty(0)
        if matrix.shape == (3, 4):
            matrix = np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
        if matrix.shape != (4, 4):
            raise UserError(f'{path}: "transform_matrix" of img_id {img_id} must be 4 x 4 numbers')
        if not np.isfinite(matrix).all():
            raise UserError(f'{path}: "transform_matrix" of img_id {img_id} holds NaN or infinite values')
        rotation = matrix[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
            raise UserError(
                f'{path}: "transform_matrix" of img_id {img_id} is no rigid motion (its 3 x 3 part is no rotation)'
            )
        img_ids.append(img_id)
        aud_ids.append(aud_id)
        poses.append(matrix)
    order = np.argsort(np.asarray(img_ids), kind="stable")
    c2w = np.stack(poses)[order]
    c2w[:, :3, 3] *= options.scene_scale
    # The origin (the head) in front of an OpenGL camera has negative depth along its z axis.
    if (np.einsum("ni,ni->n", c2w[:, :3, 2], -c2w[:, :3, 3]) > 0).all():
        raise UserError(
            f"{path}: the head (the origin) lies behind every camera; expected camera-to-world matrices with OpenGL "
            "axes (looking down -z)"
        )
    return FrameTable(
        np.asarray(img_ids, np.int64)[order], np.asarray(aud_ids, np.int64)[order], c2w.astype(np.float32)
    )


def _trimmed(table: FrameTable, length: int) -> FrameTable:
    keep = (table.aud_ids < length) & (table.img_ids < length)
    return FrameTable(table.img_ids[keep], table.aud_ids[keep], table.c2w[keep])


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


def _check_files(layout: Layout, splits: Mapping[str, FrameTable], on_disk: Mapping[str, set[int]]) -> None:
    needed = {int(i) for table in splits.values() for i in table.img_ids}
    without_plate = needed - on_disk["plates"]
    for kind in ("frames", "landmarks", "parsing", "teeth", "torso"):
        # A finished plate needs no torso image.
        missing = (without_plate if kind == "torso" else needed) - on_disk[kind]
        if missing:
            more = f" (and {len(missing) - 1} more of its kind)" if len(missing) > 1 else ""
            raise UserError(
                f"{_KINDS[kind](layout, min(missing))}: missing{more}, but the transforms list the frame; "
                f"{_remedy(layout.root)}"
            )
    if without_plate and not layout.clean_plate.exists():
        raise UserError(
            f"{layout.clean_plate}: missing, needed because {layout.plate(min(without_plate))} is absent; "
            f"{_remedy(layout.root)}"
        )


def _wrong_size(path: Path, found: Sequence[int], expected: Sequence[int], root: Path) -> UserError:
    size = " x ".join(str(n) for n in reversed(list(found)[:2]))
    return UserError(
        f"{path}: is {size} pixels, expected {expected[1]} x {expected[0]} as the other frames; {_remedy(root)}"
    )


def _read_picture(path: Path, channels: int, size: tuple[int, int] | None, root: Path) -> Bytes:
    """Decode a JPEG or PNG to RGB or RGBA uint8 [H, W, channels]; ``size`` is the [H, W] it must have."""
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_remedy(root)}") from None
    # A decoder fills the missing rest of a file that was cut short with grey; its end marker tells.
    is_jpeg, is_png = encoded.startswith(b"\xff\xd8"), encoded.startswith(b"\x89PNG")
    whole = (is_jpeg and b"\xff\xd9" in encoded[-4096:]) or (is_png and b"IEND" in encoded[-64:])
    picture = None
    if whole:
        flags = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_UNCHANGED
        picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if picture is None or picture.dtype != np.uint8:
        raise UserError(f"{path}: not a readable 8-bit JPEG or PNG (cut short or damaged); {_remedy(root)}")
    if channels == 4 and (picture.ndim != 3 or picture.shape[2] != 4):
        raise UserError(f"{path}: expected an RGBA image (with an alpha channel); {_remedy(root)}")
    if size is not None and picture.shape[:2] != size:
        raise _wrong_size(path, picture.shape, size, root)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA), np.uint8)


def _frame_size(layout: Layout, img_id: int) -> tuple[int, int]:
    height, width = _read_picture(layout.frame(img_id), 3, None, layout.root).shape[:2]
    return height, width


def _code(colour: RGB) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _codes(picture: Bytes) -> NDArray[np.int32]:
    """One number a pixel, [H, W], so that a colour is one comparison."""
    wide = picture.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], np.int32)


def _check_masks(layout: Layout, train: FrameTable, size: tuple[int, int], options: ReadOptions) -> None:
    places = np.unique(np.linspace(0, len(train) - 1, min(options.mask_samples, len(train))).round().astype(int))
    looked_at = [int(train.img_ids[place]) for place in places]
    hair = 0
    for img_id in looked_at:
        path = layout.parsing(img_id)
        codes = _codes(_read_picture(path, 3, size, layout.root))
        known = np.isin(codes, [_code(colour) for colour in PALETTE.values()]).mean()
        if known < options.palette_share:
            raise UserError(
                f"{path}: {1 - known:.0%} of its pixels have no colour of the palette "
                f"({', '.join(f'{name} {colour}' for name, colour in PALETTE.items())}); {_remedy(layout.root)}"
            )
        if not (codes == _code(PALETTE["head"])).any():
            raise UserError(f"{path}: no pixel of the head, RGB {PALETTE['head']}; {_remedy(layout.root)}")
        hair += int((codes == _code(PALETTE["hair"])).sum())
    if not hair and not options.allow_no_hair:
        raise UserError(
            f"{layout.parsing(0).parent}: none of the frames looked at ({', '.join(map(str, looked_at))}) has a hair "
            f"pixel, RGB {PALETTE['hair']}, and the method keeps hair from them; {_remedy(layout.root)}, or set "
            "allow_no_hair for a bald person"
        )


# --- audio, 3DMM, action units --------------------------------------------------------------------------------------


def _load_npy(path: Path, expected: str, root: Path) -> NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {_remedy(root)}") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not readable as {expected} ({error}); {_remedy(root)}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise UserError(f"{path}: expected {expected} of numbers; {_remedy(root)}")
    return array


def _read_audio(layout: Layout, audio: str) -> tuple[str, Float32]:
    """The features' name and their windows [T, L, C]."""
    names = AUDIO_PREFERENCE if audio == "auto" else (audio,)
    name = next((name for name in names if layout.audio_features(name).exists()), None)
    if name is None:
        there = sorted(path.stem.removeprefix("aud_") for path in layout.root.glob("aud_*.npy"))
        raise UserError(
            f"{' or '.join(str(layout.audio_features(name)) for name in names)}: missing"
            f"{', but there is audio ' + ', '.join(there) if there else ''}; {_remedy(layout.root)}"
        )
    return name, np.ascontiguousarray(read_windows(layout.audio_features(name)))


def _on_video_clock(
    windows: Float32,
    splits: dict[str, FrameTable],
    video_length: int,
    options: ReadOptions,
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


def _common_length(lengths: Mapping[str, int], options: ReadOptions, root: Path, notes: list[str]) -> int:
    shortest, longest = min(lengths, key=lambda k: lengths[k]), max(lengths, key=lambda k: lengths[k])
    if lengths[longest] - lengths[shortest] > options.length_tolerance:
        counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise UserError(
            f"{root}: lengths in frames differ by more than {options.length_tolerance}: {counts}; all must belong to "
            f"one recording at 25 fps; {_remedy(root)}"
        )
    if lengths[longest] != lengths[shortest]:
        trimmed = ", ".join(f"{name} ({count})" for name, count in lengths.items() if count != lengths[shortest])
        notes.append(f"trimmed to the {lengths[shortest]} frames of {shortest}: {trimmed}")
    return lengths[shortest]


_FACE_MODEL_WIDTHS: Final[Mapping[str, int | None]] = {"expression_params": None, "jaw_params": 3, "eyelid_params": 2}


def _read_face_model(layout: Layout) -> tuple[Path, dict[str, Float32]]:
    """The file that was read, and its arrays [T, width], cut to the shortest of them."""
    if layout.face_model_npz.exists():
        path = layout.face_model_npz
        try:
            with np.load(path, allow_pickle=False) as archive:
                content: Any = {key: archive[key] for key in _FACE_MODEL_WIDTHS if key in archive.files}
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not readable as an .npz file ({error}); {_remedy(layout.root)}") from None
    elif layout.face_model_pt.exists():
        path = layout.face_model_pt
        content = _load_torch_file(path, layout.root)
    else:
        raise UserError(f"{layout.face_model_npz} or {layout.face_model_pt.name}: missing; {_remedy(layout.root)}")
    arrays: dict[str, Float32] = {}
    for key, width in _FACE_MODEL_WIDTHS.items():
        parts = [np.asarray(part) for part in _leaves(content, key)]
        if not parts:
            raise UserError(f"{path}: has no {key} [T, {width or 'E'}]; {_remedy(layout.root)}")
        # One array for all frames, or one a frame.
        array = parts[0] if len(parts) == 1 else np.stack(parts) if len({p.shape for p in parts}) == 1 else np.empty(0)
        if array.ndim > 2:
            array = array.reshape([n for n in array.shape if n != 1])
        elif array.ndim == 1 and len(parts) == 1:
            array = array[None]
        if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape or width not in (None, array.shape[1]):
            raise UserError(
                f"{path}: {key} is {list(array.shape)}, expected [T, {width or 'E'}]; {_remedy(layout.root)}"
            )
        arrays[key] = np.ascontiguousarray(array, np.float32)
    if len({len(array) for array in arrays.values()}) != 1:
        counts = ", ".join(f"{key} {len(array)}" for key, array in arrays.items())
        raise UserError(f"{path}: its arrays differ in length ({counts}); {_remedy(layout.root)}")
    return path, arrays


def _expression_names(layout: Layout, width: int) -> tuple[str, ...]:
    """Names of the expression's columns; empty where the file has none, or not as many as there are columns."""
    if not layout.face_model_npz.exists():
        return ()
    with np.load(layout.face_model_npz, allow_pickle=False) as archive:
        names = archive["expression_names"] if "expression_names" in archive.files else ()
        return tuple(str(name) for name in names) if len(names) == width else ()


def _load_torch_file(path: Path, root: Path) -> Any:
    import torch

    # Files written from numpy arrays need these types; nothing else is let in.
    allowed = [np.zeros(0).__reduce__()[0], np.ndarray, np.dtype, *(type(np.dtype(code)) for code in "fdil")]
    # Before torch 2.5 there is no such list, and arrays of numpy are refused.
    safe_globals = getattr(torch.serialization, "safe_globals", lambda _: nullcontext())
    try:
        with safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise UserError(f"{path}: not readable as plain tensors ({first_line}); {_remedy(root)}") from None


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


def _check_finite(array: Float32, path: Path, name: str, root: Path) -> None:
    bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
    if bad.any():
        more = f" (and {int(bad.sum()) - 1} more frames)" if bad.sum() > 1 else ""
        raise UserError(
            f"{path}: {name} holds NaN or infinite values at frame {int(np.argmax(bad))}{more}; {_remedy(root)}"
        )


def _read_action_units(layout: Layout) -> dict[str, Float32]:
    """AU45_r and AU25_r of an OpenFace table, [T] each and as far as they are there; empty without a table."""
    path = layout.action_units
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.reader(handle, skipinitialspace=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not readable as CSV ({error}); remove it or {_remedy(layout.root)}") from None
    header = [name.strip() for name in rows[0]] if rows else []
    units: dict[str, Float32] = {}
    for name in ("AU45_r", "AU25_r"):
        if name not in header:
            continue
        column = header.index(name)
        try:
            values = np.array([float(row[column]) for row in rows[1:] if row], np.float32)
        except (ValueError, IndexError):
            raise UserError(f"{path}: column {name} must hold one number in each row") from None
        if not len(values):
            raise UserError(f"{path}: has no rows, expected one a frame; remove it or {_remedy(layout.root)}")
        _check_finite(values, path, name, layout.root)
        units[name] = values
    return units


# --- landmarks ------------------------------------------------------------------------------------------------------


def _read_landmarks(layout: Layout, there: set[int], needed: set[int], length: int) -> Float32:
    """[T, 68, 2] pixels; frames without a file (dropped by the family's scripts) are interpolated in time."""
    known = sorted(i for i in there if i < length)
    points = np.empty((len(known), LANDMARKS, 2), np.float32)
    usable = np.ones(len(known), bool)
    for place, i in enumerate(known):
        path = layout.landmarks(i)
        try:
            values = np.array(path.read_text(encoding="utf-8").split(), np.float32)
        except (OSError, ValueError):
            values = np.empty(0, np.float32)
        if values.size == points[0].size and np.isfinite(values).all():
            points[place] = values.reshape(LANDMARKS, 2)
        elif i in needed:
            raise UserError(f'{path}: expected {LANDMARKS} lines "x y" in pixels; {_remedy(layout.root)}')
        else:
            usable[place] = False
    at = np.asarray(known)[usable]
    points = points[usable].reshape(len(at), -1)
    if len(at) == length:
        return points.reshape(length, LANDMARKS, 2)
    columns = [np.interp(np.arange(length), at, column) for column in points.T]
    return np.stack(columns, 1).astype(np.float32).reshape(length, LANDMARKS, 2)


def lips_rectangles(landmarks: Float32, height: float, width: float, margin: float) -> NDArray[np.int32]:
    """Rectangles around the lips.

    Args:
        landmarks: [T, 68, 2] x, y in pixels.
        height, width: of the frames in pixels.
        margin: on each side, as a fraction of the lips' width.

    Returns:
        [T, 4] int32 rows y0 (inclusive), y1 (exclusive), columns x0, x1: within the frame, at least one pixel large.
    """
    lips = landmarks[:, MOUTH_LANDMARKS]
    low, high = lips.min(1), lips.max(1)
    room = margin * (high[:, :1] - low[:, :1])
    limit = np.array([int(width), int(height)])
    first = np.clip(np.floor(low - room), 0, limit - 1).astype(np.int32)
    end = np.clip(np.ceil(high + room), first + 1, limit).astype(np.int32)
    return np.stack([first[:, 1], end[:, 1], first[:, 0], end[:, 0]], 1)


def _distance(landmarks: Float32, a: int, b: int) -> Float32:
    return np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=-1)


def inner_lip_opening(landmarks: Float32) -> Float32:
    """Mean gap of the inner lips (points 61/67, 62/66, 63/65) over the lips' outer width (48/54): [T], 0 is closed."""
    gap = (_distance(landmarks, 61, 67) + _distance(landmarks, 62, 66) + _distance(landmarks, 63, 65)) / 3
    return np.asarray(gap / np.maximum(_distance(landmarks, 48, 54), 1e-3), np.float32)


def eye_aspect_ratio(landmarks: Float32) -> Float32:
    """Height over width of the eyes, mean of both: [T] (Soukupova and Cech, CVWW 2016)."""
    ratios = []
    for k in (36, 42):
        heights = _distance(landmarks, k + 1, k + 5) + _distance(landmarks, k + 2, k + 4)
        ratios.append(heights / np.maximum(2 * _distance(landmarks, k, k + 3), 1e-3))
    return np.asarray(np.mean(ratios, 0), np.float32)


def _blink(units: Mapping[str, Float32], landmarks: Float32, options: ReadOptions) -> Float32:
    if "AU45_r" in units:
        return np.clip(units["AU45_r"] / options.blink_full_scale, 0.0, 1.0).astype(np.float32)
    ratio = eye_aspect_ratio(landmarks)
    # A fixed closed-eye ratio, not the recording's smallest: someone who never blinks must not seem to.
    relative = ratio / max(float(np.percentile(ratio, 90)), 1e-3)
    return np.clip((1.0 - relative) / (1.0 - options.closed_eye_ratio), 0.0, 1.0).astype(np.float32)


def _mouth_opening(units: Mapping[str, Float32], landmarks: Float32) -> Float32:
    if "AU25_r" in units:
        return np.maximum(units["AU25_r"], 0.0).astype(np.float32)
    return inner_lip_opening(landmarks)
