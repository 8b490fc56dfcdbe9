"""Reads a checkpoint of the official DEGSTalk code, or of TalkingGaussian, which it builds on, as the parameters of an
:class:`~degstalk_ns.avatar.avatar.Avatar`.

A finished run there is ``chkpnt_fuse_latest.pth``: the Gaussians of the face (a tuple), the state of its network, and
the same of the mouth. Its scales go through softplus, its opacities through a sigmoid, as ours; its grids have the
vertices of Instant-NGP. It must not know nerfstudio or datasets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from degstalk_ns.avatar.avatar import AvatarConfig, Region
from degstalk_ns.avatar.fields.audio import AudioEncoderConfig
from degstalk_ns.avatar.fields.face import FaceFieldConfig
from degstalk_ns.avatar.fields.mouth import MouthFieldConfig, mouth_encoding
from degstalk_ns.avatar.fields.standardise import StandardiseConfig
from degstalk_ns.avatar.fields.triplane import TriPlaneConfig
from degstalk_ns.avatar.gaussians import GaussiansConfig
from degstalk_ns.errors import UserError
from degstalk_ns.rasterization.rules import MAX_SH_DEGREE
from degstalk_ns.reading.tensors import read_plain

NAME: Final[str] = "chkpnt_fuse_latest.pth"
_EXPECTED: Final[str] = f"expected the {NAME} of a finished run of DEGSTalk or TalkingGaussian"
_STATISTICS: Final[int] = 13
"""Entries of the tuple of a region's Gaussians, up to the last of its statistics; the embeddings follow."""
_FACE_OUTPUTS: Final[int] = 11
"""Outputs of the face's network: mean 3, rotation 4, opacity 1, scale 3."""
_PLANES: Final[tuple[str, ...]] = ("xy", "yz", "xz")
_UNUSED: Final[Mapping[Region, tuple[str, ...]]] = {"face": (), "mouth": ("aud_ch_att_net",)}
"""Networks that are stored and take no part."""


@dataclass(frozen=True)
class ReleaseCheckpoint:
    """An avatar as it was read.

    Attributes:
        path: where from.
        config: sizes of an avatar that computes the same.
        state: its parameters, by their names in the avatar's ``state_dict``.
        audio_channels: C of the audio windows that drive it.
        expression: number of expression values that are compressed together.
        eyelids: number of values that reach the face as they are.
        jaw: number of jaw coefficients that the mouth predicts.
        sh_degree: degree of the spherical harmonics in use.
    """

    path: Path
    config: AvatarConfig
    state: dict[str, Tensor]
    audio_channels: int
    expression: int
    eyelids: int
    jaw: int
    sh_degree: int

    @property
    def embedded(self) -> bool:
        """Whether its Gaussians have embeddings: DEGSTalk's have, TalkingGaussian's have not."""
        return self.config.face.embedding_dim > 0


def read_checkpoint(path: Path) -> ReleaseCheckpoint:
    """Reads ``path`` without running anything that it holds.

    Raises:
        UserError: missing, damaged, with pickled code, of another project, of a stage before the last, or with numbers
            that do not fit together or are not finite.
    """
    content = read_plain(path, _EXPECTED)
    _check_outline(path, content)
    parts = {"face": _Part(path, "face", content[0], content[1]), "mouth": _Part(path, "mouth", content[2], content[3])}
    face, mouth = parts["face"], parts["mouth"]
    face_field, expression, eyelids = _face_field(face)
    mouth_field, jaw = _mouth_field(mouth)
    for name, field in (("face", face_field), ("mouth", mouth_field)):
        parts[name].check_all_used()
        width = parts[name].embedding_dim
        if field.embedding_dim != width:
            parts[name].refuse(
                f"its network takes {field.embedding_dim} values beside the position of a Gaussian, and a Gaussian has "
                f"an embedding of {width}"
            )
    if face.audio_channels != mouth.audio_channels:
        face.refuse(f"it hears {face.audio_channels} channels and the mouth {mouth.audio_channels}")
    return ReleaseCheckpoint(
        path=path,
        config=AvatarConfig(
            face=face.gaussians_config(),
            mouth=mouth.gaussians_config(),
            face_field=face_field,
            mouth_field=mouth_field,
            standardise=StandardiseConfig(enabled=False),
        ),
        state=face.state | mouth.state,
        audio_channels=face.audio_channels,
        expression=expression,
        eyelids=eyelids,
        jaw=jaw,
        sh_degree=min(face.sh_degree, mouth.sh_degree),
    )


