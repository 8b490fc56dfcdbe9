import threading
from collections.abc import Callable

import pytest
import torch
from pytorch_msssim import ssim
from torch import Tensor

from degstalk_ns.metrics.ssim import mean_ssim

Similarity = Callable[[Tensor, Tensor], Tensor]


def _reference(image: Tensor, target: Tensor) -> Tensor:
    return ssim(image.permute(2, 0, 1)[None], target.permute(2, 0, 1)[None], data_range=1.0)


def _with_gradient(similarity: Similarity, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Value, and gradient of 3 times the value; ``image`` keeps its strides."""
    image = image.detach().requires_grad_()
    value = similarity(image, target)
    (gradient,) = torch.autograd.grad(3.0 * value, image)
    return value.detach(), gradient


def _images(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(height, width, 3, dtype=torch.float64, generator=generator)
    noise = torch.rand(height, width, 3, dtype=torch.float64, generator=generator)
    return image, 0.6 * image + 0.4 * noise


def _assert_as_reference(image: Tensor, target: Tensor) -> None:
    value, gradient = _with_gradient(mean_ssim, image, target)
    expected, expected_gradient = _with_gradient(_reference, image, target)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-9)
    # Gradients of a mean are small: measured against their largest.
    bound = 1e-9 * max(float(expected_gradient.abs().max()), 1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=bound)


# Less than a tile, exactly one (32 x 128 windows), a row and a column more, several.
@pytest.mark.parametrize(
    "size", [(11, 11), (11, 40), (42, 138), (43, 139), (64, 48), (75, 301), (12, 270), (140, 13)], ids=str
)
def test_random_images_of_any_size(size: tuple[int, int]) -> None:
    _assert_as_reference(*_images(*size))


def test_negatively_correlated_images() -> None:
    image, _ = _images(30, 30)
    assert mean_ssim(image, 1 - image) < 0
    _assert_as_reference(image, 1 - image)


def test_constant_images() -> None:
    image, other = torch.full((25, 31, 3), 0.2, dtype=torch.float64), torch.full((25, 31, 3), 0.7, dtype=torch.float64)
    _assert_as_reference(image, other)
    _assert_as_reference(torch.zeros_like(image), torch.ones_like(image))


def test_equal_images() -> None:
    image, _ = _images(40, 50)
    value, gradient = _with_gradient(mean_ssim, image, image.clone())
    assert value == pytest.approx(1.0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


def test_channels_do_not_mix() -> None:
    image, target = _images(30, 30)
    target[..., :2] = image[..., :2]
    _, gradient = _with_gradient(mean_ssim, image, target)
    assert gradient[..., :2].abs().max() < 1e-12
    assert gradient[..., 2].abs().max() > 1e-5


def _crop(image: Tensor) -> Tensor:
    return image[3:43, 5:60]


def _transposed(image: Tensor) -> Tensor:
    return image.transpose(0, 1)


def _planar(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1).contiguous().permute(1, 2, 0)


def _every_second(image: Tensor) -> Tensor:
    return image[::2, ::2]


def _rgb_of_rgba(image: Tensor) -> Tensor:
    return torch.cat([image, image[..., :1]], -1)[..., :3]


def _repeated_row(image: Tensor) -> Tensor:
    return image[:1].expand(20, -1, -1)


@pytest.mark.parametrize("view", [_crop, _transposed, _planar, _every_second, _rgb_of_rgba, _repeated_row])
def test_views(view: Callable[[Tensor], Tensor]) -> None:
    image, target = _images(50, 66)
    _assert_as_reference(view(image), view(target))
    _assert_as_reference(view(image), view(target).contiguous())
    _assert_as_reference(view(image).contiguous(), view(target))


def test_gradient_flows_through_a_crop() -> None:
    image, target = _images(50, 66)
    _, gradient = _with_gradient(lambda a, b: mean_ssim(_crop(a), _crop(b)), image, target)
    _, expected = _with_gradient(lambda a, b: _reference(_crop(a), _crop(b)), image, target)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-14)
    assert not gradient[:3].any()


def test_single_precision() -> None:
    image, target = _images(75, 160)
    value, gradient = _with_gradient(mean_ssim, image.float(), target.float())
    expected, expected_gradient = _with_gradient(_reference, image, target)
    assert value.dtype == gradient.dtype == torch.float32
    assert value.shape == ()
    assert float(value) == pytest.approx(float(expected), abs=1e-6)
    assert (gradient - expected_gradient).abs().max() < 1e-4 * expected_gradient.abs().max()


def test_the_gradient_is_that_of_differences() -> None:
    image, target = _images(12, 13)
    assert torch.autograd.gradcheck(lambda a: mean_ssim(a, target), (image.requires_grad_(),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bits_do_not_depend_on_the_call_nor_on_threads(dtype: torch.dtype) -> None:
    image, target = (picture.to(dtype) for picture in _images(150, 160))
    first = _with_gradient(mean_ssim, image, target)
    allowed = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            again = _with_gradient(mean_ssim, image, target)
            assert torch.equal(first[0], again[0])
            assert torch.equal(first[1], again[1])
    finally:
        torch.set_num_threads(allowed)


def test_calls_from_two_threads_at_once() -> None:
    pairs = [_images(120, 130, seed) for seed in (1, 2)]
    expected = [_with_gradient(mean_ssim, *pair) for pair in pairs]
    equal: list[bool] = []

    def work(which: int) -> None:
        for _ in range(20):
            results = _with_gradient(mean_ssim, *pairs[which])
            equal.append(all(torch.equal(a, b) for a, b in zip(results, expected[which], strict=True)))

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal == [True] * 40


def test_without_gradients() -> None:
    image, target = _images(30, 30)
    with torch.no_grad():
        value = mean_ssim(image.requires_grad_(), target)
    assert not value.requires_grad
    assert float(value) == pytest.approx(float(_reference(image.detach(), target)), abs=1e-9)


def test_an_image_changed_before_backward_is_noticed() -> None:
    image, target = _images(30, 30)
    leaf = image.requires_grad_()
    value = mean_ssim(leaf * 1.0, target)
    target.add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_a_value_that_is_not_a_number_stays_visible() -> None:
    image, target = _images(30, 30)
    image[15, 15, 1] = float("nan")
    assert mean_ssim(image, target).isnan()


def test_other_dtypes_are_left_to_the_library() -> None:
    image, target = (picture.to(torch.bfloat16) for picture in _images(30, 30))
    assert torch.equal(mean_ssim(image, target), _reference(image, target))


@pytest.mark.parametrize(
    ("image", "target"),
    [
        (torch.zeros(10, 30, 3), torch.zeros(10, 30, 3)),
        (torch.zeros(30, 10, 3), torch.zeros(30, 10, 3)),
        (torch.zeros(0, 0, 3), torch.zeros(0, 0, 3)),
        (torch.zeros(30, 30, 3), torch.zeros(30, 31, 3)),
        (torch.zeros(30, 30, 4), torch.zeros(30, 30, 4)),
        (torch.zeros(30, 30), torch.zeros(30, 30)),
        (torch.zeros(30, 30, 3), torch.zeros(30, 30, 3, requires_grad=True)),
    ],
)
def test_what_cannot_be_compared_is_refused(image: Tensor, target: Tensor) -> None:
    with pytest.raises(ValueError) as raised:
        mean_ssim(image, target)
    assert "\n" not in str(raised.value)
