"""The training targets that the datamanager delivers, without a trainer."""

from pathlib import Path

import numpy as np
import pytest

from degstalk_ns.dataparsers.talking_head import TalkingHeadDataParserConfig
from degstalk_ns.plates.build import dilate
from degstalk_ns.plugin.datamanager import TalkingHeadDataManager, TalkingHeadDataManagerConfig

SIX_OF_64 = 6 / 64


def _manager(data: Path, downscale: int, margin: float) -> TalkingHeadDataManager:
    parser = TalkingHeadDataParserConfig(data=data, downscale_factor=downscale)
    config = TalkingHeadDataManagerConfig(dataparser=parser, face_margin=margin)
    return TalkingHeadDataManager(config, device="cpu")


@pytest.mark.parametrize(("downscale", "pixels"), [(1, 6), (2, 3)])
def test_the_face_grows_by_a_fraction_of_the_frames_as_they_are_read(
    dataset: Path, downscale: int, pixels: int
) -> None:
    manager = _manager(dataset, downscale, SIX_OF_64)
    assert manager.face_window == 2 * pixels + 1
    _, batch = manager.eval_pair(0)
    target = batch["target"]
    recorded = manager._open(manager.recording.val, 0)
    head = recorded.head | target.mouth_region.numpy()
    grown = dilate(head, 2 * pixels + 1) & ~target.mouth_region.numpy()
    np.testing.assert_array_equal(target.face_region.numpy(), grown)


def test_a_margin_in_pixels_is_refused(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for margin in (3.0, 0.0):
        with pytest.raises(SystemExit):
            _manager(dataset, 1, margin)
        assert "face_margin must be a fraction of the frame's height" in capsys.readouterr().err
