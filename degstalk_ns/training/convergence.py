"""Whether a run has learned what it is for, so that it need not end at a length that suited another recording.

Numbers in, a decision and its words out. It must not know images, models, files or nerfstudio.
"""

from __future__ import annotations

from dataclasses import dataclass

from degstalk_ns.metrics.lips_and_eyes import LipMovement


@dataclass
class LengthConfig:
    """How a run extends itself until its lips follow those of the training frames. Chosen for this project; the
    official DEGSTalk code has a fixed length."""

    most: float = 1.0
    """Maximum length to which a run extends itself, as a factor on the number of steps it was asked for; with 1 it
    never does."""
    factor: float = 1.5
    """Factor by which a run is extended at once. Its whole schedule is stretched, and it looks again at the end of
    densification."""
    slope: float = 0.75
    """Slope of the regression of rendered on recorded openings of the lips, over training frames, from which the lips
    count as learned; what is left of the run adds about 0.1. A recording of 13 s was trained better, and its held-out
    part worse, by a run that was extended at 0.86."""
    shut: float = 0.5
    """Fraction of the training frames with closed lips in which the rendered lips must be closed, too."""
    frames: int = 60
    """Number of training frames that are looked at."""


def longest(asked: int, config: LengthConfig) -> int:
    """The most steps that a run of ``asked`` steps may have."""
    return max(round(asked * config.most), asked)


def longer(steps: int, asked: int, moved: LipMovement, config: LengthConfig) -> int | None:
    """The number of steps that a run is to have instead of ``steps``, or None where it has enough.

    Args:
        steps: of the run now.
        asked: steps it was asked for.
        moved: how far its lips move in training frames.
        config: what is enough, and how many steps there may be.
    """
    if steps >= longest(asked, config):
        return None
    if moved.slope >= config.slope and moved.shut >= config.shut * moved.closed:
        return None
    return min(round(steps * config.factor), longest(asked, config))


def why_longer(steps: int, moved: LipMovement) -> str:
    """One line for the user: what is not learned yet, and that the run has ``steps`` now."""
    closed = f", and stay closed in {moved.shut} of {moved.closed} frames with closed lips" if moved.closed else ""
    return (
        f"in training frames the lips open {moved.slope:.2f} times as far as the recorded ones{closed}: the run is "
        f"extended to {steps:,} steps"
    )
