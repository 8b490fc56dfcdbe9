"""Poses of the sample head and looks at its surfels, for the tests of its parts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from degstalk_ns.avatar.camera import View
from degstalk_ns.rasterization import rasterize
from degstalk_ns.sample.body.bust import surface_points
from degstalk_ns.sample.body.quaternions import facing
from degstalk_ns.sample.body.scalp import head_distance
from degstalk_ns.sample.body.surfels import NECK_PIVOT, Floats, Part, Surfels

REST = np.eye(4, dtype=np.float32)
FOCAL, SIZE, DISTANCE = 768.0, 256, 1.2


def turned(axis: str, degrees: float) -> Floats:
    """The head turned about its joint: "y" shakes, "x" nods, "z" tilts."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    pose = np.eye(4)
    pose[a, a] = pose[b, b] = c
    pose[b, a], pose[a, b] = s, -s
    pose[:3, 3] = np.array(NECK_PIVOT) - pose[:3, :3] @ NECK_PIVOT
    return pose.astype(np.float32)


def seen(pieces: list[tuple[Surfels, NDArray[np.floating]]], towards: str) -> NDArray[np.float32]:
    """Labels [N, L] of surfels as the camera sees them: [SIZE, SIZE, L]."""
    axes = {
        "front": ([1, 0, 0], [0, 1, 0], [0, 0, 1]),
        "left": ([0, 0, 1], [0, 1, 0], [-1, 0, 0]),
        "right": ([0, 0, -1], [0, 1, 0], [1, 0, 0]),
        "top": ([1, 0, 0], [0, 0, -1], [0, 1, 0]),
    }[towards]
    c2w = torch.eye(4)
    c2w[:3, :3] = torch.tensor(axes, dtype=torch.float32).T
    c2w[:3, 3] = DISTANCE * c2w[:3, 2]
    view = View.from_c2w(c2w, (FOCAL, FOCAL), (SIZE / 2, SIZE / 2), (SIZE, SIZE))

    def joined(name: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([getattr(surfels, name) for surfels, _ in pieces]))

    labels = torch.from_numpy(np.concatenate([label for _, label in pieces]).astype(np.float32))
    image, _, _ = rasterize(
        *(joined(name) for name in ("means", "quats", "scales", "opacities")),
        labels,
        view.viewmat[None],
        view.K[None],
        SIZE,
        SIZE,
    )
    return np.asarray(image[0].numpy())


def plain_head() -> Surfels:
    points, normals = surface_points(head_distance, np.array([-0.1, -0.11, -0.11]), np.array([0.1, 0.12, 0.11]), 0.002)
    count = len(points)
    return Surfels(
        means=points.astype(np.float32),
        quats=facing(normals),
        scales=np.tile(np.float32([0.0013, 0.0013, 0.0003]), (count, 1)),
        normals=normals.astype(np.float32),
        albedo=np.ones((count, 3), dtype=np.float32),
        gloss=np.zeros(count, dtype=np.float32),
        opacities=np.full(count, 0.97, dtype=np.float32),
        parts=np.full(count, Part.HEAD, dtype=np.uint8),
    )
