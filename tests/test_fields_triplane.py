"""Tri-plane encoding: resolutions, lookup against index arithmetic, gradients."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from degstalk_ns.avatar.fields import triplane
from degstalk_ns.avatar.fields.mouth import mouth_encoding
from degstalk_ns.avatar.fields.triplane import TriPlane, TriPlaneConfig, lookup
from degstalk_ns.errors import UserError

FACE_CELLS = [16, 18, 19, 21, 22, 24, 26, 28, 31, 33, 36, 39]
MOUTH_CELLS = [64, 64, 63, 63, 62, 62, 61, 60, 60, 59, 59, 58]


def small(backend: Literal["auto", "torch"] = "torch") -> TriPlaneConfig:
    return TriPlaneConfig(levels=3, coarsest=2, finest=5, backend=backend)


def points(n: int, bound: float = 0.14, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 3, generator=random, dtype=torch.float64) * 2 - 1) * bound


def by_hand(unit: Tensor, table: Tensor, cells: list[int]) -> Tensor:
    """The vertex convention in index arithmetic, one point at a time."""
    rows = []
    for p in unit:
        start, features = 0, []
        for column, row in ((0, 1), (1, 2), (0, 2)):
            for c in cells:
                grid = table[start : start + (c + 1) ** 2].view(c + 1, c + 1)
                start += (c + 1) ** 2
                u, v = p[column] * c, p[row] * c
                i, j = min(int(u), c - 1), min(int(v), c - 1)
                fu, fv = u - i, v - j
                low = grid[j, i] * (1 - fu) + grid[j, i + 1] * fu
                high = grid[j + 1, i] * (1 - fu) + grid[j + 1, i + 1] * fu
                features.append(low * (1 - fv) + high * fv)
        rows.append(torch.stack(features))
    return torch.stack(rows)


def test_levels_have_the_resolutions_of_the_method() -> None:
    assert TriPlaneConfig().cells() == FACE_CELLS
    assert mouth_encoding().cells() == MOUTH_CELLS
    assert TriPlaneConfig().output_dim == 36
    encoding = TriPlane(TriPlaneConfig(backend="torch"))
    assert encoding.table.shape == (3 * sum((c + 1) ** 2 for c in FACE_CELLS),)
    assert 0.9e-4 < encoding.table.abs().max() <= 1e-4


def test_lookup_agrees_with_index_arithmetic_forward_and_backward() -> None:
    cells = [2, 3, 5]
    table = torch.randn(3 * sum((c + 1) ** 2 for c in cells), dtype=torch.float64)
    unit = (points(30, 1.0) + 1) / 2
    unit[0], unit[1], unit[2] = 0.0, 1.0, torch.tensor([0.0, 1.0, 0.5])
    weights = torch.randn(30, 9, dtype=torch.float64)
    results = []
    for function in (lookup, by_hand):
        x, t = unit.clone().requires_grad_(), table.clone().requires_grad_()
        out = function(x, t, cells)
        (out * weights).sum().backward()
        assert x.grad is not None and t.grad is not None
        results.append((out.detach(), t.grad, x.grad[3:]))  # the slope at the very edge is one-sided
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    encoding = TriPlane(small()).double()
    with torch.no_grad():
        encoding.table.normal_()
    assert torch.autograd.gradcheck(encoding, (points(5).requires_grad_(),), atol=1e-6)


def test_a_plane_sees_only_its_two_axes() -> None:
    encoding = TriPlane(small())
    with torch.no_grad():
        encoding.table.normal_()
    x = points(10).float()
    base = encoding(x).view(10, 3, 3)
    for axis, blind in ((2, 0), (0, 1), (1, 2)):  # xy does not see z, yz not x, xz not y
        moved = x.clone()
        moved[:, axis] += 0.02
        other = encoding(moved).view(10, 3, 3)
        same = [torch.allclose(base[:, plane], other[:, plane], atol=1e-6) for plane in range(3)]
        assert same == [plane == blind for plane in range(3)]


def test_outside_is_clamped_without_gradient() -> None:
    encoding = TriPlane(small())
    with torch.no_grad():
        encoding.table.normal_()
    outside = torch.tensor([[0.3, 0.0, -0.4]], requires_grad=True)
    edge = torch.tensor([[0.15, 0.0, -0.15]])
    out = encoding(outside)
    assert torch.allclose(out, encoding(edge), atol=1e-6)
    out.square().sum().backward()
    assert outside.grad is not None
    assert outside.grad[0, 0] == 0 and outside.grad[0, 2] == 0 and outside.grad[0, 1] != 0


def test_backend_that_cannot_run_is_refused() -> None:
    if not torch.cuda.is_available():
        assert TriPlane(TriPlaneConfig()).backend == "torch"
        with pytest.raises(UserError, match="CUDA"):
            TriPlane(TriPlaneConfig(backend="tcnn"))
    with pytest.raises(UserError, match="log2_entries"):
        TriPlane(TriPlaneConfig(finest=500, backend="torch"))


def test_auto_says_once_that_it_took_tiny_cuda_nn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    triplane._say_tcnn.cache_clear()
    TriPlane(small(backend="auto"))
    assert (caplog.text == "") == (not triplane.tcnn_available())
    monkeypatch.setattr(triplane, "tcnn_available", lambda: True)
    monkeypatch.setattr(TriPlane, "_build_tcnn", lambda self: None)
    triplane._say_tcnn.cache_clear()
    caplog.clear()
    for _ in range(2):
        TriPlane(small(backend="auto"))
    (record,) = caplog.records
    assert record.name.startswith("degstalk_ns") and "cannot be loaded without it" in record.message


def test_checkpoint_of_the_other_backend_is_refused() -> None:
    encoding = TriPlane(small())
    with pytest.raises(UserError, match="'tcnn'"):
        encoding.load_state_dict({"tcnn_planes.0.params": torch.zeros(4)})
    encoding.load_state_dict(TriPlane(small()).state_dict())


def test_vertices_of_instant_ngp_are_differentiable_and_need_the_torch_backend() -> None:
    config = TriPlaneConfig(levels=3, coarsest=4, finest=9, vertices="instant-ngp")
    encoding = TriPlane(config).double()
    x = points(12).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: encoding(x), (x,), atol=1e-6)
    outside = torch.tensor([[0.2, 0.0, 0.0]], dtype=torch.float64)
    assert (encoding(outside) != 0)[0].tolist() == [False] * 3 + [True] * 3 + [False] * 3  # yz alone does not see x
    with pytest.raises(UserError, match="tcnn"):
        TriPlane(TriPlaneConfig(vertices="instant-ngp", backend="tcnn"))
