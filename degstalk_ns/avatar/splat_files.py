"""Gaussians as .ply files of the layout that other software reads, and turned to its conventions.

It must not know nerfstudio, nor what moves Gaussians.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from scipy.spatial.transform import Rotation
from torch import Tensor

from degstalk_ns.avatar.gaussians import ActivatedGaussians, EmbeddedGaussians
from degstalk_ns.errors import UserError
from degstalk_ns.files import write_whole
from degstalk_ns.rasterization.reference import spherical_harmonics
from degstalk_ns.reading.access import refuse_unreadable

Up = Literal["-y", "y", "z"]
UPRIGHT: Final[dict[Up, tuple[tuple[float, ...], ...]]] = {
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}
"""Rotation of a head whose y points up, and which looks along z, so that another axis points up. "-y" is the convention
of 3D Gaussian splatting, whose scenes have the axes of COLMAP's cameras."""


def turned(gaussians: ActivatedGaussians, rotation: Tensor | tuple[tuple[float, ...], ...]) -> ActivatedGaussians:
    """The same Gaussians about the origin turned by ``rotation`` [3, 3]: places, axes, and the colours that they have
    from each direction."""
    matrix = torch.as_tensor(rotation, dtype=torch.float64)
    w = torch.from_numpy(Rotation.from_matrix(matrix.numpy()).as_quat()[[3, 0, 1, 2]])
    return ActivatedGaussians(
        means=(gaussians.means.double() @ matrix.T).to(gaussians.means),
        quats=_quaternion_product(w, gaussians.quats.double()).to(gaussians.quats),
        scales=gaussians.scales,
        opacities=gaussians.opacities,
        sh=_turned_harmonics(gaussians.sh, matrix),
    )


def _quaternion_product(first: Tensor, second: Tensor) -> Tensor:
    """wxyz [4] times wxyz [N, 4]."""
    w, v = first[0], first[1:]
    x, u = second[:, :1], second[:, 1:]
    return torch.cat([w * x - (u @ v)[:, None], w * u + x * v + torch.linalg.cross(v.expand_as(u), u)], 1)


def _turned_harmonics(sh: Tensor, matrix: Tensor) -> Tensor:
    """Coefficients [N, K, 3] that have in direction R d the value that ``sh`` has in d."""
    count = sh.shape[1]
    degree = math.isqrt(count) - 1
    random = torch.Generator().manual_seed(0)
    directions = torch.randn(4 * count, 3, generator=random, dtype=torch.float64)
    before, after = _basis(degree, directions), _basis(degree, directions @ matrix.T)
    change = torch.linalg.lstsq(after, before).solution  # exact: a rotation maps each degree onto itself
    return torch.einsum("ij,njc->nic", change, sh.double()).to(sh)


def _basis(degree: int, directions: Tensor) -> Tensor:
    """[D, K] values of the spherical harmonics in ``directions`` [D, 3]."""
    count, small = (degree + 1) ** 2, 0.1  # colours are clamped at 0, which small coefficients do not reach
    columns = []
    for index in range(count):
        coefficients = torch.zeros(len(directions), count, 3, dtype=torch.float64)
        coefficients[:, index] = small
        colours = spherical_harmonics(degree, directions, coefficients, torch.zeros(1, 3, dtype=torch.float64))
        columns.append((colours[0, :, 0] - 0.5) / small)
    return torch.stack(columns, 1)


def save_ply(path: Path | str, gaussians: EmbeddedGaussians | ActivatedGaussians, up: Up = "y") -> None:
    """Writes a .ply file in the layout that 3D Gaussian splatting viewers read, whole or not at all.

    Properties: x y z, nx ny nz (zero), f_dc_0..2, f_rest_* (channel by channel), opacity (logit), scale_0..2 (log),
    rot_0..3 (wxyz). Embeddings have no place in it.

    Args:
        path: the file; its folder must exist.
        gaussians: raw ones are written undeformed, activated ones as they stand.
        up: axis that points up in the file; the head's own is y.
    """
    if up != "y":
        gaussians = gaussians.deformed() if isinstance(gaussians, EmbeddedGaussians) else gaussians
        gaussians = turned(gaussians, UPRIGHT[up])
    raw: dict[str, Tensor]
    if isinstance(gaussians, EmbeddedGaussians):
        raw = {name: gaussians.params[name] for name in ("means", "opacities", "scales", "quats")}
        sh = gaussians.sh_coefficients
    else:
        # Opacities of exactly 0 or 1 have no finite logit.
        opacities = gaussians.opacities.clamp(1e-6, 1 - 1e-6).logit()
        raw = {"means": gaussians.means, "opacities": opacities, "scales": gaussians.scales.clamp_min(1e-30).log()}
        raw["quats"] = gaussians.quats
        sh = gaussians.sh
    n = len(raw["means"])
    columns = [
        raw["means"],
        torch.zeros_like(raw["means"]),
        sh[:, 0],
        sh[:, 1:].transpose(1, 2).reshape(n, -1),
        raw["opacities"][:, None],
        raw["scales"],
        raw["quats"],
    ]
    table = torch.cat([column.detach().cpu().float() for column in columns], dim=1).contiguous().numpy()
    rows = table.view([(name, "<f4") for name in _ply_properties(sh.shape[1])])[:, 0]
    write_whole(Path(path), lambda part: PlyData([PlyElement.describe(rows, "vertex")]).write(str(part)))


def load_ply(path: Path | str) -> ActivatedGaussians:
    """Reads the layout that :func:`save_ply` and other 3-D Gaussian splatting software write.

    Args:
        path: the file.

    Returns:
        Activated Gaussians on the CPU, float32.

    Raises:
        UserError: no such file, not a .ply, or one without the properties of Gaussians.
    """
    try:
        vertices = PlyData.read(str(path))["vertex"]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give the .ply of a Gaussian splat") from error
    except OSError as error:
        refuse_unreadable(Path(path))
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the .ply of a Gaussian splat") from error
    except (PlyParseError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a .ply with vertices ({error}); give the .ply of a Gaussian splat") from error
    present = {p.name for p in vertices.properties}
    coefficients = 1 + sum(name.startswith("f_rest_") for name in present) // 3
    wanted = [name for name in _ply_properties(coefficients) if name not in ("nx", "ny", "nz")]
    missing = [name for name in wanted if name not in present]
    if missing or math.isqrt(coefficients) ** 2 != coefficients:
        raise UserError(
            f"{path}: not a Gaussian splat: "
            + (f"properties {', '.join(missing[:5])} are missing" if missing else f"{coefficients} SH coefficients")
            + "; expected the 3-D Gaussian splatting layout"
        )
    table = torch.from_numpy(np.stack([np.asarray(vertices[name], dtype=np.float32) for name in wanted], axis=1))
    means, dc, rest, opacities, scales, quats = table.split([3, 3, 3 * (coefficients - 1), 1, 3, 4], dim=1)
    rest = rest.reshape(len(table), 3, coefficients - 1).transpose(1, 2)
    return ActivatedGaussians(
        means=means.contiguous(),
        quats=quats.contiguous(),
        scales=scales.exp(),
        opacities=opacities[:, 0].sigmoid(),
        sh=torch.cat([dc[:, None], rest], dim=1),
    )


def _ply_properties(coefficients: int) -> list[str]:
    """Names of the columns for K = ``coefficients`` spherical-harmonic coefficients."""
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(3 * (coefficients - 1))),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]