def _check_outline(path: Path, content: Any) -> None:
    """Refuse what is no checkpoint of a finished run."""
    what = "holds something else"
    kinds = [type(part) for part in content] if isinstance(content, (tuple, list)) else []
    if len(kinds) == 4 and all(issubclass(kind, (tuple, list)) for kind in kinds[::2]):
        if all(issubclass(kind, dict) for kind in kinds[1::2]):
            return
    if len(kinds) == 4 and kinds[3] is int:
        what = "holds the face or the mouth alone, before they are fused"
    elif len(kinds) == 2 and kinds[1] is int:
        what = "is a checkpoint of 3-D Gaussian splatting, without networks that move it"
    elif isinstance(content, dict) and "pipeline" in content:
        what = "is a checkpoint of nerfstudio, whose run renders as it is"
    raise UserError(f"{path}: {what}; {_EXPECTED}")


class _Part:
    """One region of a checkpoint: hands out its tensors, and remembers which were asked for."""

    def __init__(self, path: Path, name: Region, gaussians: Any, network: Mapping[str, Any]) -> None:
        self.path, self.name, self.network = path, name, network
        self.used: set[str] = set()
        self.state: dict[str, Tensor] = {}
        self.audio_channels = 0
        if len(gaussians) not in (_STATISTICS, _STATISTICS + 1):
            self.refuse(f"its Gaussians have {len(gaussians)} entries, expected {_STATISTICS} or {_STATISTICS + 1}")
        self._take_gaussians(gaussians)

    def refuse(self, what: str) -> None:
        raise UserError(f"{self.path}: {self.name}: {what}; {_EXPECTED}")

    def gaussians_config(self) -> GaussiansConfig:
        return GaussiansConfig(
            num_points=self.count,
            sh_degree=self._most_degree,
            embedding_dim=self.embedding_dim,
            scale_offsets="softplus",
        )

    def _take_gaussians(self, entries: Any) -> None:
        degree, means, dc, rest, _, scales, quats, opacities, *_ = entries
        embeddings = entries[_STATISTICS] if len(entries) > _STATISTICS else None
        self.count = len(means) if isinstance(means, Tensor) and means.ndim else 0
        coefficients = rest.shape[1] + 1 if isinstance(rest, Tensor) and rest.ndim == 3 else 0
        n = self.count
        shapes = {
            "positions": (means, (n, 3)),
            "colours": (dc, (n, 1, 3)),
            "colours by direction": (rest, (n, coefficients - 1, 3)),
            "scales": (scales, (n, 3)),
            "rotations": (quats, (n, 4)),
            "opacities": (opacities, (n, 1)),
        }
        if embeddings is not None:
            width = embeddings.shape[-1] if isinstance(embeddings, Tensor) and embeddings.ndim else 0
            shapes["embeddings"] = (embeddings, (n, width))
        for what, (tensor, shape) in shapes.items():
            if not _is_dense(tensor) or tuple(tensor.shape) != shape or not n:
                got = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
                self.refuse(f"the {what} of its Gaussians are {got}, expected {list(shape)}")
            self._check_finite(what, tensor)
        self._most_degree = math.isqrt(coefficients) - 1
        known = type(degree) is int and 0 <= degree <= self._most_degree <= MAX_SH_DEGREE
        if (self._most_degree + 1) ** 2 != coefficients or not known:
            self.refuse(f"its spherical harmonics are of degree {degree} with {coefficients} coefficients")
        self.sh_degree = degree
        self.embedding_dim = 0 if embeddings is None else int(embeddings.shape[1])
        raw = {
            "means": means,
            "scales": torch.nn.functional.softplus(scales.double()).log(),
            "quats": quats,
            "opacities": opacities[:, 0],
            "sh0": dc,
            "shN": rest,
        }
        if embeddings is not None:
            raw["embeddings"] = embeddings
        self.state |= {f"gaussians.{self.name}.params.{key}": value.detach().float() for key, value in raw.items()}

    def _check_finite(self, what: str, tensor: Tensor) -> None:
        if not bool(torch.isfinite(tensor).all()):
            self.refuse(f"{what} with values that are not finite")

    def take(self, key: str, dimensions: int) -> Tensor:
        """The tensor ``key`` of the network."""
        tensor: Any = self.network.get(key)
        if not _is_dense(tensor) or tensor.ndim != dimensions:
            got = f"of {tensor.ndim} dimensions" if isinstance(tensor, Tensor) else "missing"
            self.refuse(f"{key} of its network is {got}, expected {dimensions}")
        assert isinstance(tensor, Tensor)
        self._check_finite(key, tensor)
        self.used.add(key)
        return tensor.detach()

    def take_mlp(self, name: str, layers: int, ours: str) -> list[int]:
        """A network of ``layers`` layers without biases; its widths, from its input on."""
        weights = [self.take(f"{name}.net.{index}.weight", 2) for index in range(layers)]
        widths = [weights[0].shape[1]]
        for index, weight in enumerate(weights):
            if weight.shape[1] != widths[-1]:
                self.refuse(f"{name}.net.{index} takes {weight.shape[1]} values and is given {widths[-1]}")
            widths.append(weight.shape[0])
            self.state[f"{self.name}_field.{ours}.layers.{index}.weight"] = weight.float()
        return widths

    def take_audio(self) -> AudioEncoderConfig:
        """The encoder of the audio; sets how many channels it hears."""
        config = AudioEncoderConfig()
        ours = f"{self.name}_field.audio"
        convs, attention = len(config.conv_widths), len(config.attention_widths)
        places = {f"audio_net.encoder_conv.{2 * i}": (f"window_convs.{2 * i}", 3) for i in range(convs)}
        places |= {f"audio_net.encoder_fc1.{2 * i}": (f"window_layers.{2 * i}", 2) for i in range(2)}
        name = "audio_att_net.attentionConvNet"
        places |= {f"{name}.{2 * i}": (f"attention.{2 * i}", 3) for i in range(attention)}
        places["audio_att_net.attentionNet.0"] = (f"attention.{2 * attention + 1}", 2)
        shapes: dict[str, tuple[int, ...]] = {}
        for theirs, (place, dimensions) in places.items():
            weight, bias = self.take(f"{theirs}.weight", dimensions), self.take(f"{theirs}.bias", 1)
            shapes[place] = tuple(weight.shape)
            self.state[f"{ours}.{place}.weight"], self.state[f"{ours}.{place}.bias"] = weight.float(), bias.float()
        self.audio_channels = shapes["window_convs.0"][1]
        found = replace(
            config,
            conv_widths=tuple(shapes[f"window_convs.{2 * i}"][0] for i in range(convs)),
            hidden=shapes["window_layers.0"][0],
            features=shapes["window_layers.2"][0],
            attention_widths=tuple(shapes[f"attention.{2 * i}"][0] for i in range(attention)),
            frames=shapes[f"attention.{2 * attention + 1}"][0],
            encode_absent=True,
        )
        if found.frames != config.frames:
            self.refuse(f"its attention covers {found.frames} frames, expected {config.frames}")
        return found

    def take_grids(self, encoding: TriPlaneConfig) -> TriPlaneConfig:
        """The tri-plane encoding."""
        cells, table = encoding.cells(), []
        for plane in _PLANES:
            entries = self.take(f"encoder_{plane}.embeddings", 2)
            starts = self.take(f"encoder_{plane}.offsets", 1).tolist()
            sizes = [(c + 1) ** 2 for c in cells]
            # Levels are padded to multiples of 8 in most versions.
            room = [after - before for before, after in pairwise(starts)]
            fits = len(room) == len(sizes) and all(n <= m < n + 8 for n, m in zip(sizes, room, strict=True))
            if not fits or starts[0] != 0 or entries.shape != (starts[-1], 1):
                self.refuse(f"encoder_{plane} has levels of {room} entries, expected about {sizes}")
            table += [entries[start : start + size, 0] for start, size in zip(starts, sizes, strict=False)]
        self.state[f"{self.name}_field.encoding.table"] = torch.cat(table).float()
        return encoding

    def check_all_used(self) -> None:
        """Refuse a network with parts that were not read: it computes something else."""
        left = [
            str(key)
            for key in self.network
            if key not in self.used and str(key).split(".")[0] not in _UNUSED[self.name]
        ]
        if left:
            self.refuse(f"its network has parts that are not known: {', '.join(sorted(left)[:4])}")


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized


