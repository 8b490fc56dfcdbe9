"""The sound of a script: a pulsing source and noise through moving resonances, as formant synthesisers make it.

It must not know faces or files. The principle is Klatt's (JASA 67, 1980): glottal pulses through a cascade of four
resonators, frication and bursts through a band of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.sample.acting.script import VOWELS, Script, Spoken, aim

Signal = NDArray[np.float64]


@dataclass(frozen=True)
class VoiceConfig:
    """A clear voice of medium height. Ordinary figures of speech synthesis."""

    pitch: float = 185.0
    """Hz, in the middle of a phrase."""
    declination: float = 0.22
    """Fall of the pitch over a phrase, as a part of it."""
    stress: float = 0.14
    """Rise of the pitch on a stressed vowel, as a part of it."""
    jitter: float = 0.012
    """Standard deviation of the pitch's random wavering, as a part of it."""
    open_quotient: float = 0.6
    """Part of a period during which the glottis is open."""
    bandwidths: tuple[float, float, float, float] = (80.0, 100.0, 140.0, 220.0)
    """Of the four formants, Hz."""
    breath: float = 0.04
    """Noise of the breath in the voiced source, of the pulses' amplitude."""
    formant_spread: float = 0.022
    """Seconds over which formants go from one phone to the next (standard deviation)."""
    amplitude_spread: float = 0.009
    """The same for the sources' amplitudes: about 20 ms from sound to silence."""
    burst_seconds: float = 0.012
    """Time in which a burst falls to 1/e."""
    aspiration_seconds: float = 0.035
    """Breath after p and t, before the voice sets in."""
    control: int = 200
    """Times a second at which everything that moves is set; 80 samples."""
    oversampling: int = 4
    """Pulses are drawn at this multiple of the sample rate, so that their corners do not alias."""
    peak: float = 0.7
    """Largest sample of the result, of full scale."""


