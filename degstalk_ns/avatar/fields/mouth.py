"""Mouth field: audio moves every Gaussian of the mouth's inside, and says how the jaw stands.

It must not know how Gaussians are stored or drawn, nor where the conditions come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from degstalk_ns.avatar.fields.audio import AudioEncoder, AudioEncoderConfig
from degstalk_ns.avatar.fields.layers import MLP
from degstalk_ns.avatar.fields.triplane import TriPlane, TriPlaneConfig
from degstalk_ns.avatar.gaussians import Offsets

if TYPE_CHECKING:
    from degstalk_ns.avatar.driving import Conditions

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


@dataclass
class PreparedMouth:
    """What the mouth field knows of every Gaussian before it sees a frame.

    Attributes:
        hidden: [N, 64] the first layers of both networks on position and embedding alone, not activated.
    """

    hidden: Tensor


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
        prepared = self.prepared(means, embeddings)
        audio = self.audio(conditions.audio)  # [32]
        hidden, jaw_hidden = (prepared.hidden + self._heard(audio)).split(self._first_widths, dim=1)
        jaw = self.jaw_head.after_first(jaw_hidden).mean(dim=0)
        return MouthOutput(offsets=self._offsets(hidden), jaw=jaw)

    def prepared(self, means: Tensor, embeddings: Tensor) -> PreparedMouth:
        """What does not change from frame to frame: the first layers on position and embedding.

        Args:
            means: [N, 3] undeformed positions, world units. embeddings: [N, 32].
        """
        # Both networks share one product for their first layers.
        weight = torch.cat([self.head.first_weight, self.jaw_head.first_weight])
        where = torch.cat([self.encoding(means), embeddings], dim=1)
        return PreparedMouth(hidden=F.linear(where, weight[:, : where.shape[1]]))

    def driven(self, prepared: PreparedMouth, conditions: Conditions) -> Offsets:
        """The offsets of :meth:`forward`, without the jaw, which only training compares with something."""
        width = self._first_widths[0]
        hidden = prepared.hidden[:, :width] + self._heard(self.audio(conditions.audio))[:width]
        return self._offsets(hidden)

    @property
    def _first_widths(self) -> list[int]:
        """Outputs of the first layers of both networks."""
        return [len(self.head.first_weight), len(self.jaw_head.first_weight)]

    def _heard(self, audio: Tensor) -> Tensor:
        """What the first layers of both networks make of the audio [32]: all Gaussians hear the same."""
        weight = torch.cat([self.head.first_weight, self.jaw_head.first_weight])
        return weight[:, -len(audio) :] @ audio

    def _offsets(self, hidden: Tensor) -> Offsets:
        return Offsets(d_means=self.head.after_first(hidden) * cast(Tensor, self.mean_scale))

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
