"""Brings driving features that another program made into a dataset (`degstalk process --import FOLDER`): the
coefficients of a face model (SMIRK's `3dmm.pt`), action units (OpenFace's `au.csv`), audio features.

What a dataset derives from them (blinks, the opening of the mouth, their parts) it derives when it is read. It must not
know how a dataset makes its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from degstalk_ns.audio.features import FEATURES, read_windows
from degstalk_ns.dataparsers.action_units import read_action_units
from degstalk_ns.dataparsers.driving_files import check_driving_finite, read_face_model
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.errors import UserError
from degstalk_ns.files import write_bytes
from degstalk_ns.preprocess.record import IMPORTED, Record

_EXPECTED: Final[str] = "expected some of 3dmm.pt, 3dmm.npz, au.csv, aud_<name>.npy"


@dataclass(frozen=True)
class DrivingFeatures:
    """Files of driving features, read and found sound.

    Attributes:
        folder: where they lie.
        lengths: number of frames that each file tells of, by its name.
        notes: what is to be known of them, one line each.
    """

    folder: Path
    lengths: dict[str, int]
    notes: tuple[str, ...]

    def check_length(self, frames: int, what: str) -> None:
        """Refuse features of another number of frames than ``frames``, which ``what`` has.

        Raises:
            UserError: as said.
        """
        tolerance = ReadOptions().length_tolerance
        for name, length in self.lengths.items():
            if abs(length - frames) > tolerance:
                raise UserError(
                    f"{self.folder / name}: tells of {length} frames, and {what} has {frames} at 25 frames/s; expected "
                    f"one row a frame, with a difference of at most {tolerance}"
                )

    def check_place(self, root: Path) -> None:
        """Refuse to bring the features into ``root`` where that would lose files of others, or have no effect.

        Raises:
            UserError: as said.
        """
        if root.exists() and root.resolve() == self.folder.resolve():
            raise UserError(f"{self.folder}: is the dataset itself; keep features to import in a folder of their own")
        record = Record.load(root)
        ours = {Layout(root).face_model_npz.name, Layout(root).action_units.name} if record is not None else set()
        ours |= set(record.facts.get(IMPORTED, [])) if record is not None else set()
        for name in self.lengths:
            if (root / name).exists() and name not in ours:
                raise UserError(f"{root / name}: is there already and was not made here; rename or remove it first")
        torch_file = Layout(root).face_model_pt
        if Layout(root).face_model_npz.name in self.lengths and torch_file.exists():
            raise UserError(f"{torch_file}: is there, and is read before a 3dmm.npz; remove it first")

    def copy_to(self, root: Path) -> list[str]:
        """Copies the files into a dataset, each whole; ours of the same names are replaced, and `degstalk process`
        leaves them from then on.

        Returns:
            Their names.

        Raises:
            UserError: they cannot be written, or :meth:`check_place`.
        """
        self.check_place(root)
        names = list(self.lengths)
        record = Record.load(root)
        if record is not None:  # before: what was copied must not be made again
            record.facts[IMPORTED] = sorted({*record.facts.get(IMPORTED, []), *names})
            record.save()
        for name in names:
            try:
                write_bytes(root / name, (self.folder / name).read_bytes())
            except OSError as error:
                raise UserError(f"{root / name}: cannot be written ({error.strerror})") from None
        return names


def read_features(folder: Path) -> DrivingFeatures:
    """Reads the driving features in ``folder``.

    Raises:
        UserError: there are none, or one cannot be read or holds what it should not; the line names the file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {_EXPECTED}")
    layout, lengths = Layout(folder), {}
    notes: list[str] = []
    if layout.face_model_pt.exists() or layout.face_model_npz.exists():
        path, arrays = read_face_model(layout, notes)
        for name, array in arrays.items():
            check_driving_finite(array, path, name, folder)
        lengths[path.name] = len(arrays["expression_params"])
    if layout.action_units.exists():
        units = read_action_units(layout, notes)
        if not units:
            raise UserError(f"{layout.action_units}: has neither AU45_r nor AU25_r; expected OpenFace's intensities")
        lengths[layout.action_units.name] = min(map(len, units.values()))
    for path in sorted(folder.glob("aud_*.npy")):
        if path.stem.removeprefix("aud_") not in FEATURES:  # those are made by `--features`
            lengths[path.name] = len(read_windows(path))
    if not lengths:
        raise UserError(f"{folder}: holds no driving features; {_EXPECTED}")
    return DrivingFeatures(folder, lengths, tuple(notes))
