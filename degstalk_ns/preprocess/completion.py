"""Makes what a dataset of another project lacks, from its frames and its sound (`degstalk process --complete DATA`).

The datasets of ER-NeRF, SyncTalk and GaussianTalker have frames, cameras, torso images and audio features as ours, but
no masks of hair, mouth and teeth, no face model and no plates. Nothing that is there is changed; masks that lack
regions are moved to a folder beside. It must not know how any product is made.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from degstalk_ns import model_files
from degstalk_ns.console.progress import Advance, Progress
from degstalk_ns.dataparsers.action_units import read_action_units
from degstalk_ns.dataparsers.driving_files import PHONETIC, read_face_model
from degstalk_ns.dataparsers.frame import frame_size, read_picture
from degstalk_ns.dataparsers.layout import PALETTE, Layout
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.dataparsers.transforms import FrameTable, read_transforms
from degstalk_ns.errors import UserError
from degstalk_ns.files import named_write_errors, only_one, read_rgb, write_bytes, write_whole
from degstalk_ns.preprocess.config import ProcessConfig
from degstalk_ns.preprocess.pipeline import remove_parts, wants_whisper
from degstalk_ns.preprocess.products import FrameProducts
from degstalk_ns.preprocess.record import RECORD_NAME
from degstalk_ns.reading.arrays import npy_shape
from degstalk_ns.reading.json_file import read_json

NOTES_NAME: Final[str] = "complete.json"
"""File of what there is to say of a dataset."""
OLD_MASKS: Final[str] = "parsing_original"
"""Folder that masks without hair and mouth are moved to."""
_LOOKED_AT: Final[int] = 9
"""Number of masks that are looked at for the regions they have."""
_WANTED: Final[tuple[str, ...]] = ("hair", "mouth")
"""Regions that masks must show."""
_EXPECTED: Final[str] = (
    "expected a dataset of ER-NeRF, SyncTalk or GaussianTalker: transforms_train.json, transforms_val.json, ori_imgs/, "
    "and aud.wav or audio features"
)
_DEEPSPEECH: Final[tuple[int, int]] = (16, 29)
"""Window of AD-NeRF's DeepSpeech features, which some projects keep as `aud.npy`."""
_UNUSED: Final[dict[str, str]] = {
    "bs.npy": "its blendshapes are those of another tracker, for another network; ours are measured on the frames",
    "track_params.pt": "the cameras are those of the transforms",
}


@dataclass(frozen=True)
class CompletionSummary:
    """What was done.

    Attributes:
        root: folder of the dataset.
        frames: number of its frames.
        made: names of the steps that ran.
        notes: what is to be known, one line each.
    """

    root: Path
    frames: int
    made: list[str]
    notes: list[str]


def complete_dataset(
    root: Path, config: ProcessConfig | None = None, progress: Progress | None = None
) -> CompletionSummary:
    """Makes what the dataset ``root`` lacks. If it is called again, it makes what is still missing.

    Args:
        root: dataset of ER-NeRF, SyncTalk, GaussianTalker, or another successor of AD-NeRF.
        config: options of the steps; those about videos have no effect.
        progress: where the steps report to; None is silent.

    Raises:
        UserError: no such dataset, one that `degstalk process` made, files that cannot be used, or options that make
            no sense here. Nothing is made then.
    """
    config, progress, layout = config or ProcessConfig(), progress or Progress(None), Layout(root)
    count = stored_frames(root)
    camera, splits = read_transforms(layout, ReadOptions())
    width, height = _check_files(layout, count)
    vectors, told = _vectors(config)
    model_files.face_landmarker()
    model_files.selfie_segmenter()
    with named_write_errors(root), only_one(root):
        remove_parts(root)
        adopted = _adopt_audio(layout)
        notes = _Notes(root)
        notes.add(told + [f"{name} is not used: {why}" for name, why in _UNUSED.items() if (root / name).exists()])
        notes.add(_packed_poses(layout, count, splits))
        notes.add(adopted)
        notes.add(_set_masks_aside(layout, count))
        products = FrameProducts(layout, config, count, (width, height), root, vectors, _kept(layout))
        made = []
        # Each is asked for what it lacks when its turn comes: what one makes, the next may need.
        for task in _tasks(products, camera, splits):
            frames = task.lacking()
            if not frames:
                continue
            with progress.stage(task.name, task.ticks) as advance:
                notes.add(task.make(advance, frames) or [])
            made.append(task.name)
    return CompletionSummary(root, count, made, [*notes.lines, *read_recording(root).notes])


