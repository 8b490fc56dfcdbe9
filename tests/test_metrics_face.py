from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from degstalk_ns.errors import UserError
from degstalk_ns.metrics.face import (
    FaceLandmarks,
    eye_closing,
    eye_opening,
    lip_landmark_distance,
    lip_opening,
    lmd_availability,
)
from degstalk_ns.metrics.image import correlation, psnr, ssim, temporal_jitter
from degstalk_ns.metrics.lpips import ALEXNET_FILE, Lpips, _availability, prepare_lpips


def pair(size: int = 48, noise: float = 0.1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(size, size, 3, generator=generator)
    image = (target + noise * torch.randn(size, size, 3, generator=generator)).clamp(0, 1)
    return image, target


def test_psnr() -> None:
    image, target = pair()
    assert psnr(image, target) == pytest.approx(float(peak_signal_noise_ratio(image, target, data_range=1.0)), abs=1e-4)
    assert psnr(target, target) == float("inf")
    assert psnr(torch.zeros(4, 4, 3), torch.full((4, 4, 3), 0.1)) == pytest.approx(20.0, abs=1e-4)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    assert psnr(torch.zeros(4, 4, 3), torch.ones(4, 4, 3), mask) is None
    mask[1, 2] = True
    other = torch.ones(4, 4, 3)
    other[1, 2] = 0.01
    assert psnr(torch.zeros(4, 4, 3), other, mask) == pytest.approx(40.0, abs=1e-4)
    with pytest.raises(ValueError, match="two images"):
        psnr(torch.zeros(4, 4, 3), torch.zeros(4, 5, 3))


def test_ssim() -> None:
    image, target = pair()
    x, y = (picture.permute(2, 0, 1)[None] for picture in (image, target))
    # torchmetrics pads the border that pytorch_msssim leaves out.
    expected = float(structural_similarity_index_measure(x, y, data_range=1.0, gaussian_kernel=True, sigma=1.5))
    value = ssim(image, target)
    assert value == pytest.approx(expected, abs=0.02) and value is not None and value < 0.99
    assert ssim(target, target) == pytest.approx(1.0, abs=1e-5)
    assert ssim(torch.zeros(8, 40, 3), torch.zeros(8, 40, 3)) is None


# --- LPIPS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lpips() -> Iterator[Lpips]:
    if not (Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE).exists():
        pytest.skip(f"no {ALEXNET_FILE} in {torch.hub.get_dir()}")
    assert prepare_lpips() is None
    yield Lpips()


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (31, 31), (32, 32), (64, 96)])
def test_lpips_of_any_size_is_finite_and_orders_images(lpips: Lpips, size: tuple[int, int]) -> None:
    height, width = size
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, height, width, generator=generator)
    little = (target + 0.05 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    much = torch.rand(target.shape, generator=generator)
    same, near, far = lpips(target, target), lpips(little, target), lpips(much, target)
    assert same.shape == (2,) and (same.abs() < 1e-6).all()
    assert torch.isfinite(far).all() and (far > near).all() and (near > 0).all()


def test_lpips_agrees_with_torchmetrics_and_has_gradients(lpips: Lpips) -> None:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    image, target = pair(80)
    x, y = (picture.permute(2, 0, 1)[None] for picture in (image, target))
    reference = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    assert lpips.distance(image, target) == pytest.approx(float(reference(x, y)), rel=1e-4)
    x.requires_grad_()
    lpips(x, y).sum().backward()
    assert x.grad is not None and float(x.grad.abs().max()) > 0
    assert not list(lpips.parameters()) and not lpips.state_dict()


def test_lpips_refuses_what_alexnet_cannot_do() -> None:
    with pytest.raises(ValueError, match="at least"):
        Lpips(min_side=16)
    with pytest.raises(ValueError, match="two batches"):
        Lpips()(torch.zeros(1, 3, 40, 40), torch.zeros(1, 3, 40, 41))


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    return tmp_path / "hub" / "checkpoints"


def test_lpips_offline_says_why_in_one_line(empty_hub: Path) -> None:
    reason = prepare_lpips()
    assert reason is not None and "\n" not in reason
    assert str(empty_hub / ALEXNET_FILE) in reason and "no route to host" in reason and "TORCH_HOME" in reason
    assert not empty_hub.exists()


def test_damaged_weights_are_a_reason(empty_hub: Path) -> None:
    empty_hub.mkdir(parents=True)
    (empty_hub / ALEXNET_FILE).write_bytes(b"half a download")
    reason = prepare_lpips()
    assert reason is not None and "\n" not in reason and "cannot be used" in reason


def test_download_puts_checked_weights_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE
    if not source.exists():
        pytest.skip(f"no {source}")
    asked: list[str] = []

    class Answer:
        def close(self) -> None:
            pass

    def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        asked.append(hash_prefix)
        shutil.copy(source, path)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Answer())
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert prepare_lpips() is None
    assert asked == ["7be5be79"]


# --- lips -----------------------------------------------------------------------------------------------------------


def test_lmd_ignores_where_the_mouth_is() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 512, (68, 2))
    assert lip_landmark_distance(points, points + np.array([30, -12])) == pytest.approx(0, abs=1e-9)
    moved = points.copy()
    moved[:48] += 50
    assert lip_landmark_distance(moved, points) == 0
    # Ten lip points 2 px up, ten 2 px down: the mean stays, every point is 2 px off.
    moved[48:58, 1] -= 2
    moved[58:68, 1] += 2
    assert lip_landmark_distance(moved, points) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="68"):
        lip_landmark_distance(points[48:], points[48:])


