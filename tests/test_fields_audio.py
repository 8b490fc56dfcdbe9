"""Audio encoder: any window length, attention over frames, its two groups of parameters."""

from __future__ import annotations

import pytest
import torch

from degstalk_ns.avatar.fields.audio import AudioEncoder


@pytest.mark.parametrize(("channels", "length"), [(29, 16), (80, 16), (1024, 2), (44, 1), (5, 33)])
def test_windows_of_any_length_give_32_features(channels: int, length: int) -> None:
    out = AudioEncoder(channels, length)(torch.randn(8, channels, length))
    assert out.shape == (32,) and out.isfinite().all()


def test_attention_is_a_convex_combination_of_the_frames() -> None:
    encoder = AudioEncoder(7, 16)
    same = torch.randn(1, 7, 16).expand(8, -1, -1)
    features = encoder.window_layers(encoder.window_convs(same).mean(-1))
    assert torch.allclose(encoder(same), features[0], atol=1e-6)
    weights = encoder.attention(torch.randn(1, 32, 8))
    assert weights.shape == (1, 8) and (weights > 0).all() and torch.allclose(weights.sum(), torch.tensor(1.0))


def test_every_frame_and_every_parameter_matters() -> None:
    encoder = AudioEncoder(7, 16)
    windows = torch.randn(8, 7, 16, requires_grad=True)
    encoder(windows).square().sum().backward()
    assert windows.grad is not None and (windows.grad.flatten(1).norm(dim=1) > 0).all()
    groups = [*encoder.attention_parameters(), *encoder.window_parameters()]
    assert {id(p) for p in groups} == {id(p) for p in encoder.parameters()}
    assert len(groups) == len(list(encoder.parameters()))
    assert all(p.grad is not None for p in groups)


def test_windows_are_standardised_and_frames_that_the_track_lacks_stay_zero() -> None:
    torch.manual_seed(0)
    plain, fitted = AudioEncoder(7, 16), AudioEncoder(7, 16)
    fitted.load_state_dict(plain.state_dict())
    features = 3 * torch.randn(500, 7) + 5  # zero is not their middle
    fitted.standardise.fit(features)
    windows = features[: 8 * 16].view(8, 16, 7)
    standard = fitted.standardise(windows)
    windows, standard = windows.transpose(1, 2).clone(), standard.transpose(1, 2).clone()
    torch.testing.assert_close(fitted(windows), plain(standard))
    windows[:3], standard[:3] = 0, 0
    torch.testing.assert_close(fitted(windows), plain(standard))
    windows[2, 4, 9], standard[2] = 1e-3, fitted.standardise(torch.zeros(7))[:, None]  # a frame that it has
    assert not torch.allclose(fitted(windows), plain(standard * (torch.arange(8) != 2)[:, None, None]))
    torch.testing.assert_close(fitted(windows), plain(standard), atol=1e-3, rtol=1e-3)


def test_without_any_window_the_features_are_zero() -> None:
    """No sound is not a quiet sound: the biases of the network do not speak."""
    encoder = AudioEncoder(7, 16)
    windows = torch.zeros(8, 7, 16)
    assert encoder(windows).abs().max() == 0
    windows[4, 2, 3] = 1e-6  # a quiet one
    assert encoder(windows).abs().max() > 0


@pytest.mark.parametrize("shape", [(8, 16, 7), (7, 7, 16), (8, 7, 8)])
def test_windows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[8, 7, 16\]"):
        AudioEncoder(7, 16)(torch.zeros(shape))