def _release_grid(encoding: TriPlaneConfig) -> TriPlaneConfig:
    return replace(encoding, vertices="instant-ngp", backend="torch")


def _face_field(part: _Part) -> tuple[FaceFieldConfig, int, int]:
    """Sizes of the face's field, the number of its expression values, and of those that reach it as they are."""
    encoding, audio = part.take_grids(_release_grid(TriPlaneConfig())), part.take_audio()
    expression, hidden, features = part.take_mlp("exp_encode_net", 2, "expression")
    where, audio_hidden, audio_gates = part.take_mlp("aud_ch_att_net", 2, "audio_channel_attention")
    same_where, expression_hidden, joined = part.take_mlp("eye_att_net", 2, "expression_channel_attention")
    inputs, width, same_width, outputs = part.take_mlp("sigma_net", 3, "output_layers")
    fits = where == same_where and width == same_width and audio_gates == audio.features and joined >= features
    fits = fits and inputs == where + audio.features + joined and where >= encoding.output_dim
    if not fits or outputs != _FACE_OUTPUTS:
        part.refuse(
            f"the widths of its networks do not fit together: expression {expression}-{hidden}-{features}, attention "
            f"{where}-{audio_hidden}-{audio_gates} and {same_where}-{expression_hidden}-{joined}, output "
            f"{inputs}-{width}-{same_width}-{outputs}"
        )
    field = FaceFieldConfig(
        encoding=encoding,
        audio=audio,
        embedding_dim=where - encoding.output_dim,
        audio_attention_hidden=audio_hidden,
        expression_hidden=hidden,
        expression_features=features,
        expression_attention_hidden=expression_hidden,
        hidden=width,
        parts=False,
    )
    return field, expression, joined - features


