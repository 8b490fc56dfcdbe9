"""Gaussians as .ply files: the standard layout, round trips, other conventions of up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from scipy.spatial.transform import Rotation
from test_gaussians import randomized

from degstalk_ns.avatar.gaussians import ActivatedGaussians
from degstalk_ns.avatar.splat_files import UPRIGHT, Up, load_ply, save_ply, turned
from degstalk_ns.errors import UserError
from degstalk_ns.rasterization import rasterize, spherical_harmonics


def test_ply_round_trip(tmp_path: Path) -> None:
    gaussians = randomized()
    path = tmp_path / "face.ply"
    for source in (gaussians, gaussians.deformed()):
        save_ply(path, source)
        loaded, expected = load_ply(path), gaussians.deformed()
        for name in vars(expected):
            a, b = getattr(loaded, name), getattr(expected, name)
            assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5), name
    assert [entry.name for entry in tmp_path.iterdir()] == ["face.ply"]


def test_ply_layout_is_the_standard_one(tmp_path: Path) -> None:
    gaussians = randomized()
    save_ply(tmp_path / "a.ply", gaussians)
    vertex, p = PlyData.read(str(tmp_path / "a.ply"))["vertex"], gaussians.params
    names = [prop.name for prop in vertex.properties]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[9:33] == [f"f_rest_{i}" for i in range(24)]
    assert names[33:] == ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    # Channel by channel: the green channel's third coefficient of degree >= 1 is number 8 + 2.
    np.testing.assert_array_equal(vertex["f_rest_10"], p["shN"][:, 2, 1].detach().numpy())
    np.testing.assert_array_equal(vertex["opacity"], p["opacities"].detach().numpy())
    np.testing.assert_array_equal(vertex["scale_1"], p["scales"][:, 1].detach().numpy())
    np.testing.assert_array_equal(vertex["rot_0"], p["quats"][:, 0].detach().numpy())


def test_ply_of_extreme_values_is_finite(tmp_path: Path) -> None:
    extreme = ActivatedGaussians(
        means=torch.zeros(2, 3),
        quats=torch.ones(2, 4),
        scales=torch.zeros(2, 3),
        opacities=torch.tensor([0.0, 1.0]),
        sh=torch.zeros(2, 1, 3),
    )
    save_ply(tmp_path / "a.ply", extreme)
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    assert np.isfinite(vertex["opacity"]).all() and np.isfinite(vertex["scale_0"]).all()
    assert load_ply(tmp_path / "a.ply").sh.shape == (2, 1, 3)


def test_bad_ply_files_are_one_clear_error(tmp_path: Path) -> None:
    absent, text, mesh = tmp_path / "absent.ply", tmp_path / "text.ply", tmp_path / "mesh.ply"
    text.write_text("hello")
    rows = np.zeros(3, dtype=[("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(mesh))
    for path, word in (
        (absent, "no such file"),
        (text, "not a .ply"),
        (mesh, "f_dc_0"),
        (tmp_path, "is a folder; expected a file"),
    ):
        with pytest.raises(UserError, match=word) as caught:
            load_ply(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def _image(gaussians: ActivatedGaussians, c2w: np.ndarray) -> torch.Tensor:
    """As a camera at ``c2w`` (OpenCV axes) sees them, [32, 32, 3]."""
    view = torch.from_numpy(np.linalg.inv(c2w)).float()[None]
    K = torch.tensor([[[40.0, 0, 16], [0, 40.0, 16], [0, 0, 1]]])
    colours = spherical_harmonics(2, gaussians.means, gaussians.sh, view)[0]
    parts = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, colours)
    return rasterize(*parts, view, K, 32, 32)[0][0]


def _seen_by(direction: np.ndarray) -> np.ndarray:
    """A camera one unit away in ``direction`` that looks at the origin."""
    z = -direction / np.linalg.norm(direction)
    x = np.cross(z, [0.3, 0.8, 0.5])
    x /= np.linalg.norm(x)
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = np.stack([x, np.cross(z, x), z], 1), -z
    return c2w


@pytest.mark.parametrize("rotation", [*UPRIGHT.values(), Rotation.from_euler("xyz", [0.4, -1.1, 2.0]).as_matrix()])
def test_turned_gaussians_look_the_same_to_cameras_turned_with_them(rotation: object) -> None:
    gaussians = randomized().deformed()
    scales = torch.rand(len(gaussians.means), 3, generator=torch.Generator().manual_seed(1)) * 0.08 + 0.01
    gaussians = ActivatedGaussians(gaussians.means * 2, gaussians.quats, scales, gaussians.opacities, gaussians.sh)
    matrix = np.asarray(rotation, np.float64)
    after = turned(gaussians, torch.from_numpy(matrix))
    whole = np.eye(4)
    whole[:3, :3] = matrix
    for direction in np.random.default_rng(2).normal(size=(4, 3)):
        camera = _seen_by(direction)
        before = _image(gaussians, camera)
        assert before.std() > 0.02  # something is seen
        assert torch.allclose(_image(after, whole @ camera), before, atol=2e-4)


@pytest.mark.parametrize(("up", "axis", "sign"), [("y", 1, 1), ("-y", 1, -1), ("z", 2, 1)])
def test_the_axis_that_was_asked_for_points_up(tmp_path: Path, up: Up, axis: int, sign: int) -> None:
    gaussians = randomized()
    save_ply(tmp_path / "a.ply", gaussians, up)
    loaded = load_ply(tmp_path / "a.ply")
    assert torch.allclose(sign * loaded.means[:, axis], gaussians.means[:, 1].detach(), atol=1e-6)
    assert np.linalg.det(np.array(UPRIGHT[up])) == 1
