"""The schedule of a run: it decides the stage of each training step, what is trainable in it, which losses are used and
by which factor the learning rates have fallen (DEGSTalk, training strategy).

Pure functions of a step and a schedule. It must not know optimizers, models or nerfstudio.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from degstalk_ns.errors import UserError


class LearningRateKind(str, Enum):
    """How the learning rate of a parameter group changes over the run."""

    CONSTANT = "constant"
    MEANS = "means"
    FIELDS = "fields"

    @staticmethod
    def of(group: str) -> LearningRateKind:
        """The kind of a parameter group by its name (``face_means``, ``mouth_field_grids``, ...)."""
        if "_field_" in group:
            return LearningRateKind.FIELDS
        return LearningRateKind.MEANS if group.endswith("_means") or group == "poses" else LearningRateKind.CONSTANT


class Stage(str, Enum):
    """Stages of a run.

    ``STATIC`` trains the Gaussians alone, ``MOTION`` Gaussians and fields, and ``FUSE`` the colours of both regions and
    the opacities of the face on the composed frame.
    """

    STATIC = "static"
    MOTION = "motion"
    FUSE = "fuse"


@dataclass
class ScheduleConfig:
    """Start and end of each training stage and phase, as fractions of the run, so that they scale with its number of
    steps. The defaults correspond to the 60,000 steps of the official DEGSTalk code (3,000 static, 47,000 motion,
    10,000 fuse), unless an option says otherwise."""

    static_end: float = 3_000 / 60_000
    """End of the static stage, as a fraction of the run (3,000 of 60,000 steps)."""
    motion_end: float = 50_000 / 60_000
    """End of the motion stage, as a fraction of the run (50,000 of 60,000 steps)."""
    growth_start: float = 500 / 60_000
    """Start of densification and pruning, as a fraction of the run (500 of 60,000 steps)."""
    growth_end: float = 49_000 / 60_000
    """End of densification and pruning of the face, as a fraction of the run (49,000 of 60,000 steps)."""
    mouth_growth_end: float = 45_000 / 60_000
    """End of densification and pruning of the mouth, as a fraction of the run (45,000 of 60,000 steps)."""
    growth_every: float = 100 / 60_000
    """Interval between two densification steps, as a fraction of the run (100 of 60,000 steps)."""
    size_prune_start: float = 3_000 / 60_000
    """Point of the run, as a fraction, after which Gaussians that are too large in space are pruned (3,000 of 60,000
    steps)."""
    perceptual_start: float = 47_000 / 60_000
    """Point of the run, as a fraction, from which the motion stage uses the LPIPS losses of the face (47,000 of 60,000
    steps)."""
    mouth_finish_start: float = 49_000 / 60_000
    """Point of the run, as a fraction, from which the motion stage trains only the colours of the mouth, over black and
    with its LPIPS loss (49,000 of 60,000 steps)."""
    curriculum_end: float = 40_000 / 60_000
    """Point of the run, as a fraction, at which the windows of the curriculum reach their end; from then on all frames
    are drawn alike (40,000 of 60,000 steps)."""
    blink_end: float | None = None
    """Point of the run, as a fraction, at which the window of blink strengths reaches fully closed eyes; None means the
    same point as for the window of mouth openings, as in the official DEGSTalk code. It must come while the Gaussians
    still move and new ones are added; otherwise the eyes do not learn to close."""
    hair_free_end: float = 46_000 / 60_000
    """Point of the run, as a fraction, until which most motion steps leave hair out of the face loss (46,000 of 60,000
    steps; see the option losses.hair-every)."""
    fuse_perceptual_start: float = 55_000 / 60_000
    """Point of the run, as a fraction, from which the fuse stage uses the LPIPS loss (55,000 of 60,000 steps, the
    middle of the stage)."""
    silent_every: int = 0
    """One in this many motion steps gives the face no sound; 0 for none. The expression then explains what it can, and
    sound moves only the rest: what goes along with a sound by chance, such as a raised brow, is not learned from few
    frames. The official DEGSTalk code always gives the sound."""
    sh_degree_every: float = 1_000 / 60_000
    """Interval, as a fraction of the run, at which the degree of the spherical harmonics in use rises by one (1,000 of
    60,000 steps)."""
    lr_means_end: float = 45_000 / 60_000
    """Point of the run, as a fraction, at which the learning rate of the Gaussian positions reaches its final value
    (45,000 of 60,000 steps)."""
    lr_means_final: float = 0.01
    """Ratio of the final to the first learning rate of the Gaussian positions (1.6e-6 to 1.6e-4); it falls
    log-linearly."""
    lr_fields_half: float = 40_000 / 60_000
    """Fraction of the run over which the learning rates of the fields fall to one half, exponentially (40,000 of 60,000
    steps), until ``lr_fields_drop``."""
    lr_fields_drop: float = 40_000 / 60_000
    """Point of the run, as a fraction, from which the learning rates of the fields follow ``lr_fields_tenth`` instead
    (40,000 of 60,000 steps): at the default they drop at once from a factor of 0.5 to 0.16."""
    lr_fields_tenth: float = 50_000 / 60_000
    """Point of the run, as a fraction, at which the factor on the learning rates of the fields is one tenth; it falls
    exponentially from the start of the run, and acts from ``lr_fields_drop`` on (50,000 of 60,000 steps)."""


@dataclass(frozen=True)
class Growth:
    """When one region is densified and pruned; implements :class:`degstalk_ns.training.densification.GrowthSchedule`.

    Attributes:
        start, end, every: steps.
        size_prune_start: step after which Gaussians may be pruned for their size.
    """

    start: int
    end: int
    every: int
    size_prune_start: int

    def grows(self, step: int) -> bool:
        """Whether densification and pruning happen after this step."""
        return self.start <= step < self.end and step > 0 and step % self.every == 0

    def growth_progress(self, step: int) -> float:
        """0 at the first densification, 1 at the last; the opacity threshold of pruning follows it."""
        return min(max((step - self.start) / max(self.end - self.start, 1), 0.0), 1.0)

    def prunes_by_size(self, step: int) -> bool:
        """Whether Gaussians may be pruned for their size after this step."""
        return step > self.size_prune_start


@dataclass(frozen=True)
class Schedule:
    """A :class:`ScheduleConfig` in the steps of one run. Steps count from 0."""

    config: ScheduleConfig
    total: int
    """Number of steps of the run (``max_num_iterations``)."""

    def __post_init__(self) -> None:
        if self.total < 3:
            raise UserError(f"a run needs at least 3 steps, one for each stage; max_num_iterations is {self.total}")
        if not 0 < self.config.static_end < self.config.motion_end <= 1:
            raise UserError(
                "the stages must follow each other within the run: 0 < static_end < motion_end <= 1, got "
                f"{self.config.static_end} and {self.config.motion_end}"
            )

    def steps(self, fraction: float) -> int:
        """A fraction of the run as a whole number of steps."""
        return round(fraction * self.total)

    @property
    def static_end(self) -> int:
        return max(self.steps(self.config.static_end), 1)

    @property
    def motion_end(self) -> int:
        return max(self.steps(self.config.motion_end), self.static_end + 1)

    def stage(self, step: int) -> Stage:
        """The stage of ``step``."""
        if step < self.static_end:
            return Stage.STATIC
        return Stage.MOTION if step < self.motion_end else Stage.FUSE

    def phase(self, step: int) -> int:
        """How many of the run's phases have begun at ``step``; what one has frozen or finished, an earlier one would
        undo."""
        c = self.config
        later = (c.perceptual_start, c.mouth_finish_start, c.fuse_perceptual_start)
        return sum(step >= start for start in (self.static_end, self.motion_end, *map(self.steps, later)))

    def progress(self, step: int) -> float:
        """Progress of the window of mouth openings, from 0 at the first motion step to 1 at ``curriculum_end``."""
        return self._slid(step, self.config.curriculum_end)

    def blink_progress(self, step: int) -> float:
        """Progress of the window of blink strengths, from 0 at the first motion step to 1 at ``blink_end``."""
        end = self.config.blink_end
        return self._slid(step, self.config.curriculum_end if end is None else end)

    def _slid(self, step: int, last: float) -> float:
        end = self.steps(last)
        return min(max((step - self.static_end) / max(end - self.static_end, 1), 0.0), 1.0)

    def perceptual(self, step: int) -> bool:
        """Whether the LPIPS losses of the face are used (end of the motion stage)."""
        return self.stage(step) is Stage.MOTION and step >= self.steps(self.config.perceptual_start)

    def finishes_mouth(self, step: int) -> bool:
        """Whether only the colours of the mouth are trained, over black and with its LPIPS loss (end of the motion
        stage)."""
        return self.stage(step) is Stage.MOTION and step >= self.steps(self.config.mouth_finish_start)

    def fuse_perceptual(self, step: int) -> bool:
        """Whether the LPIPS loss of the composed frame is used (second part of the fuse stage)."""
        return self.stage(step) is Stage.FUSE and step >= self.steps(self.config.fuse_perceptual_start)

    def ignores_hair(self, step: int, every: int) -> bool:
        """Whether the face loss ignores hair pixels at this step: all motion steps but each ``every``-th, until
        ``hair_free_end``. In the static stage hair counts."""
        if self.stage(step) is not Stage.MOTION or step >= self.steps(self.config.hair_free_end):
            return False
        return step % every != 0

    def silent(self, step: int) -> bool:
        """Whether the face is trained without the sound of its frame at this step: each ``silent_every``-th motion
        step."""
        every = self.config.silent_every
        return self.stage(step) is Stage.MOTION and every > 0 and step % every == 0

    def sh_degree(self, step: int, highest: int) -> int:
        """Degree of the spherical harmonics in use, at most ``highest``."""
        every = max(self.steps(self.config.sh_degree_every), 1)
        return min(step // every, highest)

    def growth(self, region: str) -> Growth:
        """When the region "face" or "mouth" is densified and pruned."""
        c = self.config
        end = c.mouth_growth_end if region == "mouth" else c.growth_end
        return Growth(
            start=self.steps(c.growth_start),
            end=min(self.steps(end), self.motion_end),
            every=max(self.steps(c.growth_every), 1),
            size_prune_start=self.steps(c.size_prune_start),
        )

    def trains(self, step: int, group: str) -> bool:
        """Whether the parameters named ``group`` are trained at this step.

        Static: Gaussians (their embeddings have no effect yet). Motion: everything, and at its end only the colours of
        the mouth. Fuse: colours of both regions and the face's opacities. Corrections of poses: until that end.
        """
        stage = self.stage(step)
        if group == "poses":
            return stage is Stage.MOTION and not self.finishes_mouth(step)
        if stage is Stage.MOTION:
            frozen = group.startswith("mouth_") and self.finishes_mouth(step)
            return not frozen or group.endswith(("_sh0", "_shN"))
        if stage is Stage.STATIC:
            return "_field_" not in group and not group.endswith("_embeddings")
        return group.endswith(("_sh0", "_shN")) or group == "face_opacities"

    def rate_factor(self, step: int, kind: LearningRateKind) -> float:
        """Factor on the first learning rate of a group: means fall log-linearly to ``lr_means_final``, the rates of the
        fields exponentially, and faster from ``lr_fields_drop`` on."""
        if kind is LearningRateKind.MEANS:
            return self.config.lr_means_final ** min(step / max(self.steps(self.config.lr_means_end), 1), 1.0)
        if kind is LearningRateKind.FIELDS:
            if step >= self.steps(self.config.lr_fields_drop):
                return 0.1 ** (step / max(self.steps(self.config.lr_fields_tenth), 1))
            return 0.5 ** (step / max(self.steps(self.config.lr_fields_half), 1))
        return 1.0
