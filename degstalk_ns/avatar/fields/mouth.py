"""Mouth field: audio (and, if asked for, the expression) moves every Gaussian of the mouth interior, and audio predicts
the position of the jaw.

It must not know how Gaussians are stored or rendered, nor where the conditions come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from degstalk_ns.avatar.fields.audio import AudioEncoder, AudioEncoderConfig
from degstalk_ns.avatar.fields.layers import MLP
from degstalk_ns.avatar.fields.parts import LOWER_MOVERS, part_of
from degstalk_ns.avatar.fields.standardise import Standardise, StandardiseConfig
from degstalk_ns.avatar.fields.triplane import TriPlane, TriPlaneConfig
from degstalk_ns.avatar.gaussians import Offsets

if TYPE_CHECKING:
    from degstalk_ns.avatar.driving import Conditions

JAW = 3


def mouth_encoding() -> TriPlaneConfig:
    """Encoding of the mouth as in the official DEGSTalk code: 64 to 384 x 0.15 = 57.6 cells, so that the resolution
    decreases slightly from level to level."""
    return TriPlaneConfig(coarsest=64.0, finest=384 * 0.15)


@dataclass
class MouthFieldConfig:
    """Sizes of the mouth field. The values are those of the official DEGSTalk code, unless an option says otherwise."""

    encoding: TriPlaneConfig = field(default_factory=mouth_encoding)
    """Tri-plane encoding of the position of a Gaussian of the mouth. In the official DEGSTalk code the finest level of
    the mouth (57.6) has fewer cells than the coarsest (64); both values are kept."""
    audio: AudioEncoderConfig = field(default_factory=AudioEncoderConfig)
    """Network that encodes the audio for the mouth. All values are those of the official DEGSTalk code."""
    embedding_dim: int = 32
    """Dimension of the embedding z of each Gaussian. It must equal the embedding dimension of the mouth's Gaussians."""
    hidden: int = 32
    """Width of the two hidden layers of the networks that predict the offsets and the jaw."""
    expression_hidden: int = 32
    """Hidden width of the network that compresses the expression coefficients, where they are used."""
    expression_features: int = 0
    """Number of features of the expression that move the mouth interior beside the audio; 0, as in the official
    DEGSTalk code, leaves it to the audio, which does not tell where the lower teeth and the tongue are."""
    parts: bool = False
    """Whether only those expression values move the mouth interior that move the lower face. It needs their names."""
    mean_scale: tuple[float, float, float] = (0.01 / 5, 0.01, 0.01 / 5)
    """Factors from the network output to the position offset of a Gaussian along x, y and z, in world units (about
    metres). They are largest along y because the mouth moves mostly up and down."""


@dataclass
class MouthOutput:
    """Output of the mouth field for one frame.

    Attributes:
        offsets: d_means [N, 3] in world units; scales and quats are not changed.
        jaw: [3] standardised jaw coefficients predicted from audio, mean over the Gaussians; the jaw loss compares them
            by L1 with the tracked ones, standardised too. None where there are none.
    """

    offsets: Offsets
    jaw: Tensor | None


@dataclass
class PreparedMouth:
    """The part of the mouth field's computation that no frame changes, for every Gaussian.

    Attributes:
        hidden: [N, 64] first layers of both networks on position and embedding alone, before their activation.
    """

    hidden: Tensor


