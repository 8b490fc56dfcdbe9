"""Audio encoder: a window of audio features per frame becomes one vector, smoothed by attention over its neighbours.

It must not know Gaussians, nor which audio features (mel, DeepSpeech, HuBERT) the windows hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from degstalk_ns.avatar.fields.standardise import Standardise, StandardiseConfig


@dataclass
class AudioEncoderConfig:
    """Network that encodes the audio. All values are those of the official DEGSTalk code."""

    conv_widths: tuple[int, ...] = (32, 32, 64, 64)
    """Output channels of the Conv1d layers (kernel 3, stride 2) over the audio window of one frame."""
    hidden: int = 64
    """Hidden width of the two linear layers that follow the convolutions."""
    features: int = 32
    """Number of audio features per frame that the encoder returns."""
    attention_widths: tuple[int, ...] = (16, 8, 4, 2, 1)
    """Output channels of the Conv1d layers (kernel 3, stride 1) that compute the attention over neighbouring frames."""
    frames: int = 8
    """Number of neighbouring frames that the attention covers: 4 before and 4 after the current moment."""
    encode_absent: bool = False
    """Encode the windows that a track lacks, before its beginning and after its end, like windows of zeros, as the
    official DEGSTalk code does; otherwise they count as no sound, which has no features."""
    leaky_slope: float = 0.02
    """Negative slope of the leaky ReLU activations."""


def _convolved(x: Tensor, layers: nn.Sequential) -> Tensor:
    """The Conv1d layers of ``layers``, each with the activation after it, on sequences [B, L, C] (channels last).

    As products of matrices: the library's convolutions cost 0.3 ms each on a CPU, whatever their size, and these have
    nearly none.
    """
    for layer, activation in pairwise(layers):
        if isinstance(layer, nn.Conv1d):
            pad, taps, stride = cast(int, layer.padding[0]), layer.kernel_size[0], layer.stride[0]
            seen = F.pad(x, (0, 0, pad, pad)).unfold(1, taps, stride).flatten(2)  # [B, L', C * taps]
            x = activation(F.linear(seen, layer.weight.flatten(1), layer.bias))
    return x


class AudioEncoder(nn.Module):
    """Convolutions over each frame's window, then attention over 8 frames. Source: DEGSTalk, method section (audio)."""

    def __init__(
        self,
        channels: int,
        length: int,
        config: AudioEncoderConfig | None = None,
        standardise: StandardiseConfig | None = None,
    ) -> None:
        """
        Args:
            channels: C, features per time step (29 DeepSpeech, 1024 HuBERT, the number of mel bands, ...).
            length: L, time steps in a window (16; HuBERT 2). Any L >= 1 works.
            config: widths; the default is that of the official DEGSTalk code.
            standardise: how the channels are brought to one size.
        """
        super().__init__()
        self.standardise = Standardise(channels, standardise or StandardiseConfig())
        self.config = config = config or AudioEncoderConfig()
        self.channels, self.length = channels, length
        convs: list[nn.Module] = []
        width = channels
        for out in config.conv_widths:
            convs += [nn.Conv1d(width, out, kernel_size=3, stride=2, padding=1), nn.LeakyReLU(config.leaky_slope)]
            width = out
        self.window_convs = nn.Sequential(*convs)
        self.window_layers = nn.Sequential(
            nn.Linear(width, config.hidden), nn.LeakyReLU(config.leaky_slope), nn.Linear(config.hidden, config.features)
        )
        attention: list[nn.Module] = []
        width = config.features
        for out in config.attention_widths:
            attention += [nn.Conv1d(width, out, kernel_size=3, padding=1), nn.LeakyReLU(config.leaky_slope)]
            width = out
        self.attention = nn.Sequential(
            *attention, nn.Flatten(), nn.Linear(width * config.frames, config.frames), nn.Softmax(dim=-1)
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Encode the windows around one frame.

        Args:
            windows: [8, C, L] float; frames that the track lacks are zero.

        Returns:
            [32] audio features of the frame; zero without any window, which is to be no sound rather than a quiet one,
            unless the config has them encoded.

        Raises:
            ValueError: the windows have another shape.
        """
        expected = (self.config.frames, self.channels, self.length)
        if tuple(windows.shape) != expected:
            raise ValueError(f"audio windows must be {list(expected)}, got {list(windows.shape)}")
        # frames that the track lacks stay zero
        there = (windows != 0).flatten(1).any(1)[:, None, None] | self.config.encode_absent
        windows = self.standardise(windows.transpose(1, 2)) * there  # [8, L, C]
        # Four strides of 2 leave one step of a window up to 16 long, so the mean is the identity there.
        per_frame = self.window_layers(_convolved(windows, self.window_convs).mean(dim=1))  # [8, 32]
        scores = _convolved(per_frame[None], self.attention).transpose(1, 2)  # [1, 1, 8]
        weights = self.attention[-3:](scores)  # [1, 8]
        return cast(Tensor, (weights @ per_frame)[0] * there.any())

    def attention_parameters(self) -> list[nn.Parameter]:
        """Parameters of the attention over frames; they have a learning rate of their own."""
        return list(self.attention.parameters())

    def window_parameters(self) -> list[nn.Parameter]:
        """All other parameters."""
        return [*self.window_convs.parameters(), *self.window_layers.parameters()]
