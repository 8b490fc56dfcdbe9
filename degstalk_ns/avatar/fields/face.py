"""Face field: audio, expression and eyelids of one frame move and reshape every Gaussian of the face.

It must not know how Gaussians are stored or rendered, nor where the conditions come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from degstalk_ns.avatar.fields.audio import AudioEncoder, AudioEncoderConfig
from degstalk_ns.avatar.fields.layers import MLP, PartedMLP
from degstalk_ns.avatar.fields.parts import FacePart, FaceParts, allotted, connections, part_of
from degstalk_ns.avatar.fields.standardise import Standardise, StandardiseConfig
from degstalk_ns.avatar.fields.triplane import TriPlane, TriPlaneConfig
from degstalk_ns.avatar.gaussians import Offsets
from degstalk_ns.errors import UserError

if TYPE_CHECKING:
    from degstalk_ns.avatar.driving import Conditions

EYELIDS = 2
_OUTPUTS = (3, 4, 1, 3)
"""Widths of the network's outputs: means, quats, opacity (the method predicts it and leaves it unused), scales."""


@dataclass
class FaceFieldConfig:
    """Sizes of the face field. The values are those of the official DEGSTalk code, unless an option says otherwise."""

    encoding: TriPlaneConfig = field(default_factory=TriPlaneConfig)
    """Tri-plane encoding of the position of a Gaussian of the face."""
    audio: AudioEncoderConfig = field(default_factory=AudioEncoderConfig)
    """Network that encodes the audio for the face. All values are those of the official DEGSTalk code."""
    embedding_dim: int = 32
    """Dimension of the embedding z of each Gaussian. It must equal the embedding dimension of the face's Gaussians."""
    audio_attention_hidden: int = 32
    """Hidden width of the network for the channel attention on audio."""
    expression_hidden: int = 16
    """Hidden width of the network that compresses the expression coefficients."""
    expression_features: int = 14
    """Number of features that the expression coefficients are compressed to. The two eyelid values are appended."""
    expression_attention_hidden: int = 16
    """Hidden width of the network for the channel attention on expression and eyelids."""
    hidden: int = 64
    """Width of the two hidden layers of the network that predicts the offsets."""
    parts: bool = False
    """Whether each driving signal moves only its own part of the face: sound and the mouth's values the lower face, the
    eyes' and the brows' values what is around them. It needs names of the expression values. In the official DEGSTalk
    code every signal can move every Gaussian."""
    mean_scale: float = 0.01
    """Factor from the network output to the position offset of a Gaussian, in world units (about metres)."""


@dataclass
class FaceOutput:
    """Output of the face field for one frame.

    Attributes:
        offsets: d_means [N, 3] in world units, d_quats [N, 4], d_scales [N, 3] (log), all on the raw parameters.
        audio_attention: [N] L2 norm of each Gaussian's channel attention on audio, >= 0.
        expression_attention: [N] L2 norm of the channel attention on expression and eyelids, >= 0.
    """

    offsets: Offsets
    audio_attention: Tensor
    expression_attention: Tensor


@dataclass
class PreparedFace:
    """The part of the face field's computation that no frame changes, for every Gaussian.

    Attributes:
        gates: [N, 48] channel attention on audio (32), then on expression and eyelids (16).
        hidden: [N, 64] first of the output layers on position and embedding alone, before its activation.
        audio_attention, expression_attention: [N], as in :class:`FaceOutput`.
    """

    gates: Tensor
    hidden: Tensor
    audio_attention: Tensor
    expression_attention: Tensor