def test_lip_opening_is_the_gap_between_the_inner_lips() -> None:
    points = np.random.default_rng(0).uniform(0, 512, (68, 2))
    points[[67, 66, 65]] = points[[61, 62, 63]] + [3, 4]
    assert lip_opening(points) == pytest.approx(5)


def test_eye_opening_is_height_over_width() -> None:
    points = np.zeros((68, 2))
    for corner, height in ((36, 6.0), (42, 2.0)):
        points[corner], points[corner + 3] = (0, 0), (20, 0)
        points[[corner + 1, corner + 2]], points[[corner + 5, corner + 4]] = (10, -height / 2), (10, height / 2)
    assert eye_opening(points) == pytest.approx((6 / 20 + 2 / 20) / 2)


def test_eye_closing_is_the_share_of_the_recorded_drop() -> None:
    true = [0.3, 0.3, 0.05, 0.3, 0.1, 0.3]
    assert eye_closing(true, true) == (pytest.approx(1.0), 2)
    assert eye_closing([0.3] * 6, true) == (pytest.approx(0.0), 2)
    half = [value / 2 + 0.2 for value in true]
    assert eye_closing(half, true) == (pytest.approx(0.5), 2)
    # looking down is no blink
    assert eye_closing(true, [0.3, 0.3, 0.2, 0.3, 0.2, 0.3]) is None
    assert eye_closing([], []) is None
    with pytest.raises(ValueError, match="equally long"):
        eye_closing([0.3], true)


def test_correlation() -> None:
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert correlation([1, 2], [1, 2]) is None and correlation([1, 1, 1], [1, 2, 3]) is None
    with pytest.raises(ValueError, match="equally long"):
        correlation([1, 2, 3], [1, 2])


def test_lmd_without_a_face_is_none() -> None:
    points = np.random.default_rng(0).uniform(0, 64, (68, 2))
    seen: list[np.ndarray] = []

    def detector(image: np.ndarray) -> np.ndarray | None:
        seen.append(image)
        return points if image.any() else None

    with FaceLandmarks(detector) as lmd:
        same = lmd(torch.ones(8, 8, 3), np.full((8, 8, 3), 255, np.uint8))
        assert same is not None and same.distance == 0 and same.opening == same.true_opening == lip_opening(points)
        assert same.eyes == same.true_eyes == eye_opening(points)
        assert lmd(torch.ones(8, 8, 3), torch.zeros(8, 8, 3)) is None
    assert all(image.dtype == np.uint8 and image.shape == (8, 8, 3) for image in seen)
    assert (seen[0] == 255).all()


def test_lmd_without_model_file_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from degstalk_ns.landmarks import model_files

    def absent() -> Path:
        raise UserError("face_landmarker.task: not found,\nput it somewhere")

    monkeypatch.setattr(model_files, "face_landmarker", absent)
    reason = lmd_availability()
    assert reason is not None and "face_landmarker.task" in reason and "\n" not in reason


def test_lmd_on_a_real_face(shared: Path) -> None:
    import av

    clip = shared / "data" / "clip_a.mp4"
    if not clip.exists() or lmd_availability() is not None:
        pytest.skip("needs shared/data/clip_a.mp4 and the face landmarker")
    with av.open(str(clip)) as container:
        frames = [
            frame.to_ndarray(format="rgb24") for frame, _ in zip(container.decode(video=0), range(6), strict=False)
        ]
    with FaceLandmarks() as lmd:
        same, different = lmd(frames[0], frames[0]), lmd(frames[0], frames[5])
        assert same is not None and same.distance == pytest.approx(0, abs=1e-6)
        assert different is not None and 0 < different.distance < 30 and 0 <= different.opening < 60
        assert 0.1 < different.eyes < 0.6
        assert lmd(frames[0], np.zeros_like(frames[0])) is None
        lmd.close()
        assert lmd(frames[1], frames[1]) is not None


# --- time -----------------------------------------------------------------------------------------------------------


def test_jitter() -> None:
    t = np.arange(10.0)
    steady = np.stack([t, 3 - 2 * t], 1)[:, None]
    assert temporal_jitter(steady) == pytest.approx(0, abs=1e-12)
    shaking = np.stack([(-1.0) ** t, 0 * t], 1)[:, None]
    assert temporal_jitter(shaking) == pytest.approx(4 / np.sqrt(2))
    assert temporal_jitter(steady[:2]) is None


def test_jitter_of_a_region() -> None:
    frames = torch.zeros(6, 8, 8, 3)
    frames[::2, :4] = 1
    assert temporal_jitter(frames, (4, 8, 0, 8)) == 0
    assert temporal_jitter(frames, (0, 4, 2, 6)) == pytest.approx(2.0)
    mask = np.zeros((8, 8), bool)
    assert temporal_jitter(frames, mask) is None
    mask[:4] = True
    assert temporal_jitter(frames, mask) == pytest.approx(2.0)
    # Bytes must not wrap around.
    assert temporal_jitter((frames * 255).to(torch.uint8), mask) == pytest.approx(2 * 255)


@pytest.fixture(autouse=True)
def forget_availability() -> Iterator[None]:
    _availability.cache_clear()
    yield
