import pytest
import torch

from degstalk_ns.metrics.frames import FrameMetrics, MetricTable, box_l1


def test_means_are_over_frames_that_have_the_metric() -> None:
    table = MetricTable()
    table.add({"psnr": 30.0, "lmd": 2.0})
    table.add({"psnr": 34.0})
    table.add({"psnr": 32.0, "lmd": float("nan")})
    assert table.mean() == {"psnr": 32.0, "lmd": 2.0}
    assert table.mean(with_std=True)["psnr_std"] == pytest.approx(2.0)
    assert table.gaps() == ["lmd: measured in 1 of 3 frames; the mean is over those"]


def test_frame_metrics_say_what_they_leave_out() -> None:
    metrics = FrameMetrics()
    image = torch.rand(64, 64, 3)
    values = metrics(image, (image + 0.1).clamp(0, 1))
    assert 15 < values["psnr"] < 30 and 0 < values["ssim"] <= 1
    assert ("lpips" in values) == (metrics.left_out is None)


def test_box_l1() -> None:
    image = torch.zeros(8, 8, 3)
    other = image.clone()
    other[2:4, 2:4] = 1
    assert box_l1(image, other, (2, 4, 2, 6)) == pytest.approx(0.5)


def test_metrics_are_related_over_frames_that_have_both() -> None:
    table = MetricTable()
    for opening, jaw in ((1.0, 2.0), (2.0, 4.0), (3.0, 6.0)):
        table.add({"opening": opening, "jaw": jaw})
    table.add({"jaw": 100.0})
    assert table.relate("opening", "jaw") == pytest.approx(1.0)
    assert table.relate("opening", "other") is None
    assert table.columns("opening", "jaw") == ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert table.columns("opening", "other") == ([], [])


def test_a_column_holds_the_frames_that_have_the_metric() -> None:
    table = MetricTable()
    for row in ({"cracks": 3.0}, {"psnr": 1.0}, {"cracks": 0.0}):
        table.add(row)
    assert table.column("cracks") == [3.0, 0.0] and table.column("other") == []


def _scene(size: int = 96) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A picture, a head in it, and hair above that."""
    truth = torch.rand(size, size, 3, generator=torch.Generator().manual_seed(0))
    head, hair = torch.zeros(2, size, size, dtype=torch.bool)
    head[30:70, 30:70] = True
    hair[20:30, 30:70] = True
    return truth, head, hair


def test_a_face_as_recorded_has_no_cracks_and_is_as_sharp() -> None:
    truth, head, hair = _scene()
    metrics = FrameMetrics()
    values = metrics.of_face(truth, truth, head, hair)
    wanted = {"cracks": 0, "cracks_at_hair": 0, "seam_l1": 0, "broken_face": 0, "sharpness_face": 1}
    if metrics.left_out is None:
        wanted["lpips_face"] = 0
    assert values == pytest.approx(wanted, abs=1e-6)


def test_only_the_head_counts_for_how_the_face_looks_and_only_its_border_for_cracks() -> None:
    truth, head, hair = _scene()
    metrics = FrameMetrics()
    beside, middle, border = (truth.clone() for _ in range(3))
    beside[:, :10] = 1 - beside[:, :10]
    middle[48:52, 40:60] = (truth[48:52, 40:60] < 0.5).float()
    border[40:50, 30] = (truth[40:50, 30] < 0.5).float()
    found = [metrics.of_face(image, truth, head, hair) for image in (beside, middle, border)]
    assert [values["cracks"] > 0 for values in found] == [False, False, True]
    assert [values["seam_l1"] > 0 for values in found] == [False, False, True]
    assert [values["broken_face"] > 0 for values in found] == [False, True, True]
    if metrics.left_out is None:
        assert [values["lpips_face"] > 1e-4 for values in found] == [False, True, True]


def test_without_a_head_there_is_nothing_to_say_of_the_face() -> None:
    truth, head, hair = _scene()
    assert FrameMetrics().of_face(truth, truth, head & ~head, hair) == {}