class _Task(NamedTuple):
    """Something that may be lacking."""

    name: str
    lacking: Callable[[], set[int]]
    """The frames that lack it; all of them where it is one file."""
    make: Callable[[Advance, set[int]], list[str] | None]
    ticks: int
    """Length of its progress bar."""


def _tasks(products: FrameProducts, camera: Mapping[str, float], splits: Mapping[str, FrameTable]) -> list[_Task]:
    layout, count, width, height = products.layout, products.count, products.width, products.height

    def landmarks(advance: Advance, _: set[int]) -> list[str]:
        return products.make_landmarks(advance, lacking(layout.landmarks, count))  # those of others stay

    def sheet(advance: Advance, _: set[int]) -> None:
        # A frame's own camera, or that of the next one that has any.
        ids = np.concatenate([split.img_ids for split in splits.values()])
        order = np.argsort(ids)
        places = np.searchsorted(ids[order], np.arange(count)).clip(max=len(ids) - 1)
        c2w = np.concatenate([split.c2w for split in splits.values()])[order][places]
        products.make_sheet(
            advance, c2w, (camera["focal_len"], camera.get("cx", width / 2), camera.get("cy", height / 2))
        )

    every = set(range(count))

    def unless(*paths: Path) -> set[int]:
        """No frame where all ``paths`` are there, else all."""
        return set() if all(path.exists() for path in paths) else every

    def features() -> set[int]:
        return unless(*map(layout.audio_features, ("mel", *products.vectors))) if layout.audio.exists() else set()

    return [
        _Task("landmarks", lambda: lacking(layout.landmarks, count) | unless(products.landmark_file), landmarks, count),
        _Task("head poses", lambda: unless(products.pose_file), products.make_poses, 2 * count),
        _Task("expression", lambda: unless(*products.face_signal_files()), products.make_expression, 1),
        _Task("masks", lambda: lacking(layout.parsing, count), products.make_parsing, count),
        _Task("teeth", lambda: lacking(layout.teeth, count), products.make_teeth, count),
        _Task("plates", lambda: lacking(layout.plate, count) | unless(layout.clean_plate), products.make_plates, count),
        _Task("audio features", features, products.make_features, 1),
        _Task("contact sheet", lambda: unless(layout.contact_sheet), sheet, 1),
    ]


class _Notes:
    """What is to be known of a dataset; kept beside it, for what was said in a call that was interrupted."""

    def __init__(self, root: Path) -> None:
        self._path = root / NOTES_NAME
        self.lines: list[str] = []
        if self._path.exists():
            content = read_json(self._path, "remove it")
            self.lines = [str(line) for line in content] if isinstance(content, list) else []

    def add(self, lines: Sequence[str]) -> None:
        new = [line for line in lines if line not in self.lines]
        if new:
            self.lines += new
            write_bytes(self._path, (json.dumps(self.lines, indent=1) + "\n").encode())


def _vectors(config: ProcessConfig) -> tuple[tuple[str, ...], list[str]]:
    """Names of the vectors to make beside log-mel windows, and what is to be said of them.

    Raises:
        UserError: some were asked for that cannot be had, or an option was given that means nothing here.
    """
    if config.overwrite or config.only != "all":
        raise UserError("--complete makes what is missing; --overwrite and --only have no meaning with it")
    whisper, told = wants_whisper(config, None)
    return tuple(dict.fromkeys([*[PHONETIC] * whisper, *config.features])), told


