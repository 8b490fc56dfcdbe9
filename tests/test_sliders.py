"""Sliders for the face."""

from __future__ import annotations

import torch

from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.viewer.sliders import controls, overridden, readable


def _expression() -> torch.Tensor:
    time = torch.linspace(0, 6.28, 100)
    return torch.stack([0.1 * time.sin(), time.sin(), torch.zeros(100), 0.5 + 0.4 * time.cos()], 1)


def test_the_strongest_come_first_and_still_ones_have_no_slider() -> None:
    found = controls(_expression(), ["browInnerUp", "mouthSmileLeft", "cheekPuff", "eyeWideLeft"])
    assert [c.label for c in found] == [
        *("Eyelid right", "Eyelid left"),
        *("Mouth smile left", "Eye wide left", "Brow inner up"),
    ]
    assert found[2].lowest < -1 and found[2].highest > 1
    assert found[3].lowest >= 0, "what never was below 0 does not go there"


def test_without_fitting_names_they_are_called_by_number() -> None:
    for names in (None, ["one", "two"]):
        assert [c.label for c in controls(_expression(), names)][2:] == ["Direction 1", "Direction 3", "Direction 0"]
    assert len(controls(_expression(), count=1)) == 3


def test_values_by_hand_replace_the_track_and_leave_it_alone() -> None:
    conditions = Conditions(torch.zeros(8, 2, 4), torch.zeros(4), torch.tensor([0.2, 0.3]), torch.zeros(3))
    lid, smile = controls(_expression())[1:3]
    by_hand = overridden(conditions, {lid: 1.0, smile: 0.7})
    assert torch.allclose(by_hand.eyelids, torch.tensor([0.2, 1.0]))
    assert torch.allclose(by_hand.expression, torch.tensor([0.0, 0.7, 0.0, 0.0]))
    assert torch.allclose(conditions.eyelids, torch.tensor([0.2, 0.3])) and not conditions.expression.any()
    assert overridden(conditions, {}).expression is conditions.expression


def test_names_become_words() -> None:
    assert readable("browInnerUp") == "Brow inner up"
    assert readable("jawRight-jawLeft") == "Jaw right / jaw left"


def test_one_value_for_both_eyes_has_one_slider_up_to_its_closed_value() -> None:
    only = [c for c in controls(torch.zeros(4, 3), eyelids=1, closed=2.0) if c.part == "eyelids"]
    assert [(c.label, c.highest) for c in only] == [("Eyelids", 2.0)]
    assert not controls(torch.zeros(4, 3), eyelids=0)
