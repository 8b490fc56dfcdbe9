"""Mouth field: audio moves every Gaussian of the mouth's inside, and says how the jaw stands.

It must not know how Gaussians are stored or drawn, nor where the conditions come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from degstalk_ns.fields.audio import AudioEncoder, AudioEncoderConfig
from degstalk_ns.fields.layers import MLP, linear_of_joined
from degstalk_ns.fields.triplane import TriPlane, TriPlaneConfig
from degstalk_ns.gaussians import Offsets

if TYPE_CHECKING:
    from degstalk_ns.driving import Conditions

JAW = 3


def mouth_encoding() -> TriPlaneConfig:
    """The release's encoding of the mouth: 64 -> 384 x 0.15 cells, so its levels shrink slightly."""
    return TriPlaneConfig(coarsest=64.0, finest=384 * 0.15)


@dataclass
class MouthFieldConfig:
    """Widths and scales of the mouth field. Origin of all: DEGSTalk, method section, and its release's values."""

    encoding: TriPlaneConfig = field(default_factory=mouth_encoding)
    """Tri-plane over the mouth."""
    audio: AudioEncoderConfig = field(default_factory=AudioEncoderConfig)
    """Audio encoder."""
    embedding_dim: int = 32
    """Width of a Gaussian's embedding z."""
    hidden: int = 32
    """Width of the two hidden layers of both networks."""
    mean_scale: tuple[float, float, float] = (0.01 / 5, 0.01, 0.01 / 5)
    """World units per unit of output, along x, y, z: the mouth moves mostly up and down."""


@dataclass
class MouthOutput:
    """What the mouth field says about one frame.

    Attributes:
        offsets: d_means [N, 3] in world units; scales and quats are left alone.
        jaw: [3] jaw coefficients predicted from audio, mean over the Gaussians; the jaw loss compares them by L1.
    """

    offsets: Offsets
    jaw: Tensor


class MouthField(nn.Module):
    """Translation of the mouth's Gaussians by audio. Source: DEGSTalk, method section."""

    def __init__(self, config: MouthFieldConfig, audio_channels: int, audio_length: int) -> None:
        """
        Args:
            config: widths and scales.
            audio_channels, audio_length: C and L of the audio windows.
        """
        super().__init__()
        self.config = c = config
        self.encoding = TriPlane(c.encoding)
        self.audio = AudioEncoder(audio_channels, audio_length, c.audio)
        width = c.encoding.output_dim + c.embedding_dim + c.audio.features
        self.head = MLP(width, c.hidden, c.hidden, 3)
        self.jaw_head = MLP(width, c.hidden, c.hidden, JAW)
        self.register_buffer("mean_scale", torch.tensor(c.mean_scale), persistent=False)

    def forward(self, means: Tensor, embeddings: Tensor, conditions: Conditions) -> MouthOutput:
        """Offsets of every Gaussian and the jaw for one frame.

        Args:
            means: [N, 3] undeformed positions, world units. embeddings: [N, 32].
            conditions: only audio [8, C, L] is read.

        Returns:
            Offsets and jaw; differentiable in means, embeddings, audio and the field's parameters.

        Raises:
            ValueError: audio windows of another shape than the field was built for.
        """
        audio = self.audio(conditions.audio)  # [32]
        # Both networks share one product for their first layers. All Gaussians hear the same: one row, added to all.
        weight = torch.cat([self.head.first_weight, self.jaw_head.first_weight])
        spatial, heard = weight.split([weight.shape[1] - len(audio), len(audio)], dim=1)
        first = linear_of_joined((self.encoding(means), embeddings), spatial) + heard @ audio
        hidden, jaw_hidden = first.split([len(self.head.first_weight), len(self.jaw_head.first_weight)], dim=1)

        d_means = self.head.after_first(hidden) * cast(Tensor, self.mean_scale)
        return MouthOutput(offsets=Offsets(d_means=d_means), jaw=self.jaw_head.after_first(jaw_hidden).mean(dim=0))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters, each in one of "grids", "networks" and "audio_attention": their learning rates differ."""
        return {
            "grids": list(self.encoding.parameters()),
            "networks": [
                *self.audio.window_parameters(),
                *self.head.parameters(),
                *self.jaw_head.parameters(),
            ],
            "audio_attention": self.audio.attention_parameters(),
        }
