"""Checkpoints of the official code: what they compute, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from release_files import GRIDS, as_release, face_offsets, grid_features, made_avatar, mouth_offsets, stored_grids

from degstalk_ns.avatar.avatar import Avatar, Region
from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.avatar.fields.mouth import mouth_encoding
from degstalk_ns.avatar.fields.triplane import TriPlane, TriPlaneConfig
from degstalk_ns.errors import UserError
from degstalk_ns.release.checkpoint import ReleaseCheckpoint, read_checkpoint

DEGSTALK = {"embedding": 32, "expression": 50, "eyelids": 2, "jaw": 3}
TALKING_GAUSSIAN = {"embedding": 0, "expression": 5, "eyelids": 1, "jaw": 0}


def _read(path: Path, content: Any) -> ReleaseCheckpoint:
    torch.save(content, path)
    return read_checkpoint(path)


def _avatar(read: ReleaseCheckpoint) -> Avatar:
    avatar = Avatar(read.config, read.audio_channels, 16, read.expression, seed=99, eyelids=read.eyelids, jaw=read.jaw)
    avatar.load_state_dict(avatar.state_dict() | read.state)
    return avatar


@pytest.mark.parametrize("region", ["face", "mouth"])
def test_grids_are_looked_up_as_index_arithmetic_says(region: Region) -> None:
    config = TriPlaneConfig() if region == "face" else mouth_encoding()
    assert (config.coarsest, config.finest) == GRIDS[region]
    config.vertices = "instant-ngp"
    encoding = TriPlane(config)
    with torch.no_grad():
        encoding.table.normal_()
    state = stored_grids(encoding)
    edge = torch.tensor([-0.15, -0.14999, -0.1, 0.0, 0.0731, 0.14999, 0.15, 0.1500001, -0.16, 0.4])
    points = torch.cartesian_prod(edge, edge[[0, 3, 4, 6, 8]], edge[[1, 4, 5, 9]]).double()
    encoding.double()
    found, expected = encoding(points), grid_features(state, region, points)
    assert torch.allclose(found, expected, atol=1e-5)
    outside = (points.abs() > 0.15).any(1)
    assert outside.any() and (found[outside][:, :12] == 0).any()


@pytest.mark.parametrize("kind", [DEGSTALK, TALKING_GAUSSIAN], ids=["degstalk", "talking-gaussian"])
def test_what_is_read_moves_as_the_networks_of_the_file(kind: dict[str, int], tmp_path: Path) -> None:
    content = as_release(made_avatar(**kind))
    read = _read(tmp_path / "c.pth", content)
    assert (read.expression, read.eyelids, read.jaw) == (kind["expression"], kind["eyelids"], kind["jaw"])
    assert read.audio_channels == 29 and read.sh_degree == 2 and read.embedded == (kind["embedding"] > 0)
    avatar = _avatar(read).double()
    random = torch.Generator().manual_seed(3)
    audio = torch.randn(8, 29, 16, generator=random).double()
    audio[:2] = 0  # before the sound began
    expression, lids = torch.randn(kind["expression"], generator=random), torch.rand(kind["eyelids"], generator=random)
    conditions = Conditions(audio, expression.double(), lids.double(), torch.zeros(kind["jaw"]).double())
    face = avatar.region("face").deformed(avatar.face_motion(conditions).offsets)
    expected = face_offsets(content[0], content[1], audio, expression, lids)
    for name, value in expected.items():
        assert torch.allclose(getattr(face, name), value, rtol=1e-5, atol=1e-7), name
    moved = (expected["means"] - content[0][1].detach()).abs()
    assert moved.max() > 1e-3  # not of Gaussians that hardly move
    motion = avatar.mouth_motion(conditions)
    mouth = avatar.region("mouth").deformed(motion.offsets)
    means, jaw = mouth_offsets(content[2], content[3], audio)
    assert torch.allclose(mouth.means, means, rtol=1e-5, atol=1e-7)
    assert (motion.jaw is None) == (jaw is None)
    if jaw is not None:
        assert motion.jaw is not None and torch.allclose(motion.jaw, jaw, rtol=1e-4)
    assert torch.allclose(face.opacities, torch.sigmoid(content[0][7][:, 0].double()))
    assert torch.equal(face.sh, torch.cat([content[0][2], content[0][3]], 1).double())


def test_scales_that_nothing_moves_come_back() -> None:
    avatar = made_avatar()
    raw = as_release(avatar)[0][5].detach()
    assert torch.allclose(torch.nn.functional.softplus(raw), avatar.region("face").deformed().scales, rtol=1e-5)


class _Code:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/degstalk-was-here",)


def _changed(change: Callable[[list[Any]], None]) -> Callable[[], Any]:
    def make() -> Any:
        content = [list(part) if isinstance(part, tuple) else part for part in as_release(made_avatar())]
        change(content)
        return tuple(content)

    return make


def _set(part: int, entry: int | str, value: Any) -> Callable[[], Any]:
    def change(content: list[Any]) -> None:
        content[part][entry] = value

    return _changed(change)


def _nan(content: list[Any]) -> None:
    content[1]["sigma_net.net.1.weight"][0, 0] = float("nan")


def _other_grid(content: list[Any]) -> None:
    content[1]["encoder_xy.offsets"][3] += 64


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "code": (lambda: {"a": _Code()}, "holds code, (posix|nt).system"),
    "the face alone": (lambda: (*as_release(made_avatar())[:2], {}, 50_000), "the face or the mouth alone"),
    "3-D Gaussian splatting": (lambda: ((2, torch.zeros(3, 3)), 30_000), "checkpoint of 3-D Gaussian splatting"),
    "nerfstudio": (lambda: {"step": 3, "pipeline": {}}, "a checkpoint of nerfstudio"),
    "a tensor": (lambda: torch.zeros(3), "holds something else"),
    "too few entries": (_changed(lambda c: c[0].__delitem__(slice(5, None))), "have 5 entries"),
    "no Gaussian": (_set(0, 1, torch.zeros(0, 3)), "positions of its Gaussians are .0, 3."),
    "another count": (_set(2, 6, torch.zeros(7, 4)), "mouth: the rotations of its Gaussians are .7, 4."),
    "no tensor": (_set(0, 5, "scales"), "the scales of its Gaussians are str"),
    "odd harmonics": (_set(0, 3, torch.zeros(40, 6, 3)), "spherical harmonics are of degree 2 with 7"),
    "NaN in a network": (_changed(_nan), "sigma_net.net.1.weight with values that are not finite"),
    "NaN in Gaussians": (_set(2, 1, torch.full((41, 3), torch.nan)), "mouth: positions with values that are not"),
    "a network missing": (
        _changed(lambda c: c[1].pop("eye_att_net.net.0.weight")),
        "eye_att_net.net.0.weight .* missing",
    ),
    "of other widths": (_set(1, "sigma_net.net.0.weight", torch.zeros(64, 117)), "widths .* do not fit together"),
    "layers that do not meet": (
        _set(1, "sigma_net.net.1.weight", torch.zeros(64, 60)),
        "takes 60 values and is given 64",
    ),
    "a fork's network": (_set(1, "wav_net.0.weight", torch.zeros(3)), "parts that are not known: wav_net.0.weight"),
    "a fork's mouth": (_set(3, "lm_net.net.0.weight", torch.zeros(3, 3)), "parts that are not known|expected 2"),
    "another grid": (_changed(_other_grid), "encoder_xy has levels of"),
    "embeddings of another width": (_set(0, 13, torch.zeros(40, 16)), "takes 32 values .* embedding of 16"),
    "embeddings without width": (
        _set(0, 13, torch.tensor(1.0)),
        "embeddings of its Gaussians are .., expected .40, 0.",
    ),
    "sparse": (_set(1, "sigma_net.net.0.weight", torch.eye(64).to_sparse()), "expected 2"),
    "a degree below 0": (_set(0, 0, -1), "spherical harmonics are of degree -1"),
    "a degree that is none": (_set(0, 0, True), "spherical harmonics are of degree True"),
    "keys that are no names": (_set(1, 7, torch.zeros(3)), "parts that are not known: 7"),
    "other channels": (
        lambda: (*as_release(made_avatar(channels=29))[:2], *as_release(made_avatar(channels=44))[2:]),
        "hears 29 channels and the mouth 44",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, expected = REFUSED[case]
    path = tmp_path / "chkpnt.pth"
    with pytest.raises(UserError, match=expected) as refused:
        _read(path, make())
    line = str(refused.value)
    assert line.startswith(str(path)) and "chkpnt_fuse_latest.pth of a finished run" in line and "\n" not in line
    assert not Path("/tmp/degstalk-was-here").exists()


@pytest.mark.parametrize("content", [None, b"a", b"t.", b"R", b".", b"", b"PK\x03\x04 torn", b"no torch file"])
def test_files_that_are_no_torch_files_are_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "chkpnt.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="no such file" if content is None else "not readable as plain tensors"):
        read_checkpoint(path)


def test_a_torn_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    torch.save(as_release(made_avatar()), path)
    path.write_bytes(path.read_bytes()[:-5_000])
    with pytest.raises(UserError, match="not readable as plain tensors"):
        read_checkpoint(path)
