from __future__ import annotations

import numpy as np
import pytest
import torch

from degstalk_ns.scripts.train_lip_motion import LipMotionNet
from degstalk_ns.speech import lip_motion as module
from degstalk_ns.speech.lip_motion import lip_motion
from degstalk_ns.speech.phonemes import LIP_TARGETS


@pytest.mark.parametrize("count", [1, 2, 3, 60])
def test_it_computes_what_was_trained(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    torch.manual_seed(0)
    net = LipMotionNet(512, 16).double().eval()
    arrays = {"mean": np.random.default_rng(0).normal(size=512), "scale": np.random.default_rng(1).uniform(1, 2, 512)}
    for name in ("narrow", "wide", "near", "lips"):
        layer = getattr(net, name)
        arrays |= {f"{name}_w": layer.weight.detach().numpy(), f"{name}_b": layer.bias.detach().numpy()}
    monkeypatch.setattr(module, "_weights", lambda: arrays)
    vectors = np.random.default_rng(2).normal(size=(count, 512))
    with torch.no_grad():
        expected = torch.sigmoid(net(torch.from_numpy((vectors - arrays["mean"]) / arrays["scale"]).T[None]))[0].T
    assert np.allclose(lip_motion(vectors), expected.numpy(), atol=1e-6)


def test_the_shipped_weights_are_whole_and_other_vectors_are_refused() -> None:
    told = lip_motion(np.zeros((10, 512), np.float16))
    assert told.shape == (10, len(LIP_TARGETS)) and np.isfinite(told).all()
    assert lip_motion(np.empty((0, 512), np.float32)).shape == (0, len(LIP_TARGETS))
    with pytest.raises(ValueError, match=r"vectors \[V, 512\]"):
        lip_motion(np.zeros((10, 384), np.float32))
