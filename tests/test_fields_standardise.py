"""Standardising: signals of every size come out alike, and nothing leaves the range of the training frames."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from degstalk_ns.avatar.fields import standardise as standardise_module
from degstalk_ns.avatar.fields.standardise import Standardise, StandardiseConfig


def _fitted(values: Tensor, **options: float) -> Standardise:
    standardise = Standardise(values.shape[1], StandardiseConfig(**options))  # type: ignore[arg-type]
    standardise.fit(values)
    return standardise


def _normal(frames: int = 4_000, columns: int = 3) -> Tensor:
    return torch.randn(frames, columns, generator=torch.Generator().manual_seed(0))


def _blinks(frames: int = 1_000) -> Tensor:
    """[frames, 1]: 3 of 100 frames are 1, the others 0."""
    return (torch.arange(frames) % 100 < 3).float()[:, None]


def test_before_it_has_seen_the_recording_it_changes_nothing() -> None:
    x = 1e3 * _normal()
    assert torch.equal(Standardise(3, StandardiseConfig())(x), x)


def test_switched_off_it_changes_nothing() -> None:
    x = 1e3 * _normal()
    assert torch.equal(_fitted(_normal(), enabled=False)(x), x)


def test_what_varies_like_a_normal_distribution_varies_by_one_around_zero() -> None:
    values = _normal() * torch.tensor([0.02, 0.03, 0.05]) + torch.tensor([100.0, -3.0, 0.0])
    out = _fitted(values)(values)
    assert out.mean(0).tolist() == pytest.approx([0, 0, 0], abs=0.06)
    assert out.std(0).tolist() == pytest.approx([1, 1, 1], abs=0.06)


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_signals_of_any_size_come_out_alike(size: float) -> None:
    values = _normal()
    out = _fitted(values)(values)
    torch.testing.assert_close(_fitted(size * values + size)(size * values + size), out, atol=1e-3, rtol=1e-3)
    columns = values[:, :1] * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([5.0, 0.0, -5.0])
    alike = _fitted(columns)(columns)
    torch.testing.assert_close(alike, alike[:, :1].expand(-1, 3), atol=1e-4, rtol=1e-4)


def test_columns_that_hardly_change_are_not_blown_up() -> None:
    values = torch.cat([_normal(columns=3), 1e-3 * _normal(columns=1)], 1)
    spread = (1 + 1 + 1 + 0.001) / 4  # mean of the columns
    out = _fitted(values, least_spread=0.25)(values)
    assert float(out[:, 3].std()) == pytest.approx(1e-3 / (0.25 * spread), rel=0.06)


@pytest.mark.parametrize("reach", [2.0, 4.0])
def test_rare_large_values_are_as_large_as_the_reach(reach: float) -> None:
    out = _fitted(_blinks(), reach=reach)(_blinks())
    assert out.unique().tolist() == [0.0, reach]


def test_a_constant_column_stays_harmless() -> None:
    values = _normal()
    values[:, 1] = 7.0
    both = _fitted(values)(values)
    assert both.isfinite().all() and (both[:, 1] == 0).all() and both[:, 0].std() > 0.5
    still = _fitted(torch.full((5, 2), 3.0), margin=0.25)
    assert (still(torch.full((4, 2), 3.0)) == 0).all()
    assert still(torch.tensor([1e6, -1e6])).tolist() == pytest.approx([0.25, -0.25])


def test_beyond_the_range_of_the_recording_values_saturate_softly() -> None:
    values, margin = torch.linspace(-1, 1, 2_001)[:, None], 0.25
    standardise = _fitted(values, margin=margin)
    scale = float(standardise.scale)
    assert scale == pytest.approx(0.683, abs=1e-3)
    inside = torch.tensor([[-1.0], [-0.5], [0.0], [1.0]])
    torch.testing.assert_close(standardise(inside), inside / scale)
    for beyond in (0.01, 0.1, 1.0):
        wanted = (1 + scale * margin * math.tanh(beyond / (scale * margin))) / scale
        assert float(standardise(torch.tensor([[1 + beyond]]))) == pytest.approx(wanted, rel=1e-5)
        assert float(standardise(torch.tensor([[-1 - beyond]]))) == pytest.approx(-wanted, rel=1e-5)
    assert float(standardise(torch.tensor([[1e6]]))) == pytest.approx(1 / scale + margin)
    hard = _fitted(values, margin=0.0)
    assert float(hard(torch.tensor([[1e6]]))) == pytest.approx(1 / scale)


def test_what_it_has_learned_is_in_the_checkpoint_and_is_not_trained() -> None:
    values, x = 5 * _normal() + 2, 20 * _normal(7)
    standardise, other = _fitted(values), Standardise(3, StandardiseConfig())
    assert list(standardise.parameters()) == []
    assert not torch.equal(other(x), standardise(x))
    other.load_state_dict(standardise.state_dict())
    assert torch.equal(other(x), standardise(x))


def test_windows_are_standardised_along_their_last_axis() -> None:
    values = _normal()
    standardise, windows = _fitted(values), values[:64].view(8, 8, 3)
    assert torch.equal(standardise(windows), standardise(values[:64]).view(8, 8, 3))


@pytest.mark.parametrize("shape", [(3,), (0, 3), (5, 4), (2, 5, 3)])
def test_values_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[T, 3\]"):
        Standardise(3, StandardiseConfig()).fit(torch.zeros(shape))


def test_columns_that_are_learned_in_blocks_are_learned_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = _normal(500, 7) * torch.logspace(-3, 3, 7)
    whole = _fitted(values).state_dict()
    monkeypatch.setattr(standardise_module, "_BLOCK", 1_000)  # two columns
    blocks = _fitted(values).state_dict()
    assert whole.keys() == blocks.keys() and all(torch.equal(whole[key], blocks[key]) for key in whole)
