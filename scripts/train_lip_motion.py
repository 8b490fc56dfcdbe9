"""Trains the network of `degstalk_ns/speech/lip_motion.py` and writes its weights: a tool of the project, not of users.

It needs espeak-ng and Whisper's base model. Speech is made of Whisper's own vocabulary, read by the voices of many
languages, at other pitches, speeds and formants, through other filters, rooms and noise. It takes about 10 minutes on
one core; the same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import librosa
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from scipy.signal import fftconvolve
from torch import Tensor, nn

from degstalk_ns import model_files
from degstalk_ns.audio.whisper import whisper_vectors
from degstalk_ns.audio.windows import VECTORS_PER_SECOND
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.speech.espeak import SpeakerConfig, speak
from degstalk_ns.speech.lip_motion import WEIGHTS
from degstalk_ns.speech.phonemes import LIP_TARGETS, lip_targets

LANGUAGES = (
    *("en-us",) * 4, "en-gb-scotland", "de", "fr", "es", "it", "pt-br", "nl", "pl", "ru", "sv", "tr", "ro", "id",
    "sw", "eo", "hr", "ca", "nb", "sk", "lv", "vi", "eu",
)  # fmt: skip
VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m7", "f1", "f2", "f3", "f4", "klatt2", "klatt4", "whisper", "Annie", "Mario", "adam",
    "boris", "linda", "max", "pedro", "rob", "victor",
)  # fmt: skip
HELD_OUT_LANGUAGES = ("cs", "fi", "hu", "en-us")
HELD_OUT_VARIANTS = ("f5", "m8", "steph", "Andy")
TARGET_WEIGHTS = (1.0, 1.5, 1.0, 1.0, 0.7)
"""Of the squared errors of the lip targets."""


@dataclass(frozen=True)
class TrainingConfig:
    minutes: float = 90.0
    """Length of the speech that is trained on."""
    hidden: int = 64
    """Width of the network."""
    steps: int = 2500
    """Number of steps of 16 parts of 5 s."""
    seed: int = 0
    """Of everything that is drawn at random."""


class LipMotionNet(nn.Module):
    """What `lip_motion` computes, for training: [B, 512, V] -> logits [B, 5, V]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.narrow = nn.Conv1d(channels, hidden, 1)
        self.wide = nn.Conv1d(hidden, hidden, 5, padding=2)
        self.near = nn.Conv1d(hidden, hidden, 5, padding=2)
        self.lips = nn.Conv1d(hidden, len(LIP_TARGETS), 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.narrow(nn.functional.dropout(x, 0.1, self.training)))
        x = torch.relu(self.wide(x)) + x
        x = torch.relu(self.near(x)) + x
        return self.lips(x)


