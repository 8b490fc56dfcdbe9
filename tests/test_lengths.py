"""A length per test: as tuned at 512, in proportion at other heights."""

import numpy as np
import pytest

from degstalk_ns.dataparsers.contact_sheet import CHECK
from degstalk_ns.metrics.lpips import LPIPS_MINIMUM
from degstalk_ns.metrics.seam import border_band, is_plain
from degstalk_ns.plates.build import FRAME_PLATE
from degstalk_ns.plates.hair import HAIR_LAYER
from degstalk_ns.plates.lengths import odd_window, whole_pixels
from degstalk_ns.plugin.datamanager import TalkingHeadDataManagerConfig
from degstalk_ns.preprocess.steps.parsing import ParsingConfig
from degstalk_ns.training.curriculum import CurriculumConfig
from degstalk_ns.training.losses import LossConfig, patch_sides


@pytest.mark.parametrize(("height", "window"), [(128, 5), (256, 7), (450, 11), (512, 13), (1024, 25), (2048, 49)])
def test_a_window_grows_with_the_picture(height: int, window: int) -> None:
    assert odd_window(6 / 512, height) == window


def test_halves_are_rounded_up_and_no_window_degenerates() -> None:
    assert [odd_window(3 / 512, height) for height in (64, 256, 768)] == [3, 5, 11]  # 0.375, 1.5 and 4.5 pixels
    assert whole_pixels(0.0, 512) == 1 and whole_pixels(0.0, 512, least=0) == 0


def test_whole_pixels_keep_to_the_least() -> None:
    assert [whole_pixels(42 / 512, height, least=32) for height in (128, 450, 512, 1024)] == [32, 37, 42, 84]


@pytest.mark.parametrize("pixels", range(1, 200))
def test_what_was_tuned_at_512_is_exact_there(pixels: int) -> None:
    assert (pixels / 512) * 512 == pixels and whole_pixels(pixels / 512, 512) == pixels


SIZES = [(256, 0.5), (450, 450 / 512), (512, 1.0), (1024, 2.0)]


@pytest.mark.parametrize(("height", "times"), SIZES)
def test_the_lengths_of_training_are_in_proportion(height: int, times: float) -> None:
    """The margin of the face, patches of LPIPS and least mouth, against those at 512."""
    margin, losses = TalkingHeadDataManagerConfig().face_margin, LossConfig()
    assert abs(odd_window(margin, height) // 2 - 3 * times) <= 0.5
    sides = *patch_sides(losses.face_patch, height), *patch_sides(losses.mouth_patch, height)
    for side, at_512 in zip(sides, (64, 96, 32, 42), strict=True):
        assert side == LPIPS_MINIMUM or abs(side - at_512 * times) <= 0.5
    assert CurriculumConfig().min_mouth_pixels(height, height) == pytest.approx(20 * times**2)


def test_the_lengths_of_training_at_512() -> None:
    losses = LossConfig()
    assert odd_window(TalkingHeadDataManagerConfig().face_margin, 512) == 7
    assert patch_sides(losses.face_patch, 512) == (64, 96) and patch_sides(losses.mouth_patch, 512) == (32, 42)
    assert CurriculumConfig().min_mouth_pixels(512, 512) == 20.0


def test_patches_are_never_smaller_than_lpips_allows() -> None:
    losses = LossConfig()
    assert patch_sides(losses.face_patch, 128) == patch_sides(losses.mouth_patch, 256) == (32, 32)
    assert patch_sides(losses.mouth_patch, 450) == (32, 37)


@pytest.mark.parametrize(("height", "times"), SIZES)
def test_the_lengths_of_plates_are_in_proportion(height: int, times: float) -> None:
    config = FRAME_PLATE
    at_512 = {"erosion": 6, "seam": 4, "rise": 40, "continued": 32, "smoothing": 3}
    assert {name: getattr(config, name) * 512 for name in at_512} == at_512
    assert abs(odd_window(config.erosion, height) // 2 - 6 * times) <= 0.5
    assert abs(odd_window(config.seam, height) // 2 - 4 * times) <= 0.5
    assert abs(odd_window(2 * config.seam, height) // 2 - 8 * times) <= 0.5


@pytest.mark.parametrize(("height", "times"), SIZES)
def test_the_lengths_of_hair_and_seam_are_in_proportion(height: int, times: float) -> None:
    at_512 = {"strands": 16, "reach": 16, "shade": 10, "border": 6}
    for name, pixels in at_512.items():
        assert getattr(HAIR_LAYER, name) * 512 == pixels
        assert abs(odd_window(getattr(HAIR_LAYER, name), height) // 2 - pixels * times) <= 0.5
    head = np.zeros((height, height), bool)
    head[height // 2 :] = True
    band = np.flatnonzero(border_band(head)[:, height // 2])
    assert abs(len(band) - 2 * 16 * times) <= 1 and abs(band.mean() + 0.5 - height / 2) <= 0.5
    assert [is_plain(50 * times**2 + off, height) for off in (-0.01, 0.01)] == [False, True]


@pytest.mark.parametrize(("height", "thinnest"), [(128, 2), (256, 2), (450, 2), (512, 2), (1024, 4)])
def test_the_lengths_of_masks_are_in_proportion_and_never_under_two_pixels(height: int, thinnest: int) -> None:
    config = ParsingConfig()
    assert config.thinnest(height) == (thinnest, thinnest)
    assert config.mouth_area * height**2 == pytest.approx(20 * (height / 512) ** 2)
    assert whole_pixels(CHECK, height) == pytest.approx(16 * height / 512, abs=0.5)


def test_masks_of_512_ask_for_20_pixels_of_mouth() -> None:
    assert ParsingConfig().mouth_area * 512 * 512 == 20.0
