"""Deformation fields: from the position of a Gaussian and the conditions of a frame to the offsets of the Gaussian.

They must not know how Gaussians are rendered, nor nerfstudio.
"""

from degstalk_ns.avatar.fields.audio import AudioEncoder, AudioEncoderConfig
from degstalk_ns.avatar.fields.face import FaceField, FaceFieldConfig, FaceOutput
from degstalk_ns.avatar.fields.mouth import MouthField, MouthFieldConfig, MouthOutput
from degstalk_ns.avatar.fields.triplane import TriPlane, TriPlaneConfig

__all__ = [
    "AudioEncoder",
    "AudioEncoderConfig",
    "FaceField",
    "FaceFieldConfig",
    "FaceOutput",
    "MouthField",
    "MouthFieldConfig",
    "MouthOutput",
    "TriPlane",
    "TriPlaneConfig",
]
