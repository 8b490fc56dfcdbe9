"""Checkpoints in the structure of the official DEGSTalk code, and what its networks compute, written out plainly.

Both are written from a description of that code, not from it: shapes, names, and the order of operations.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from degstalk_ns.avatar.avatar import Avatar, AvatarConfig, Region
from degstalk_ns.avatar.fields.face import FaceFieldConfig
from degstalk_ns.avatar.fields.mouth import MouthFieldConfig, mouth_encoding
from degstalk_ns.avatar.fields.standardise import StandardiseConfig
from degstalk_ns.avatar.fields.triplane import TriPlane, TriPlaneConfig
from degstalk_ns.avatar.gaussians import GaussiansConfig

PLANES = {"xy": (0, 1), "yz": (1, 2), "xz": (0, 2)}
GRIDS: dict[Region, tuple[float, float]] = {"face": (16, 256 * 0.15), "mouth": (64, 384 * 0.15)}
BOUND = 0.15


def release_config(avatar: AvatarConfig) -> None:
    """Turns the options of an avatar into those of one that the official code could have trained."""
    avatar.standardise.enabled = False
    for gaussians in (avatar.face, avatar.mouth):
        gaussians.scale_offsets = "softplus"
    for field in (avatar.face_field, avatar.mouth_field):
        field.parts = False
        field.encoding.vertices, field.encoding.backend = "instant-ngp", "torch"
    avatar.face_field.expression_hidden, avatar.face_field.expression_features = 16, 14
    avatar.face_field.expression_attention_hidden = 16
    avatar.mouth_field.expression_features = 0


def made_avatar(
    embedding: int = 32, expression: int = 50, eyelids: int = 2, jaw: int = 3, channels: int = 29, points: int = 40
) -> Avatar:
    """An avatar of random numbers, none of them zero, whose offsets are of the size of its Gaussians."""
    features = 14 if embedding else 5
    config = AvatarConfig(
        face=GaussiansConfig(num_points=points, embedding_dim=embedding, scale_offsets="softplus"),
        mouth=GaussiansConfig(num_points=points + 1, embedding_dim=embedding, scale_offsets="softplus"),
        face_field=FaceFieldConfig(
            encoding=TriPlaneConfig(vertices="instant-ngp"), embedding_dim=embedding, expression_features=features
        ),
        mouth_field=MouthFieldConfig(encoding=mouth_encoding(), embedding_dim=embedding),
        standardise=StandardiseConfig(enabled=False),
    )
    config.mouth_field.encoding.vertices = "instant-ngp"
    avatar = Avatar(config, channels, 16, expression, eyelids=eyelids, jaw=jaw)
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in avatar.named_parameters():
            if name.endswith(("means", "opacities", "scales", "quats")):
                parameter += 0.02 * torch.randn(parameter.shape, generator=random)
            elif "gaussians" in name:
                parameter.normal_(generator=random)
            elif name.endswith("table"):
                parameter.normal_(0, 0.3, generator=random)
            elif name.endswith("weight"):
                parameter *= 1.7
    return avatar


def as_release(avatar: Avatar, sh_degree: int = 2) -> tuple[Any, ...]:
    """The avatar in the structure of ``chkpnt_fuse_latest.pth``."""
    parts: list[Any] = []
    regions: tuple[Region, Region] = ("face", "mouth")
    for name in regions:
        field = avatar.face_field if name == "face" else avatar.mouth_field
        parts += [_gaussians(avatar, name, sh_degree), _network(name, field)]
    return tuple(parts)


def _gaussians(avatar: Avatar, name: Region, sh_degree: int) -> tuple[Any, ...]:
    p = {key: value.detach().clone() for key, value in avatar.region(name).params.items()}
    scales = p["scales"].double().exp()
    raw = (scales + (-torch.expm1(-scales)).log()).float()  # what softplus makes these scales of
    n = len(raw)
    adam = {"state": {0: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(n, 3)}}, "param_groups": [{"lr": 0.0}]}
    entries = [
        sh_degree,
        nn.Parameter(p["means"]),
        nn.Parameter(p["sh0"]),
        nn.Parameter(p["shN"]),
        nn.Parameter(torch.zeros(n, 1)),
        nn.Parameter(raw),
        nn.Parameter(p["quats"]),
        nn.Parameter(p["opacities"][:, None]),
        torch.zeros(n),
        torch.zeros(n, 1),
        torch.zeros(n, 1),
        adam,
        np.float32(1.1),
    ]
    return (*entries, nn.Parameter(p["embeddings"])) if "embeddings" in p else tuple(entries)


def _network(name: Region, field: Any) -> OrderedDict[str, Tensor]:
    state: OrderedDict[str, Tensor] = OrderedDict()
    for theirs, ours in (("encoder_conv", "window_convs"), ("encoder_fc1", "window_layers")):
        _copy(state, f"audio_net.{theirs}", getattr(field.audio, ours))
    attention = [layer for layer in field.audio.attention if isinstance(layer, nn.Conv1d)]
    for index, layer in enumerate(attention):
        state[f"audio_att_net.attentionConvNet.{2 * index}.weight"] = layer.weight.detach().clone()
        state[f"audio_att_net.attentionConvNet.{2 * index}.bias"] = layer.bias.detach().clone()
    linear = next(layer for layer in field.audio.attention if isinstance(layer, nn.Linear))
    state["audio_att_net.attentionNet.0.weight"] = linear.weight.detach().clone()
    state["audio_att_net.attentionNet.0.bias"] = linear.bias.detach().clone()
    state |= stored_grids(field.encoding)
    if name == "face":
        _mlp(state, "exp_encode_net", field.expression)
        _mlp(state, "eye_att_net", field.expression_channel_attention)
        _mlp(state, "aud_ch_att_net", field.audio_channel_attention)
    else:  # stored there, and without part in anything
        where = field.where_dim
        state["aud_ch_att_net.net.0.weight"], state["aud_ch_att_net.net.1.weight"] = (
            torch.ones(32, where),
            torch.eye(32),
        )
        if field.jaw_layers is not None:
            _mlp(state, "jaw_net", field.jaw_layers)
    _mlp(state, "sigma_net", field.output_layers)
    return state


def _copy(state: OrderedDict[str, Tensor], name: str, layers: nn.Sequential) -> None:
    state.update({f"{name}.{key}": value.detach().clone() for key, value in layers.state_dict().items()})


def _mlp(state: OrderedDict[str, Tensor], name: str, mlp: Any) -> None:
    for index, layer in enumerate(mlp.layers):
        state[f"{name}.net.{index}.weight"] = layer.weight.detach().clone()


def stored_grids(encoding: TriPlane) -> dict[str, Tensor]:
    """The grids as they are stored, each level padded to a multiple of 8 with what must not be read."""
    sizes = [(cells + 1) ** 2 for cells in encoding.cells]
    padded = [math.ceil(size / 8) * 8 for size in sizes]
    state = {}
    for plane, values in zip(PLANES, encoding.table.detach().view(3, -1), strict=True):
        levels = []
        for level, room in zip(values.split(sizes), padded, strict=True):
            levels.append(torch.cat([level, torch.full((room - len(level),), 99.0)]))
        state[f"encoder_{plane}.embeddings"] = torch.cat(levels)[:, None].clone()
        state[f"encoder_{plane}.offsets"] = torch.tensor([0, *np.cumsum(padded)], dtype=torch.int32)
    return state


# --- what the networks compute --------------------------------------------------------------------------------------


def grid_features(state: dict[str, Tensor], name: Region, means: Tensor) -> Tensor:
    """[N, 36]: each plane's levels, looked up one point at a time by index arithmetic."""
    base, finest = GRIDS[name]
    growth = math.log2(finest / base) / 11
    rows = []
    for point in means.tolist():
        features = []
        for plane, axes in PLANES.items():
            u, v = ((point[axis] + BOUND) / (2 * BOUND) for axis in axes)
            table, offsets = state[f"encoder_{plane}.embeddings"][:, 0], state[f"encoder_{plane}.offsets"].tolist()
            for level, (start, end) in enumerate(pairwise(offsets)):
                if not (0 <= u <= 1 and 0 <= v <= 1):
                    features.append(0.0)
                    continue
                scale = base * 2 ** (level * growth) - 1
                stride = math.ceil(scale) + 2
                x, y = u * scale + 0.5, v * scale + 0.5
                i, j = math.floor(x), math.floor(y)
                value = 0.0
                for di in (0, 1):
                    for dj in (0, 1):
                        weight = (x - i if di else 1 - x + i) * (y - j if dj else 1 - y + j)
                        value += weight * float(table[start + ((i + di) + (j + dj) * stride) % (end - start)])
                features.append(value)
        rows.append(features)
    return torch.tensor(rows, dtype=torch.float64)