class FaceField(nn.Module):
    """Deformation of embedded Gaussians by audio and expression. Source: DEGSTalk, method section."""

    of_part: Tensor
    """[4, channels] 1 where a channel of the gates belongs to a part of the face."""

    def __init__(
        self,
        config: FaceFieldConfig,
        audio_channels: int,
        audio_length: int,
        expression_dim: int,
        standardise: StandardiseConfig | None = None,
        expression_names: Sequence[str] = (),
        eyelids: int = EYELIDS,
    ) -> None:
        """
        Args:
            config: widths and scales.
            audio_channels: C, features per time step of an audio window.
            audio_length: L, time steps in an audio window.
            expression_dim: E, expression coefficients per frame (50 for a monocular 3DMM tracker).
            standardise: how the driving signals are brought to one size.
            expression_names: names of the expression coefficients, or none: then every one can move the whole face.
            eyelids: number of eyelid values: two, or none where action units tell the lids too.
        """
        super().__init__()
        self.config = c = config
        self.encoding = TriPlane(c.encoding)
        standardise = standardise or StandardiseConfig()
        self.audio = AudioEncoder(audio_channels, audio_length, c.audio, standardise)
        self.standardise_expression = Standardise(expression_dim, standardise)
        self.standardise_eyelids = Standardise(eyelids, standardise)
        self.parts: FaceParts | None = None
        self.expression: MLP
        if c.parts and expression_names:
            inputs = [part_of(name) for name in expression_names]
            hidden, features = (allotted(width, inputs) for width in (c.expression_hidden, c.expression_features))
            self.expression = PartedMLP(connections(inputs, hidden, features))
            self.parts = FaceParts()
            gates = [FacePart.LOWER] * c.audio.features + features + [FacePart.EYES] * eyelids
            self.register_buffer("of_part", F.one_hot(torch.tensor(gates), len(FacePart)).T.float(), persistent=False)
        else:
            self.expression = MLP(expression_dim, c.expression_hidden, c.expression_features)
        self.where_dim = c.encoding.output_dim + c.embedding_dim
        joined = c.expression_features + eyelids
        self.audio_channel_attention = MLP(self.where_dim, c.audio_attention_hidden, c.audio.features)
        self.expression_channel_attention = MLP(self.where_dim, c.expression_attention_hidden, joined)
        self.output_layers = MLP(self.where_dim + c.audio.features + joined, c.hidden, c.hidden, sum(_OUTPUTS))

    def forward(self, means: Tensor, embeddings: Tensor, conditions: Conditions) -> FaceOutput:
        """Offsets of every Gaussian for one frame.

        Args:
            means: [N, 3] undeformed positions, world units. embeddings: [N, 32].
            conditions: audio [8, C, L], expression [E] and eyelids [2] of the frame; jaw is not read.

        Returns:
            Offsets and attention norms; differentiable in means, embeddings, conditions and the field's parameters.

        Raises:
            ValueError: conditions of another shape than the field was built for.
        """
        return self.driven(self.prepared(means, embeddings), conditions)

    def prepared(self, means: Tensor, embeddings: Tensor) -> PreparedFace:
        """What does not change from frame to frame: everything that sees only where a Gaussian is and its embedding.

        Args:
            means: [N, 3] undeformed positions, world units. embeddings: [N, 32].
        """
        where = torch.cat([self.encoding(means), embeddings], dim=1)  # F = [H(mean), z]
        networks = (self.audio_channel_attention, self.expression_channel_attention, self.output_layers)
        firsts = [network.first_weight[:, : self.where_dim] for network in networks]
        # One product for the first layers of all three networks.
        first = F.linear(where, torch.cat(firsts)).split([len(weight) for weight in firsts], dim=1)
        audio_gate = self.audio_channel_attention.after_first(first[0])  # [N, 32]
        expression_gate = F.relu(self.expression_channel_attention.after_first(first[1]))  # [N, 16]
        gates = torch.cat([audio_gate, expression_gate], dim=1)
        if self.parts is not None:
            gates = gates * (self.parts(means) @ self.of_part.to(means.dtype))
        audio_gate, expression_gate = gates.split([audio_gate.shape[1], expression_gate.shape[1]], dim=1)
        return PreparedFace(
            gates=gates,
            hidden=first[2],
            audio_attention=torch.linalg.vector_norm(audio_gate, dim=1),
            expression_attention=torch.linalg.vector_norm(expression_gate, dim=1),
        )

    def driven(self, prepared: PreparedFace, conditions: Conditions) -> FaceOutput:
        """The rest of :meth:`forward`: what depends on the frame."""
        audio = self.audio(conditions.audio)  # [32]
        expression = self.expression(self.standardise_expression(conditions.expression)[None])[0]
        driving = torch.cat([audio, expression, self.standardise_eyelids(conditions.eyelids)])  # [48]
        # The first of the output layers on [F, gates * driving], without building that matrix:
        # (gates * d) @ W.T = gates @ (W * d).T, and W * d is 64 x 48 however many Gaussians there are.
        on_driving = self.output_layers.first_weight[:, self.where_dim :]
        hidden = torch.addmm(prepared.hidden, prepared.gates, (on_driving * driving).t())
        d_means, d_quats, _, d_scales = self.output_layers.after_first(hidden).split(_OUTPUTS, dim=1)
        return FaceOutput(
            offsets=Offsets(d_means=d_means * self.config.mean_scale, d_scales=d_scales, d_quats=d_quats),
            audio_attention=prepared.audio_attention,
            expression_attention=prepared.expression_attention,
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        stored = any(key.startswith(prefix) for key in state_dict)
        if stored and f"{prefix}standardise_expression.centre" not in state_dict:
            raise UserError(
                "the checkpoint was written by a version of degstalk-ns that did not standardise its driving signals; "
                "train again, or install that version"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters, each in one of "grids", "networks" and "audio_attention": their learning rates differ."""
        networks = (
            self.expression,
            self.audio_channel_attention,
            self.expression_channel_attention,
            self.output_layers,
        )
        return {
            "grids": list(self.encoding.parameters()),
            "networks": [*self.audio.window_parameters(), *(p for network in networks for p in network.parameters())],
            "audio_attention": self.audio.attention_parameters(),
        }