def _check_files(layout: Layout, count: int) -> tuple[int, int]:
    """Width and height of the frames, after what others made has been looked at.

    Raises:
        UserError: a file that cannot be read or is of another size than the frames, no sound at all, or a folder that
            cannot be written to.
    """
    root = layout.root
    if not os.access(root, os.W_OK):
        raise UserError(f"{root}: cannot be written to; change its permissions")
    if not layout.audio.exists() and not any(root.glob("aud*.npy")):
        raise UserError(f"{layout.audio}: missing, and no audio features either; add the sound of the video")
    height, width = frame_size(layout, 0)
    for i in sorted({0, count // 2, count - 1}):
        for path, channels in ((layout.frame(i), 3), (layout.parsing(i), 3), (layout.torso(i), 4)):
            if path.exists():
                read_picture(path, channels, (height, width), root)
    if layout.clean_plate.exists():
        read_picture(layout.clean_plate, 3, (height, width), root)
    read_action_units(layout, [])
    if layout.face_model_pt.exists() or layout.face_model_npz.exists():
        read_face_model(layout, [])
    return width, height


def lacking(path_of: Callable[[int], Path], count: int) -> set[int]:
    """The frames that have no file ``path_of``."""
    folder = path_of(0).parent
    names = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    return {i for i in range(count) if path_of(i).name not in names}


def stored_frames(root: Path) -> int:
    """Number of the frames of another project's dataset, which must be numbered from 0 on without a gap.

    Raises:
        UserError: no such dataset.
    """
    layout = Layout(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such dataset folder; {_EXPECTED}")
    if (root / RECORD_NAME).exists():
        raise UserError(
            f"{root}: was made by `degstalk process`; run that again with its video to make what is missing"
        )
    if not layout.transforms("train").exists():
        raise UserError(f"{layout.transforms('train')}: missing; {_EXPECTED}")
    example = layout.frame(0)
    names = [path.stem for path in example.parent.glob(f"*{example.suffix}")]
    numbers = sorted(int(name) for name in names if name.isascii() and name.isdigit())
    if not numbers:
        raise UserError(f"{example.parent}: holds no frame; {_EXPECTED}")
    if numbers[0] != 0 or numbers[-1] != len(numbers) - 1:
        first = next((i for i, number in enumerate(numbers) if i != number), 0)
        raise UserError(
            f"{layout.frame(first)}: missing; expected frames numbered from 0 to {numbers[-1]} without a gap"
        )
    return len(numbers)


def _packed_poses(layout: Layout, count: int, splits: Mapping[str, FrameTable]) -> list[str]:
    """A line where cameras may belong to other frames: most scripts number the cameras of the frames with landmarks
    from 0 on, whatever frames those are."""
    without = lacking(layout.landmarks, count)
    numbers = np.sort(np.concatenate([table.img_ids for table in splits.values()]))
    if not without or len(numbers) == count or (numbers != np.arange(len(numbers))).any():
        return []
    return [
        f"{len(without)} frames had no landmarks, the first {min(without)}, and there are {count - len(numbers)} "
        "cameras fewer than frames: from there on they may belong to other frames; look at the contact sheet"
    ]


def _kept(layout: Layout) -> frozenset[str]:
    """Names of files and folders of which nothing that is there is to be written, for it is another program's."""
    kept = {path.name for path in (layout.action_units, *layout.root.glob("aud_*.npy")) if path.exists()}
    if layout.face_model_pt.exists() or layout.face_model_npz.exists():
        kept.add(layout.face_model_npz.name)
    return frozenset(kept | {layout.torso(0).parent.name, layout.teeth(0).parent.name})


def _adopt_audio(layout: Layout) -> list[str]:
    """Gives DeepSpeech features that are called `aud.npy` the name that they have here."""
    path, name = layout.root / "aud.npy", layout.audio_features("ds")
    if not path.exists() or name.exists():
        return []
    shape = npy_shape(path, "audio features", "remove it")
    if len(shape) != 3 or shape[1:] != _DEEPSPEECH:
        return [
            f"aud.npy is not used: it holds {list(shape)}, and DeepSpeech's features are [T, 16, 29]; to train "
            "on it, rename it aud_NAME.npy and give --audio NAME"
        ]
    write_whole(name, lambda part: shutil.copyfile(path, part))
    return [f"aud.npy was copied to {name.name}"]


def _set_masks_aside(layout: Layout, count: int) -> list[str]:
    """Moves masks that lack hair or the mouth to a folder beside them."""
    folder, aside = layout.parsing(0).parent, layout.root / OLD_MASKS
    there = sorted(set(range(count)) - lacking(layout.parsing, count))
    if aside.exists() or not there:
        return []
    seen: set[tuple[int, ...]] = set()
    for i in np.unique(np.linspace(0, len(there) - 1, _LOOKED_AT).round().astype(int)):
        seen |= {
            tuple(colour) for colour in np.unique(read_rgb(layout.parsing(there[i])).reshape(-1, 3), axis=0).tolist()
        }
    absent = [name for name in _WANTED if PALETTE[name] not in seen]
    if not absent:
        return []
    folder.rename(aside)
    return [f"the masks show no {' and no '.join(absent)}: they were moved to {OLD_MASKS}/, and new ones made"]