def _through(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weights = [value.double() for key, value in sorted(state.items()) if key.startswith(f"{name}.net.")]
    for weight in weights[:-1]:
        x = torch.relu(x @ weight.T)
    return x @ weights[-1].T


def audio_features(state: dict[str, Tensor], windows: Tensor) -> Tensor:
    """[8, C, L] -> [32]."""
    x = windows.double()
    for index in range(0, 8, 2):
        weight, bias = (state[f"audio_net.encoder_conv.{index}.{part}"].double() for part in ("weight", "bias"))
        x = nn.functional.leaky_relu(nn.functional.conv1d(x, weight, bias, stride=2, padding=1), 0.02)
    x = x[..., 0]
    fc = {key: value.double() for key, value in state.items() if key.startswith("audio_net.encoder_fc1")}
    x = nn.functional.leaky_relu(x @ fc["audio_net.encoder_fc1.0.weight"].T + fc["audio_net.encoder_fc1.0.bias"], 0.02)
    x = x @ fc["audio_net.encoder_fc1.2.weight"].T + fc["audio_net.encoder_fc1.2.bias"]  # [8, 32]
    y = x.T[None]
    for index in range(0, 10, 2):
        name = f"audio_att_net.attentionConvNet.{index}"
        weight, bias = state[f"{name}.weight"].double(), state[f"{name}.bias"].double()
        y = nn.functional.leaky_relu(nn.functional.conv1d(y, weight, bias, padding=1), 0.02)
    name = "audio_att_net.attentionNet.0"
    scores = y[0, 0] @ state[f"{name}.weight"].double().T + state[f"{name}.bias"].double()
    return torch.softmax(scores, 0) @ x


def face_offsets(
    part: tuple[Any, ...], state: dict[str, Tensor], audio: Tensor, expression: Tensor, as_is: Tensor
) -> dict[str, Tensor]:
    """Positions, rotations (not normalised) and scales of the face in one frame."""
    n = len(part[1])
    where = grid_features(state, "face", part[1])
    if len(part) > 13:
        where = torch.cat([where, part[13].detach().double()], 1)
    heard = audio_features(state, audio) * _through(state, "aud_ch_att_net", where)
    moved = torch.cat([_through(state, "exp_encode_net", expression.double()[None])[0], as_is.double()])
    moved = moved * torch.relu(_through(state, "eye_att_net", where))
    out = _through(state, "sigma_net", torch.cat([where, heard, moved], 1))
    assert out.shape == (n, 11)
    return {
        "means": part[1].detach().double() + out[:, :3] * 0.01,
        "quats": part[6].detach().double() + out[:, 3:7],
        "scales": nn.functional.softplus(part[5].detach().double() + out[:, 8:]),
    }


def mouth_offsets(part: tuple[Any, ...], state: dict[str, Tensor], audio: Tensor) -> tuple[Tensor, Tensor | None]:
    """Positions of the mouth in one frame, and the jaw, mean over the Gaussians."""
    where = grid_features(state, "mouth", part[1])
    if len(part) > 13:
        where = torch.cat([where, part[13].detach().double()], 1)
    seen = torch.cat([where, audio_features(state, audio).expand(len(where), -1)], 1)
    moved = _through(state, "sigma_net", seen) * 0.01 / torch.tensor([5.0, 1.0, 5.0])
    jaw = _through(state, "jaw_net", seen).mean(0) if "jaw_net.net.0.weight" in state else None
    return part[1].detach().double() + moved, jaw
