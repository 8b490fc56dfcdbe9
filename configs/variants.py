"""The variants of the paper's ablation and its baseline, as methods that `ns-train` lists: each is `degstalk`, or
`degstalk-fast`, without one of its parts.

The letters are those of the paper: E the embedding of each Gaussian, F the implicit expression of a face model, R the
direct fusion of face and mouth, H the preserved hair. It assembles configs and must hold no logic of the method.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace

from nerfstudio.plugins.types import MethodSpecification

from degstalk_ns.configs.methods import degstalk, degstalk_fast
from degstalk_ns.dataparsers.talking_head import TalkingHeadDataParserConfig
from degstalk_ns.plugin.datamanager import TalkingHeadDataManagerConfig
from degstalk_ns.plugin.model import DegstalkModelConfig
from degstalk_ns.plugin.trainer import DegstalkTrainerConfig
from degstalk_ns.training.stages import ScheduleConfig

Change = Callable[[DegstalkTrainerConfig], None]


def _model(config: DegstalkTrainerConfig) -> DegstalkModelConfig:
    assert isinstance(config.pipeline.model, DegstalkModelConfig)
    return config.pipeline.model


def dataparser_of(config: DegstalkTrainerConfig) -> TalkingHeadDataParserConfig:
    """How a method reads its dataset."""
    manager = config.pipeline.datamanager
    assert isinstance(manager, TalkingHeadDataManagerConfig)
    assert isinstance(manager.dataparser, TalkingHeadDataParserConfig)
    return manager.dataparser


def without_embedding(config: DegstalkTrainerConfig) -> None:
    """Without E: the fields see where a Gaussian is and nothing that it has learned."""
    model = _model(config)
    for part in (model.avatar.face, model.avatar.mouth, model.avatar.face_field, model.avatar.mouth_field):
        part.embedding_dim = 0
    model.losses.smoothness = 0.0  # it makes embeddings alike


def with_action_units(config: DegstalkTrainerConfig) -> None:
    """Without F: action units of the upper face take the place of expression, eyelids and jaw, so the audio alone moves
    the mouth, and is never withheld."""
    model = _model(config)
    dataparser_of(config).signals = "action-units"
    model.schedule.silent_every = 0
    model.avatar.mouth_field.expression_features = 0


def without_fusion(config: DegstalkTrainerConfig) -> None:
    """Without R: the run ends with the motion stage; every other step is where it was."""
    model = _model(config)
    end = model.schedule.motion_end
    rates = {"lr_means_final", "silent_every"}
    times = {
        name: min(value / end, 1.0)
        for name in (entry.name for entry in fields(ScheduleConfig))
        if name not in rates and (value := getattr(model.schedule, name)) is not None
    }
    model.schedule = replace(model.schedule, **times)
    config.max_num_iterations = round(config.max_num_iterations * end)


def without_hair(config: DegstalkTrainerConfig) -> None:
    """Without H: the hair is part of the Gaussian head, and plates hold torso and background alone."""
    dataparser_of(config).hair_in_head = True


def _variant(base: MethodSpecification, name: str, without: str, *changes: Change) -> MethodSpecification:
    config = deepcopy(base.config)
    assert isinstance(config, DegstalkTrainerConfig)
    config.method_name = name
    for change in changes:
        change(config)
    return MethodSpecification(config=config, description=f"{base.config.method_name} {without}.")


_EMBEDDING = "without embeddings of Gaussians (the paper's ablation of E)"
_UNITS = "driven by action units instead of implicit expression (the paper's ablation of F)"
_FUSION = "without the fuse stage (the paper's ablation of R)"
_HAIR = "with hair as part of the head, not kept on the plate (the paper's ablation of H)"
_BASELINE = "made into the baseline TalkingGaussian: action units, hair in the head, no embeddings"
BASELINE: tuple[Change, ...] = (without_embedding, with_action_units, without_hair)
"""What makes TalkingGaussian of DEGSTalk; it has a fuse stage too."""

degstalk_no_embedding = _variant(degstalk, "degstalk-no-embedding", _EMBEDDING, without_embedding)
degstalk_au = _variant(degstalk, "degstalk-au", _UNITS, with_action_units)
degstalk_no_fuse = _variant(degstalk, "degstalk-no-fuse", _FUSION, without_fusion)
degstalk_no_hair = _variant(degstalk, "degstalk-no-hair", _HAIR, without_hair)
talking_gaussian = _variant(degstalk, "talking-gaussian", _BASELINE, *BASELINE)

degstalk_no_embedding_fast = _variant(degstalk_fast, "degstalk-no-embedding-fast", _EMBEDDING, without_embedding)
degstalk_au_fast = _variant(degstalk_fast, "degstalk-au-fast", _UNITS, with_action_units)
degstalk_no_fuse_fast = _variant(degstalk_fast, "degstalk-no-fuse-fast", _FUSION, without_fusion)
degstalk_no_hair_fast = _variant(degstalk_fast, "degstalk-no-hair-fast", _HAIR, without_hair)
talking_gaussian_fast = _variant(degstalk_fast, "talking-gaussian-fast", _BASELINE, *BASELINE)
