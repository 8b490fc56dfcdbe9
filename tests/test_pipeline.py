"""What evaluation reports, against the same numbers computed from the pictures that it writes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import evaluated_pictures

from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.plugin.pipeline import DegstalkPipeline
from degstalk_ns.plugin.runs import load_run


@pytest.fixture(scope="module")
def pipeline(trained_config: Path) -> DegstalkPipeline:
    return load_run(trained_config).pipeline


def test_what_is_reported_is_what_the_pictures_show(pipeline: DegstalkPipeline, tmp_path: Path) -> None:
    results = pipeline.get_average_eval_image_metrics(output_path=tmp_path, get_std=True)
    recording: Recording = pipeline.datamanager.recording
    shown = evaluated_pictures(tmp_path, recording)
    assert len(shown.truth) == len(recording.val)
    shown.agree_with(results)
    assert results["psnr_std"] == pytest.approx(float(np.std(shown.psnr(), ddof=1)), abs=0.02)
    assert not any(np.isnan(value) for value in results.values())
    for index, image in enumerate(recording.val.img_ids):
        frame = cv2.imread(str(recording.layout.frame(int(image))))[..., ::-1]
        np.testing.assert_array_equal(shown.truth[index], frame)
    names = {path.name.rsplit("_", 1)[0].removeprefix("eval_") for path in tmp_path.iterdir()}
    assert names == {"composition", "face", "mouth", "plate", "masks", "attention"}


def test_what_is_switched_off_is_not_measured(
    pipeline: DegstalkPipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline.config, "measure_lips", False)
    monkeypatch.setattr(pipeline.config, "measure_driving", False)
    results = pipeline.get_average_eval_image_metrics()
    assert "LMD is left out: measure_lips is off" in capsys.readouterr().out
    assert not any(name.startswith(("lmd", "lip_opening", "eye_", "lips_l1_")) for name in results)
    assert {"psnr", "ssim", "lips_l1", "fps"} <= results.keys()


def test_evaluating_leaves_the_driving_and_the_mode_as_they_were(pipeline: DegstalkPipeline) -> None:
    model = pipeline.model
    assert model.track is model.recorded_track
    pipeline.train()
    pipeline.get_average_eval_image_metrics()
    assert pipeline.training and model.track is model.recorded_track
    pipeline.eval()


def test_frozen_and_silent_driving_change_the_lips(pipeline: DegstalkPipeline) -> None:
    assert set(pipeline._other_drivings()) == {"frozen", "silent"}
    results = pipeline.get_average_eval_image_metrics()
    ratio = results["lips_l1"] / results["lips_l1_frozen"]
    assert results["lips_l1_ratio_to_frozen"] == pytest.approx(ratio)
