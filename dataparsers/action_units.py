"""Reads `au.csv`: intensities of action units, as OpenFace writes them and `degstalk process` too.

It must not know cameras, pictures or nerfstudio.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from degstalk_ns.dataparsers.driving_files import Float32, check_driving_finite
from degstalk_ns.dataparsers.layout import Layout, remedy
from degstalk_ns.errors import UserError
from degstalk_ns.reading.access import refuse_unreadable

_MEASURED: Final[Mapping[str, str]] = {"AU45_r": "blinks are", "AU25_r": "the opening of the mouth is"}
"""Columns that are always looked for, and what is measured on the landmarks where one is absent."""


def read_action_units(layout: Layout, notes: list[str], needed: Sequence[str] = ()) -> dict[str, Float32]:
    """AU45_r and AU25_r as far as they are there, and the columns that drive the face, [T] each; empty without a table.

    Args:
        layout: of the dataset.
        notes: gets a line for what is absent of the first two: the landmarks take its place, with another scale.
        needed: columns that must be there.

    Raises:
        UserError: a table that is not readable, or lacks what is needed.
    """
    path = layout.action_units
    if not path.exists():
        if needed:
            raise UserError(f"{path}: missing, and its action units are to drive the face; {remedy(layout.root)}")
        notes.append(f"no {path.name}: blinks and the opening of the mouth are measured on the 68 landmarks")
        return {}
    try:
        rows = _rows(path.read_bytes())
    except (OSError, ValueError, csv.Error) as error:
        refuse_unreadable(path)
        raise UserError(f"{path}: not readable as CSV ({error}); remove it or {remedy(layout.root)}") from None
    header = [name.strip() for name in rows[0]] if rows else []
    if "face_id" in header:
        place = header.index("face_id")
        faces = {row[place].strip() for row in rows[1:] if len(row) > place}
        if len(faces) > 1:
            raise UserError(
                f"{path}: holds rows of {len(faces)} faces (face_id {', '.join(sorted(faces)[:4])}), expected one a "
                "frame; keep those of the person"
            )
    absent = [name for name in needed if name not in header]
    if absent:
        there = ", ".join(name for name in header if name.startswith("AU") and name.endswith("_r")) or "none"
        raise UserError(
            f"{path}: has no column {', '.join(absent)}, and these action units are to drive the face (there are: "
            f"{there}); {remedy(layout.root)}, or choose others with the dataparser's --units"
        )
    for name, what in _MEASURED.items():
        if name not in header:
            notes.append(f"{path.name} has no column {name}: {what} measured on the 68 landmarks")
    wanted = [name for name in dict.fromkeys([*_MEASURED, *needed]) if name in header]
    return {name: _column(rows, header.index(name), name, path, layout.root) for name in wanted}


def _rows(content: bytes) -> list[list[str]]:
    """The table, also as spreadsheets save it: with semicolons or tabs and decimal commas, or in UTF-16."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if wide else "utf-8-sig")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    if delimiter == ",":
        return rows
    return [[cell.replace(",", ".") for cell in row] for row in rows]


def _column(rows: list[list[str]], column: int, name: str, path: Path, root: Path) -> Float32:
    try:
        values = np.array([float(row[column]) for row in rows[1:] if row], np.float32)
    except (ValueError, IndexError):
        raise UserError(f"{path}: column {name} must hold one number in each row") from None
    if not len(values):
        raise UserError(f"{path}: has no rows, expected one a frame; remove it or {remedy(root)}")
    check_driving_finite(values, path, name, root)
    return values
