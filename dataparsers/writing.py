"""Writers of the files of a dataset, each whole or not at all.

It must not know how the values are made, nor whether a video or the sample is being written.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.errors import UserError
from degstalk_ns.files import write_bytes
from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.landmarks.blendshapes import EXPRESSION_NAMES, EYELID_NAMES, JAW_NAMES, Expression


def write_face_model(path: Path, values: Expression) -> None:
    """Writes `3dmm.npz`: the arrays of :class:`Expression` and the names of their columns."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        expression_params=values.expression_params,
        jaw_params=values.jaw_params,
        eyelid_params=values.eyelid_params,
        expression_names=np.array(EXPRESSION_NAMES),
        jaw_names=np.array(JAW_NAMES),
        eyelid_names=np.array(EYELID_NAMES),
    )
    write_bytes(path, buffer.getvalue())


def write_action_units(path: Path, table: Mapping[str, NDArray[np.floating]]) -> None:
    """Writes `au.csv` from :func:`au_table`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    formats = [{"frame": "%d", "timestamp": "%.3f", "success": "%d"}.get(name, "%.4f") for name in table]
    for row in zip(*table.values(), strict=True):
        writer.writerow([form % value for form, value in zip(formats, row, strict=True)])
    write_bytes(path, text.getvalue().encode())


def write_lms(path: Path, points: NDArray[np.floating]) -> None:
    """Writes the 68 landmarks of one frame, "x y" per line in pixels, from mesh points [478, 2 or 3] or [68, 2]."""
    points = lm.to_68(points) if len(points) == lm.NUM_POINTS else points
    if points.shape != (len(lm.TO_68), 2) or not np.isfinite(points).all():
        raise UserError(f"{path}: expected 68 finite landmarks, found {list(points.shape)}; run the tracking again")
    write_bytes(path, "".join(f"{x:.2f} {y:.2f}\n" for x, y in points).encode())
