"""HuBERT and wav2vec 2.0: waveform -> hidden states, 50 a second, through transformers (an extra).

It must not know files of datasets, videos or faces.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.model_files import MODELS_VARIABLE

MODELS: Final[dict[str, tuple[str, str]]] = {
    "hubert": ("facebook/hubert-large-ls960-ft", "ece5fabbf034c1073acae96d5401b25be96709d8"),
    "wav2vec2": ("facebook/wav2vec2-base-960h", "7717449af4666168313f84bda5cfde72dcae8ac8"),
}
"""Name of the features -> model on the hub of transformers (both Apache-2.0), and the revision that is used."""
_STRIDE, _FIELD = 320, 400
"""Samples from one vector to the next, and that one vector sees (20 and 25 ms)."""
STEP_SECONDS: Final[int] = 20
"""Length of the parts in which a long sound is heard. Chosen for this project, as for Whisper."""
CONTEXT_SECONDS: Final[int] = 5
"""Sound before and after a part that is heard too."""


def hidden_states(name: str, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The last hidden states of a model for a sound.

    Args:
        name: "hubert" or "wav2vec2". The folder of that name in ``$DEGSTALK_MODELS``, as transformers saves a model,
            comes first; else transformers' own cache and hub.
        waveform: [S] samples at 16 kHz in [-1, 1].

    Returns:
        float32 [V, C], vector ``j`` centred on ``j / 50`` s, V = ceil(S / 320).

    Raises:
        UserError: transformers is not installed, or the model cannot be had or read.
    """
    model = _transformer(name, os.environ.get(MODELS_VARIABLE))
    device = next(model.parameters()).device
    sound = np.asarray(waveform, np.float32)
    spread = float(sound.std())
    sound = (sound - sound.mean()) / (spread if spread > 0 else 1.0)
    count = -(-len(sound) // _STRIDE)
    step, context = (seconds * SAMPLE_RATE // _STRIDE for seconds in (STEP_SECONDS, CONTEXT_SECONDS))
    padded = np.pad(sound, (_FIELD // 2, _FIELD + _STRIDE))
    vectors = []
    for first in range(0, count, step):
        last, begin = min(first + step, count), max(first - context, 0)
        end = min(last + context, count)
        heard = torch.from_numpy(padded[begin * _STRIDE : (end - 1) * _STRIDE + _FIELD].copy())
        with torch.no_grad():
            states = model(heard[None].to(device)).last_hidden_state[0].float().cpu().numpy()
        vectors.append(states[first - begin : last - begin])
    return np.concatenate(vectors)


@lru_cache(maxsize=1)
def _transformer(name: str, models: str | None) -> Any:
    try:
        from transformers import AutoModel
    except ImportError:
        raise UserError(f"{name} features need transformers; pip install 'degstalk-ns[transformers]'") from None
    own = Path(models).expanduser() / name if models else None
    source, revision = MODELS[name]
    try:
        if own is not None and own.is_dir():
            model = AutoModel.from_pretrained(own, local_files_only=True)
        else:
            model = AutoModel.from_pretrained(source, revision=revision)
    except Exception as error:  # transformers, its hub and torch raise many kinds
        place = own if own is not None and own.is_dir() else source
        raise UserError(
            f"{place}: cannot be loaded as the model of {name} features ({type(error).__name__}); put a whole one into "
            f"the folder {name} of ${MODELS_VARIABLE}, or connect to the network"
        ) from None
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
