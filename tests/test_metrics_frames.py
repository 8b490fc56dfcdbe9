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
