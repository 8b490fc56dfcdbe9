"""What is shown of a composed frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from degstalk_ns.avatar.avatar import Composition, RegionRender
from degstalk_ns.avatar.compositing import compose
from degstalk_ns.viewer.display import OUTPUTS, Display, DisplayOptions, coloured

SIZE = (6, 8)


@pytest.fixture
def frame() -> Composition:
    def region(colour: float, columns: slice) -> RegionRender:
        alpha = torch.zeros(*SIZE, 1)
        alpha[:, columns] = 1.0
        return RegionRender(colour * alpha.expand(-1, -1, 3), alpha, {})

    face, mouth = region(0.8, slice(0, 4)), region(0.4, slice(3, 6))
    plate = torch.full((*SIZE, 3), 0.1)
    attention = 3 * face.alpha
    rgb = compose(face.colour, face.alpha, mouth.colour, mouth.alpha, plate)
    return Composition(rgb, face, mouth, attention, attention / 2, torch.full((*SIZE, 1), 0.7))


def _look(frame: Composition, real: torch.Tensor | None = None, **choices: object) -> np.ndarray:
    behind = torch.full((*SIZE, 3), 0.1)
    return Display().picture(frame, behind, DisplayOptions(**choices), 0.7, real)  # type: ignore[arg-type]


def test_layers_are_taken_away(frame: Composition) -> None:
    assert _look(frame)[0, :, 0].tolist() == [204] * 4 + [102] * 2 + [26] * 2
    assert _look(frame, face=False)[0, :, 0].tolist() == [26] * 3 + [102] * 3 + [26] * 2
    assert _look(frame, mouth=False)[0, :, 0].tolist() == [204] * 4 + [26] * 4


def test_every_output_is_a_picture_of_its_own(frame: Composition) -> None:
    truth = torch.rand(*SIZE, 3)
    pictures = [_look(frame, truth, output=output) for output in OUTPUTS]
    for picture in pictures:
        assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
    assert len({picture.tobytes() for picture in pictures[:3]}) == 3
    assert (pictures[1][:, 6:] == 0).all(), "no depth where there is no head"
    assert pictures[2][0, :, 0].tolist() == [255] * 6 + [0] * 2


def test_attention_keeps_its_scale_from_frame_to_frame(frame: Composition) -> None:
    lens, behind, look = Display(), torch.zeros(*SIZE, 3), DisplayOptions(output="audio attention")
    lens.picture(frame, behind, look, 0.7)
    assert lens.scales["audio attention"] == pytest.approx(3.0)
    frame.audio_attention = frame.audio_attention / 10
    lens.picture(frame, behind, look, 0.7)
    assert lens.scales["audio attention"] == pytest.approx(3.0 * 0.98)


def test_the_error_map_is_dark_where_there_is_none(frame: Composition) -> None:
    none = coloured(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))[0, 0]
    full = coloured(torch.ones(1, 1, 1), torch.ones(1, 1, 1))[0, 0]
    truth = frame.rgb.clone()
    truth[:, 7] += 0.5
    picture = _look(frame, truth, output="error map")
    assert (picture[:, :7] == none).all() and (picture[:, 7] == full).all()


def test_truth_beside_and_wiped(frame: Composition) -> None:
    truth = torch.ones(*SIZE, 3)
    beside = _look(frame, truth, truth="side by side")
    assert beside.shape == (6, 16, 3) and (beside[:, 8:] == 255).all() and (beside[:, :4] == 204).all()
    wiped = _look(frame, truth, truth="wipe", wipe=0.5)
    assert (wiped[:, :3] == 255).all() and (wiped[:, 5, 0] == 102).all() and wiped.shape == (6, 8, 3)
    assert (_look(frame, truth, truth="wipe", wipe=1.0) == 255).all()
    assert _look(frame, None, truth="side by side").shape == (6, 8, 3), "without a truth it is left out"