def synthesise(script: Script, seed: int, config: VoiceConfig | None = None) -> NDArray[np.float32]:
    """The script as sound: float32 [round(seconds * 16000)] in [-1, 1], mono, 16 kHz. Pauses are digital silence."""
    config = config or VoiceConfig()
    rng = np.random.default_rng([seed, 2])
    count = round(script.seconds * SAMPLE_RATE)
    grid = np.arange(-(-count * config.control // SAMPLE_RATE) + 2) / config.control
    voicing = script.blended(grid, config.amplitude_spread, _voicing, lambda _: 1.0)
    frication = script.blended(grid, config.amplitude_spread, lambda spoken: spoken.phone.frication, lambda _: 1.0)
    pulses = _pulses(_pitch(script, grid, rng, config), count, config)
    noise = rng.standard_normal(count)
    breath = config.breath * noise
    source = (pulses + breath) * _at_samples(_settled(voicing), count, config)
    source += noise * _at_samples(_aspiration(script, grid, config), count, config)
    sound = _through_formants(source, script, grid, config)
    sound += _hisses(script, frication, noise, config)
    # Resonances ring on below anything audible; a pause shall be nothing at all.
    audible = np.abs(sound).max()
    sound[np.abs(sound) < 1e-5 * audible] = 0.0
    return np.asarray(sound * (config.peak / max(audible, 1e-9)), np.float32)


def _voicing(spoken: Spoken) -> float:
    """Wide vowels are louder, and so are stressed ones."""
    if spoken.name not in VOWELS:
        return spoken.phone.voicing
    return spoken.phone.voicing * aim(spoken).jaw / spoken.phone.jaw


def _settled(amplitude: Signal) -> Signal:
    """Amplitudes so small that only a curve's tail makes them are none."""
    return np.where(amplitude < 2e-4, 0.0, amplitude)


def _at_samples(curve: Signal, count: int, config: VoiceConfig) -> Signal:
    """A curve at the control rate, linearly between, [count]."""
    return np.interp(np.arange(count) * (config.control / SAMPLE_RATE), np.arange(len(curve)), curve)


def _pitch(script: Script, grid: Signal, rng: np.random.Generator, config: VoiceConfig) -> Signal:
    """Hz at the control rate: falls over each phrase, rises on stresses, wavers a little."""
    pitch = np.full(len(grid), config.pitch)
    phrases = sorted({spoken.phrase for spoken in script.phones if spoken.phrase >= 0})
    for phrase in phrases:
        own = [spoken for spoken in script.phones if spoken.phrase == phrase]
        start, end = own[0].start, own[-1].end
        height = 1 + 0.06 * rng.standard_normal()
        inside = (grid >= start - 0.1) & (grid <= end + 0.1)
        along = np.clip((grid[inside] - start) / (end - start), 0, 1)
        pitch[inside] = config.pitch * height * (1 + config.declination * (0.5 - along))
    for time, stress in script.stresses():
        pitch *= 1 + config.stress * stress * np.exp(-0.5 * ((grid - time) / 0.06) ** 2)
    waver = signal.lfilter([1.0], [1.0, -0.85], rng.standard_normal(len(grid)))
    return pitch * (1 + config.jitter * waver / max(waver.std(), 1e-9))


def _pulses(pitch: Signal, count: int, config: VoiceConfig) -> Signal:
    """Derivative of the flow through the glottis, [count], a cubic while open (Klatt and Klatt, JASA 87, 1990)."""
    rate = config.oversampling
    at = np.arange(count * rate) * (config.control / (SAMPLE_RATE * rate))
    frequency = np.interp(at, np.arange(len(pitch)), pitch)
    phase = (np.cumsum(frequency) / (SAMPLE_RATE * rate)) % 1.0
    x = phase / config.open_quotient
    flow = np.where(x < 1, 2 * x - 3 * x**2, 0.0)
    return signal.resample_poly(flow, 1, rate)[:count]


def _aspiration(script: Script, grid: Signal, config: VoiceConfig) -> Signal:
    level = np.zeros(len(grid))
    for spoken in script.phones:
        if spoken.name in ("p", "t"):
            since = grid - spoken.end
            near = (since >= -0.005) & (since < 3 * config.aspiration_seconds)
            level[near] += 0.08 * np.exp(-0.5 * (since[near] / config.aspiration_seconds) ** 2)
    return level


def _through_formants(source: Signal, script: Script, grid: Signal, config: VoiceConfig) -> Signal:
    """A cascade of four resonators whose frequencies move; each keeps its last two outputs from step to step."""
    step = SAMPLE_RATE // config.control
    sound = np.concatenate([source, np.zeros(-len(source) % step)])
    for k, bandwidth in enumerate(config.bandwidths):

        def formant(spoken: Spoken, k: int = k) -> float:
            return spoken.phone.formants[k]

        # A pause has no formants of its own: those of the phones beside it hold on.
        tracks = script.blended(grid, config.formant_spread, formant, lambda spoken: 1.0 if spoken.name else 0.01)
        decay = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
        c = -(decay**2)
        one = two = 0.0
        for j in range(len(sound) // step):
            b = 2 * decay * np.cos(2 * np.pi * tracks[j] / SAMPLE_RATE)
            piece = slice(j * step, (j + 1) * step)
            out, _ = signal.lfilter([1 - b - c], [1, -b, -c], sound[piece], zi=[b * one + c * two, c * one])
            sound[piece] = out
            one, two = out[-1], out[-2]
    return sound[: len(source)]


def _hisses(script: Script, frication: Signal, noise: Signal, config: VoiceConfig) -> Signal:
    """Frication and bursts: noise in the band of their phone."""
    count = len(noise)
    level = _at_samples(_settled(frication), count, config)
    sound = np.zeros(count)
    for name in sorted({spoken.name for spoken in script.phones}):
        own = [spoken for spoken in script.phones if spoken.name == name]
        phone = own[0].phone
        if not (phone.frication or phone.burst):
            continue
        band = signal.sosfilt(signal.butter(2, phone.band, "bandpass", fs=SAMPLE_RATE, output="sos"), noise)
        envelope = np.zeros(count)
        for spoken in own:
            if phone.frication:
                first, last = (round(t * SAMPLE_RATE) for t in (spoken.start - 0.04, spoken.end + 0.04))
                piece = slice(max(first, 0), min(last, count))
                envelope[piece] = np.maximum(envelope[piece], level[piece])
            if phone.burst:
                first = round(spoken.end * SAMPLE_RATE)
                length = max(min(round(6 * config.burst_seconds * SAMPLE_RATE), count - first), 0)
                fall = np.exp(-np.arange(length) / (config.burst_seconds * SAMPLE_RATE))
                envelope[first : first + length] += phone.burst * fall
        sound += envelope * band
    return sound
