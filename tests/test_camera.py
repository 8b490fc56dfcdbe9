import math

import pytest
import torch

from degstalk_ns.avatar.camera import RecordedCamera, View, nearest_moment


def _c2w(turn_degrees: float = 0.0, distance: float = 0.7) -> torch.Tensor:
    angle = math.radians(turn_degrees)
    c2w = torch.eye(4)
    c2w[:3, :3] = torch.tensor(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    c2w[:3, 3] = c2w[:3, 2] * distance
    return c2w


def test_the_head_lies_in_front_of_an_opengl_camera() -> None:
    view = View.from_c2w(_c2w(30), (1200, 1200), (256, 256), (512, 512))
    origin = view.viewmat @ torch.tensor([0.0, 0, 0, 1])
    assert origin[:3].tolist() == pytest.approx([0, 0, 0.7], abs=1e-6)
    above = view.viewmat @ torch.tensor([0.0, 0.1, 0, 1])
    assert above[1] == pytest.approx(-0.1, abs=1e-6)  # up in the world is up in the image: smaller y


@pytest.mark.parametrize(
    ("turn", "focal", "size", "fits"),
    [
        (0, 1200, (512, 512), True),
        (2, 1200, (512, 512), True),
        (0, 600, (256, 256), True),
        (20, 1200, (512, 512), False),
        (0, 900, (512, 512), False),
        (0, 1200, (512, 300), False),
    ],
)
def test_plates_fit_behind_nearly_recorded_views(turn: float, focal: float, size: tuple[int, int], fits: bool) -> None:
    recorded = RecordedCamera(_c2w(), 1200, 512, 512)
    view = View.from_c2w(_c2w(turn), (focal, focal), (size[0] / 2, size[1] / 2), size)
    assert recorded.fits(view) is fits


def test_another_distance_does_not_fit() -> None:
    recorded = RecordedCamera(_c2w(), 1200, 512, 512)
    assert not recorded.fits(View.from_c2w(_c2w(distance=1.0), (1200, 1200), (256, 256), (512, 512)))


def test_a_camera_without_time_is_found_on_the_recorded_path() -> None:
    recorded = torch.stack([_c2w(angle) for angle in (0, 4, 9, 5, 1, -3)])
    for index, pose in enumerate(recorded):
        assert nearest_moment(pose, recorded) == pytest.approx(index, abs=1e-3)
    assert nearest_moment(_c2w(7), recorded[:3]) == pytest.approx(1.6, abs=0.05)
    assert nearest_moment(_c2w(90), recorded) is None
    assert nearest_moment(_c2w(0.1), recorded[:1]) == 0
