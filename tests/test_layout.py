"""Names, palette and split of a dataset: those of AD-NeRF and its successors, so that their scripts' data are read."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from degstalk_ns.dataparsers.layout import PALETTE, Layout, remedy, train_count


def test_files_have_the_names_of_the_datasets_of_ad_nerf() -> None:
    root = Path("me")
    layout = Layout(root)
    paths = {
        "transforms_train.json": layout.transforms("train"),
        "transforms_val.json": layout.transforms("val"),
        "ori_imgs/12.jpg": layout.frame(12),
        "ori_imgs/0.lms": layout.landmarks(0),
        "parsing/7.png": layout.parsing(7),
        "teeth_mask/7.npy": layout.teeth(7),
        "torso_imgs/7.png": layout.torso(7),
        "bg/7.png": layout.plate(7),
        "bc.jpg": layout.clean_plate,
        "aud.wav": layout.audio,
        "aud_ds.npy": layout.audio_features("ds"),
        "au.csv": layout.action_units,
        "3dmm.npz": layout.face_model_npz,
        "3dmm.pt": layout.face_model_pt,
        "contact_sheet.png": layout.contact_sheet,
    }
    assert {root / name: path for name, path in paths.items()} == {path: path for path in paths.values()}


def test_regions_can_be_told_apart_by_their_colours() -> None:
    assert PALETTE["head"] == (0, 0, 255) and PALETTE["neck"] == (0, 255, 0) and PALETTE["torso"] == (255, 0, 0)
    for one, other in combinations(PALETTE.values(), 2):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) >= 100


@pytest.mark.parametrize(("frames", "train"), [(0, 0), (1, 0), (10, 9), (11, 10), (22, 20), (24, 21), (6_600, 6_000)])
def test_ten_frames_in_eleven_are_trained_on(frames: int, train: int) -> None:
    assert train_count(frames) == train


def test_the_split_is_exact_at_any_length() -> None:
    """The fraction is not a number that a computer has; no frame may move over for that."""
    assert [frames for frames in range(20_000) if train_count(frames) != frames * 10 // 11] == []


def test_the_remedy_is_a_command_for_this_folder() -> None:
    assert "degstalk process VIDEO data/me`" in remedy(Path("data/me"))