class MouthField(nn.Module):
    """Translation of the mouth's Gaussians by audio. Source: DEGSTalk, method section."""

    acting: Tensor
    """[E] 1 for the expression coefficients that are used, 0 for the others."""

    def __init__(
        self,
        config: MouthFieldConfig,
        audio_channels: int,
        audio_length: int,
        expression_dim: int = 0,
        standardise: StandardiseConfig | None = None,
        expression_names: Sequence[str] = (),
        jaw: int = JAW,
    ) -> None:
        """
        Args:
            config: widths and scales.
            audio_channels: C, features per time step of an audio window.
            audio_length: L, time steps in an audio window.
            expression_dim: E, expression coefficients per frame; not needed if the config does not use them.
            standardise: how the driving signals are brought to one size.
            expression_names: names of the expression coefficients, or none: then every one can move the mouth.
            jaw: number of jaw coefficients that are to be heard; 0 for none, and no network for them.
        """
        super().__init__()
        self.config = c = config
        self.encoding = TriPlane(c.encoding)
        standardise = standardise or StandardiseConfig()
        self.audio = AudioEncoder(audio_channels, audio_length, c.audio, standardise)
        self.standardise_jaw = Standardise(jaw, standardise)
        self.expression: MLP | None = None
        if c.expression_features:
            self.standardise_expression = Standardise(expression_dim, standardise)
            self.expression = MLP(expression_dim, c.expression_hidden, c.expression_features)
            acting = torch.ones(expression_dim)
            if c.parts and expression_names:
                acting = torch.tensor([float(part_of(name) in LOWER_MOVERS) for name in expression_names])
            self.register_buffer("acting", acting, persistent=False)
        self.where_dim = c.encoding.output_dim + c.embedding_dim
        width = self.where_dim + c.audio.features
        self.output_layers = MLP(width + c.expression_features, c.hidden, c.hidden, 3)
        self.jaw_layers = MLP(width, c.hidden, c.hidden, jaw) if jaw else None  # the jaw is to be heard
        self.register_buffer("mean_scale", torch.tensor(c.mean_scale), persistent=False)

    def forward(self, means: Tensor, embeddings: Tensor, conditions: Conditions) -> MouthOutput:
        """Offsets of every Gaussian and the jaw for one frame.

        Args:
            means: [N, 3] undeformed positions, world units. embeddings: [N, 32].
            conditions: only audio [8, C, L] is read, and expression [E] if the config uses it.

        Returns:
            Offsets and jaw; differentiable in means, embeddings, conditions and the field's parameters.

        Raises:
            ValueError: audio windows of another shape than the field was built for.
        """
        prepared = self.prepared(means, embeddings)
        audio = self.audio(conditions.audio)  # [32]
        if self.jaw_layers is None:
            return MouthOutput(offsets=self._moved(prepared.hidden, audio, conditions), jaw=None)
        hidden, jaw_hidden = prepared.hidden.split(self._first_widths, dim=1)
        jaw_hidden = jaw_hidden + self.jaw_layers.first_weight[:, self.where_dim :] @ audio
        jaw = self.jaw_layers.after_first(jaw_hidden).mean(dim=0)
        return MouthOutput(offsets=self._moved(hidden, audio, conditions), jaw=jaw)

    def prepared(self, means: Tensor, embeddings: Tensor) -> PreparedMouth:
        """What does not change from frame to frame: the first layers on position and embedding.

        Args:
            means: [N, 3] undeformed positions, world units. embeddings: [N, 32].
        """
        # Both networks share one product for their first layers.
        firsts = [network.first_weight[:, : self.where_dim] for network in self._networks]
        where = torch.cat([self.encoding(means), embeddings], dim=1)
        return PreparedMouth(hidden=F.linear(where, torch.cat(firsts)))

    def driven(self, prepared: PreparedMouth, conditions: Conditions) -> Offsets:
        """The offsets of :meth:`forward`, without the jaw, which only training compares with something."""
        return self._moved(prepared.hidden[:, : self._first_widths[0]], self.audio(conditions.audio), conditions)

    @property
    def _networks(self) -> list[MLP]:
        return [self.output_layers] if self.jaw_layers is None else [self.output_layers, self.jaw_layers]

    @property
    def _first_widths(self) -> list[int]:
        """Outputs of the first layer of each network."""
        return [len(network.first_weight) for network in self._networks]

    def _moved(self, hidden: Tensor, audio: Tensor, conditions: Conditions) -> Offsets:
        """Offsets from the first layer on position and embedding [N, 32], the audio [32] and the expression."""
        driving = audio
        if self.expression is not None:
            seen = self.expression((self.standardise_expression(conditions.expression) * self.acting)[None])[0]
            driving = torch.cat([audio, seen])
        # The contribution of what drives is the same for all Gaussians.
        return self._offsets(hidden + self.output_layers.first_weight[:, self.where_dim :] @ driving)

    def _offsets(self, hidden: Tensor) -> Offsets:
        return Offsets(d_means=self.output_layers.after_first(hidden) * cast(Tensor, self.mean_scale))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters, each in one of "grids", "networks" and "audio_attention": their learning rates differ."""
        return {
            "grids": list(self.encoding.parameters()),
            "networks": [
                *self.audio.window_parameters(),
                *(self.expression.parameters() if self.expression is not None else ()),
                *(parameter for network in self._networks for parameter in network.parameters()),
            ],
            "audio_attention": self.audio.attention_parameters(),
        }