def _mouth_field(part: _Part) -> tuple[MouthFieldConfig, int]:
    """Sizes of the mouth's field, and the number of jaw coefficients that it predicts."""
    encoding, audio = part.take_grids(_release_grid(mouth_encoding())), part.take_audio()
    inputs, width, same_width, outputs = part.take_mlp("sigma_net", 3, "output_layers")
    where = inputs - audio.features
    if outputs != 3 or width != same_width or where < encoding.output_dim:
        part.refuse(f"the widths of its networks do not fit together: output {inputs}-{width}-{same_width}-{outputs}")
    jaw = 0
    # The network of the jaw has the shape of the other one, whatever it is called.
    others = {str(key).split(".")[0] for key in part.network if ".net." in str(key)} - {"sigma_net", *_UNUSED["mouth"]}
    if len(others) == 1:
        jaw_inputs, jaw_width, same_jaw_width, jaw = part.take_mlp(others.pop(), 3, "jaw_layers")
        if (jaw_inputs, jaw_width, same_jaw_width) != (inputs, width, width):
            part.refuse(f"a second network of widths {jaw_inputs}-{jaw_width}-{same_jaw_width}-{jaw} is not known")
    field = MouthFieldConfig(
        encoding=encoding,
        audio=audio,
        embedding_dim=where - encoding.output_dim,
        hidden=width,
        expression_features=0,
        parts=False,
    )
    return field, jaw
