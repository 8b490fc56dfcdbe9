"""Tests of `avatar/fields/parts.py`: what moves which part of a face."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.avatar.fields.face import FaceField, FaceFieldConfig
from degstalk_ns.avatar.fields.layers import PartedMLP
from degstalk_ns.avatar.fields.parts import FacePart, FaceParts, allotted, connections, part_of
from degstalk_ns.errors import UserError
from degstalk_ns.landmarks.blendshapes import EXPRESSION_NAMES
from degstalk_ns.landmarks.measures import MEASURE_NAMES

NAMES = ("eyeBlinkLeft", "gazeLeftX", "browDownLeft", "jawOpen", "mouthSmileLeft", "mouthPucker", "noseSneerLeft")
C, L = 6, 16
# Centre of the right eye, of the left one, base of the nose: metres, the head turned and moved.
PLACES = torch.tensor([[0.10, 0.23, 0.0], [0.10, 0.23, -0.06], [0.13, 0.19, -0.03]])
POINTS = {
    "pupil": [0.1, 0.23, -0.06],
    "brow": [0.1, 0.255, -0.055],
    "forehead": [0.1, 0.29, -0.03],
    "tip of the nose": [0.14, 0.20, -0.03],
    "corner of the mouth": [0.125, 0.17, -0.05],
    "chin": [0.13, 0.13, -0.03],
}


def _field() -> FaceField:
    torch.manual_seed(0)
    config = FaceFieldConfig(parts=True)
    field = FaceField(config, C, L, len(NAMES), expression_names=NAMES)
    assert field.parts is not None
    field.parts.places.copy_(PLACES)
    with torch.no_grad():
        field.encoding.table.normal_()
    return field


def _conditions(seed: int) -> Conditions:
    torch.manual_seed(seed)
    return Conditions(torch.randn(8, C, L), torch.randn(len(NAMES)), torch.rand(2), torch.zeros(3))


def test_every_value_that_we_write_has_its_part() -> None:
    for name in (*EXPRESSION_NAMES, *MEASURE_NAMES):
        assert part_of(name) is not FacePart.WHOLE, name
    assert part_of("exp_17") is FacePart.WHOLE


def test_features_are_shared_out_and_the_lower_face_gets_two_shares() -> None:
    parts = [FacePart.EYES] * 10 + [FacePart.BROWS] * 2 + [FacePart.LOWER] * 20
    assert Counter(allotted(48, parts)) == {FacePart.EYES: 12, FacePart.BROWS: 12, FacePart.LOWER: 24}
    assert sorted(allotted(7, parts)) == allotted(7, parts)
    assert set(allotted(4, parts)) == set(parts)
    with pytest.raises(UserError, match="3 features"):
        allotted(3, parts)


def test_parts_are_where_they_are_on_a_face_however_it_stands() -> None:
    parts = FaceParts()
    parts.places.copy_(PLACES)
    table = parts(torch.tensor(list(POINTS.values())))
    reach = dict(zip(POINTS, table.tolist(), strict=True))
    assert reach["pupil"] == pytest.approx([1, 1, 0, 1])
    assert (
        reach["brow"][FacePart.EYES] > 0.5 and reach["brow"][FacePart.BROWS] == 1 and reach["brow"][FacePart.LOWER] == 0
    )
    assert reach["forehead"] == pytest.approx([0, 1, 0, 1])
    for name in ("corner of the mouth", "chin"):
        assert reach[name] == pytest.approx([0, 0, 1, 1]), name
    assert reach["tip of the nose"][FacePart.LOWER] > 0.5
    assert ((table >= 0) & (table <= 1)).all()


@pytest.mark.parametrize("bad", [torch.zeros(3, 3), torch.eye(3) * torch.nan, torch.arange(3.0)[:, None].expand(3, 3)])
def test_landmarks_that_show_no_face_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(UserError, match="lie on one line"):
        FaceParts().stand(bad)


def test_values_reach_the_features_of_their_part_alone() -> None:
    torch.manual_seed(0)
    values = [FacePart.EYES, FacePart.BROWS, FacePart.LOWER]
    features = allotted(8, values)
    network = PartedMLP(connections(values, allotted(30, values), features))
    jacobian = torch.autograd.functional.jacobian(network, torch.randn(1, 3))[0, :, 0]
    reached = [(jacobian[torch.tensor(features) == part] != 0).any(0).tolist() for part in values]
    given = torch.randn(5, 3)
    torch.testing.assert_close(network.after_first(given @ network.first_weight.T), network(given))
    assert reached == [[True, True, False], [True, True, False], [False, False, True]]


def test_a_value_moves_its_own_part_and_nothing_else() -> None:
    field = _field()
    means, embeddings = torch.tensor(list(POINTS.values())), torch.randn(len(POINTS), 32)
    before = _conditions(1)

    def moved(**changes: torch.Tensor) -> dict[str, bool]:
        after = Conditions(**{**vars(before), **changes})
        with torch.no_grad():
            apart = field(means, embeddings, after).offsets.d_means - field(means, embeddings, before).offsets.d_means
        return {name: bool((row != 0).any()) for name, row in zip(POINTS, apart, strict=True)}

    def with_value(name: str) -> torch.Tensor:
        expression = before.expression.clone()
        expression[NAMES.index(name)] += 0.7
        return expression

    lower = {"tip of the nose", "corner of the mouth", "chin"}
    for changes in ({"audio": torch.randn(8, C, L)}, {"expression": with_value("jawOpen")}):
        got = moved(**changes)
        assert {name for name in POINTS if got[name]} == lower
    assert {name for name, yes in moved(eyelids=torch.rand(2)).items() if yes} >= {"pupil", "brow"}
    for name in ("gazeLeftX", "browDownLeft"):
        got = moved(expression=with_value(name))
        assert got["pupil"] and not any(got[part] for part in ("corner of the mouth", "chin")), name


def test_without_names_every_signal_moves_every_gaussian() -> None:
    assert FaceField(FaceFieldConfig(parts=True), C, L, 50).parts is None
    assert FaceField(FaceFieldConfig(), C, L, len(NAMES), expression_names=NAMES).parts is None
