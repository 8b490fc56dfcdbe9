"""The loading and cutting are real; the models are tiny and random."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from degstalk_ns import model_files
from degstalk_ns.audio import transformer_features
from degstalk_ns.audio.features import FEATURES, computed_windows
from degstalk_ns.audio.transformer_features import hidden_states
from degstalk_ns.errors import UserError


@pytest.fixture(scope="module", params=["hubert", "wav2vec2"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    transformers = pytest.importorskip("transformers")
    kind = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2"}[request.param]
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=(16,) * 7
    )
    folder = tmp_path_factory.mktemp("models")
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder / request.param)
    return request.param, folder


def _sound(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).normal(size=round(seconds * 16_000))).astype(np.float32)


def test_vectors_of_any_sound(saved: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    name, folder = saved
    monkeypatch.setenv(model_files.MODELS_VARIABLE, str(folder))
    for samples in (1, 320, 16_001):
        vectors = hidden_states(name, _sound(2.0)[:samples])
        assert vectors.shape == (-(-samples // 320), 32) and np.isfinite(vectors).all()
    assert computed_windows(name, _sound(1.0), 25).shape == (25, 16, 32)
    assert FEATURES[name].silence is None


def test_a_long_sound_is_cut_without_a_seam(saved: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    name, folder = saved
    monkeypatch.setenv(model_files.MODELS_VARIABLE, str(folder))
    sound = _sound(3.0)
    whole = hidden_states(name, sound)
    monkeypatch.setattr(transformer_features, "STEP_SECONDS", 1)
    monkeypatch.setattr(transformer_features, "CONTEXT_SECONDS", 1)
    parts = hidden_states(name, sound)
    assert parts.shape == whole.shape
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(whole, parts, strict=True)]) > 0.9


def test_a_damaged_model_is_one_line(saved: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _ = saved
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text("{", encoding="utf-8")
    monkeypatch.setenv(model_files.MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match=rf"{name}: cannot be loaded as the model of {name} features"):
        hidden_states(name, _sound(0.1))


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setenv(model_files.MODELS_VARIABLE, "/nowhere")
    with pytest.raises(UserError, match=r"pip install 'degstalk-ns\[transformers\]'"):
        hidden_states("hubert", _sound(0.1))