def vocabulary() -> list[str]:
    folder = model_files.whisper_model("base")
    if (folder / "vocabulary.json").is_file():
        tokens = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    else:
        tokens = (folder / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    words = [token[1:] for token in tokens if token.startswith("Ġ")]
    return [word for word in words if len(word) > 1 and word.isascii() and word.isalpha() and word[1:].islower()]


def altered(sound: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Through another filter, in another room, at another level, with noise."""
    count = len(sound)
    hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    curve = np.interp(np.log(hz + 50), np.log(np.array([50, 200, 500, 1200, 3000, 8000]) + 50), rng.uniform(-8, 8, 6))
    filtered = np.fft.irfft(np.fft.rfft(sound) * 10 ** (curve / 20), count)
    if rng.random() < 0.4:
        length = int(SAMPLE_RATE * rng.uniform(0.1, 0.4))
        room = rng.standard_normal(length) * np.exp(-np.arange(length) / length * 6.9) * 0.15
        room[0] = 1.0
        filtered = fftconvolve(filtered, room)[:count]
    filtered *= 10 ** (rng.uniform(-16, 0) / 20) / max(float(np.abs(filtered).max()), 1e-6)
    noise = rng.standard_normal(count)
    if rng.random() < 0.5:
        noise = np.fft.irfft(np.fft.rfft(noise) / np.sqrt(np.maximum(hz, 50)), count)
    noise *= filtered.std() * 10 ** (-rng.uniform(15, 50) / 20) / noise.std()
    return (filtered + noise).clip(-1, 1).astype(np.float32)


def speech(
    minutes: float, seed: int, languages: tuple[str, ...], variants: tuple[str, ...]
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Whisper's vectors [V, 512] and lip targets [V, 5] of speech made at random."""
    rng, words = np.random.default_rng(seed), vocabulary()
    vectors, targets, seconds = [], [], 0.0
    while seconds < 60 * minutes:
        sentences = [
            " ".join(words[int(len(words) * rng.random() ** 1.5)] for _ in range(rng.integers(3, 10))) for _ in range(6)
        ]
        voice = f"{languages[rng.integers(len(languages))]}+{variants[rng.integers(len(variants))]}"
        rate, pitch, liveliness = int(rng.uniform(120, 230)), int(rng.uniform(20, 80)), int(rng.uniform(20, 90))
        said = speak(". ".join(sentences) + ".", SpeakerConfig(voice, rate, pitch, liveliness))
        # Played faster or slower, so that pitch and formants move together.
        stretch = rng.uniform(0.87, 1.15)
        sound = librosa.resample(said.samples, orig_sr=SAMPLE_RATE, target_sr=int(SAMPLE_RATE * stretch))
        heard = whisper_vectors(altered(sound, rng))
        wanted = lip_targets(
            said.starts * len(sound) / len(said.samples), said.phonemes, len(sound) / SAMPLE_RATE, VECTORS_PER_SECOND
        )
        count = min(len(heard), len(wanted))
        vectors.append(heard[:count].astype(np.float16))
        targets.append(wanted[:count])
        seconds += count / VECTORS_PER_SECOND
    return np.concatenate(vectors), np.concatenate(targets)


def train(config: TrainingConfig, console: Console) -> dict[str, NDArray[np.float16]]:
    heard, wanted = speech(config.minutes, config.seed, LANGUAGES, VARIANTS)
    other, truth = speech(4.0, config.seed + 1, HELD_OUT_LANGUAGES, HELD_OUT_VARIANTS)
    console.print(f"{len(heard) / VECTORS_PER_SECOND / 60:.0f} minutes of speech")
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    mean = heard.astype(np.float32).mean(0)
    scale = heard.astype(np.float32).std(0) + 1e-3
    net = LipMotionNet(heard.shape[1], config.hidden)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=config.steps)
    weights = torch.tensor(TARGET_WEIGHTS)[:, None]
    length = 5 * VECTORS_PER_SECOND
    for step in range(config.steps):
        starts = rng.integers(0, len(heard) - length, 16)
        x = torch.from_numpy(np.stack([(heard[s : s + length].astype(np.float32) - mean) / scale for s in starts]))
        y = torch.from_numpy(np.stack([wanted[s : s + length] for s in starts]))
        loss = (weights * (torch.sigmoid(net(x.transpose(1, 2))) - y.transpose(1, 2)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        if step % 500 == 0:
            console.print(f"step {step}: {loss.item():.4f}")
    net.eval()
    with torch.no_grad():
        x = torch.from_numpy((other.astype(np.float32) - mean) / scale)
        told = torch.sigmoid(net(x.T[None]))[0].T.numpy()
    for k, name in enumerate(LIP_TARGETS):
        console.print(
            f"{name}: r {np.corrcoef(told[:, k], truth[:, k])[0, 1]:.2f} in other voices, most in other languages"
        )
    arrays = {"mean": mean, "scale": scale}
    for name in ("narrow", "wide", "near", "lips"):
        layer = getattr(net, name)
        arrays |= {f"{name}_w": layer.weight.detach().numpy(), f"{name}_b": layer.bias.detach().numpy()}
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def main(config: Annotated[TrainingConfig, tyro.conf.arg(name="")] = TrainingConfig()) -> None:
    """Train the network and write its weights into the package."""
    console = Console(highlight=False)
    arrays = train(config, console)
    np.savez_compressed(WEIGHTS, **arrays)
    console.print(f"written: {WEIGHTS} ({WEIGHTS.stat().st_size / 1024:.0f} kB)")


if __name__ == "__main__":
    tyro.cli(main)
