"""Writers of the files of a dataset that are no plain pictures, each whole or not at all.

`degstalk process` and `degstalk sample` both write through it. It must not know how the values are made, nor which of
the two is writing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from degstalk_ns import files
from degstalk_ns.dataparsers import contact_sheet
from degstalk_ns.dataparsers.layout import Layout, train_count
from degstalk_ns.errors import UserError
from degstalk_ns.files import write_bytes
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.landmarks.blendshapes import EYELID_NAMES, JAW_NAMES, Expression


def write_transforms(layout: Layout, c2w: NDArray[np.float64], focal: float, cx: float, cy: float) -> None:
    """Writes the cameras of both splits, the training split's last: without it a dataset does not load.

    Args:
        c2w: [T, 4, 4] camera-to-world of every frame, OpenGL axes. focal, cx, cy: pixels.
    """
    split = train_count(len(c2w))
    for name, frames in (("val", range(split, len(c2w))), ("train", range(split))):
        content = {
            "focal_len": focal,
            "cx": cx,
            "cy": cy,
            "frames": [{"img_id": i, "aud_id": i, "transform_matrix": c2w[i].tolist()} for i in frames],
        }
        write_bytes(layout.transforms(name), json.dumps(content, indent=1).encode())


def write_sound(path: Path, samples: NDArray[np.float32]) -> None:
    """Writes `aud.wav` from 16 kHz mono [S] in [-1, 1], rounded to 16 bits."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    write_bytes(path, buffer.getvalue())


def write_audio_features(path: Path, features: NDArray[np.floating]) -> None:
    """Writes `aud_<name>.npy`: windows [T, L, C], or vectors [V, C]."""
    _write_npy(path, features)


def write_teeth(path: Path, teeth: NDArray[np.bool_]) -> None:
    """Writes the mask of the teeth of one frame, bool [H, W]."""
    _write_npy(path, teeth)


def _write_npy(path: Path, array: NDArray[np.generic]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())


def write_face_model(path: Path, values: Expression) -> None:
    """Writes `3dmm.npz`: the arrays of :class:`Expression` and the names of their columns."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        expression_params=values.expression_params,
        jaw_params=values.jaw_params,
        eyelid_params=values.eyelid_params,
        expression_names=np.array(values.names),
        jaw_names=np.array(JAW_NAMES),
        eyelid_names=np.array(EYELID_NAMES),
    )
    write_bytes(path, buffer.getvalue())


def write_action_units(path: Path, table: Mapping[str, NDArray[np.floating]]) -> None:
    """Writes `au.csv` from :func:`degstalk_ns.landmarks.blendshapes.au_table`."""
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


def write_contact_sheet(layout: Layout, landmarks: NDArray[np.floating], axes: NDArray[np.floating]) -> None:
    """Draws a few frames of a dataset, whose pictures and masks are there already, for a person to look at.

    Args:
        landmarks: [T, 68, 2] pixels.
        axes: [T, 4, 2] pixels, the projections of :data:`degstalk_ns.dataparsers.contact_sheet.AXES`.
    """
    rows = [
        contact_sheet.Row(
            name=f"frame {i}",
            frame=files.read_rgb(layout.frame(i)),
            parsing=files.read_rgb(layout.parsing(i)),
            teeth=np.load(layout.teeth(i)),
            landmarks=landmarks[i],
            axes=axes[i],
            torso=files.read_rgba(layout.torso(i)),
            plate=files.read_rgb(layout.plate(i)),
        )
        for i in np.linspace(0, len(landmarks) - 1, contact_sheet.SHEET_ROWS).round().astype(int).tolist()
    ]
    files.write_png(layout.contact_sheet, contact_sheet.draw(rows))
