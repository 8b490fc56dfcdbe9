"""Which phonemes are said when in recorded English, by pocketsphinx (an extra), whose wheel holds its models.

It is right in about two of three phonemes; for exact times see `espeak.py`. It must not know faces or files.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.audio.sound import SILENCE_LEVEL
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE

_FRAMES_PER_SECOND = 100


def recognised_phonemes(samples: NDArray[np.float32]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Phonemes of English speech.

    Args:
        samples: [S], 16 kHz mono in [-1, 1].

    Returns:
        [P] second at which each begins, ascending, and [P] names (ARPABET; noise and pauses are "SIL").

    Raises:
        UserError: pocketsphinx is not installed, or nothing is said.
    """
    try:
        from pocketsphinx import Decoder, get_model_path
    except ImportError:
        raise UserError("pocketsphinx is not installed; pip install 'degstalk-ns[recogniser]'") from None
    silent = not len(samples) or float(np.abs(samples).max()) < SILENCE_LEVEL
    decoder = Decoder(
        allphone=get_model_path("en-us/en-us-phone.lm.bin"),
        lw=2.0,
        beam=1e-20,
        pbeam=1e-20,
        samprate=SAMPLE_RATE,
        loglevel="FATAL",
    )
    decoder.start_utt()
    decoder.process_raw((np.clip(samples, -1, 1) * (2**15 - 1)).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    found = [(s.start_frame / _FRAMES_PER_SECOND, "SIL" if s.word[0] in "+<" else s.word) for s in decoder.seg() or ()]
    if silent or not any(name != "SIL" for _, name in found):
        raise UserError("no English speech is recognised in the sound; expected some, or a file of phonemes")
    return np.array([start for start, _ in found]), tuple(name for _, name in found)
