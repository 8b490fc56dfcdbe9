"""`degstalk phonemes TEXT OUT.wav OUT.json`: a sound and the exact times of its phonemes, to test lips with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from degstalk_ns.console.report import check_writable
from degstalk_ns.dataparsers.writing import write_sound
from degstalk_ns.errors import UserError
from degstalk_ns.files import write_bytes
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.metrics.speech.phonemes import TimedPhonemes, phonemes_text
from degstalk_ns.speech.espeak import SpeakerConfig, speak
from degstalk_ns.speech.phonemes import is_bilabial, is_open_vowel


def command(
    text: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TEXT")],
    sound: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT.wav")],
    times: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT.json")],
    voice: Annotated[SpeakerConfig, tyro.conf.arg(name="")] = SpeakerConfig(),  # noqa: B008 (frozen)
) -> None:
    """Speak a text with espeak-ng and write when each phoneme is said, for `degstalk measure --phonemes`.

    Args:
        text: Text to speak, or the name of a text file (UTF-8).
        sound: WAV file to write.
        times: JSON file to write: a list of pairs of seconds and phoneme.
        voice: Language, voice and speed.
    """
    for path in (sound, times):
        check_writable(path)
    if sound.suffix.lower() != ".wav" or times.suffix.lower() != ".json":
        raise UserError(f"{sound} and {times}: expected a .wav file and a .json file")
    said = speak(_content(text), voice)
    write_sound(sound, said.samples)
    write_bytes(times, (phonemes_text(TimedPhonemes(said.starts, said.phonemes)) + "\n").encode())
    counts = sum(map(is_bilabial, said.phonemes)), sum(map(is_open_vowel, said.phonemes))
    seconds = len(said.samples) / SAMPLE_RATE
    Console(highlight=False).print(
        f"written: {sound} ({seconds:.1f} s) and {times} ({len(said.phonemes)} phonemes; p, b or m: {counts[0]}, "
        f"open vowels: {counts[1]})",
        markup=False,
        soft_wrap=True,
    )


def _content(text: str) -> str:
    """What is to be said: the text itself, or that of the file it names."""
    try:
        path = Path(text)
        named = path.is_file()
    except OSError:  # too long for a name
        return text
    if not named:
        return text
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise UserError(f"{path}: is not a text file in UTF-8; expected the text to speak") from None
