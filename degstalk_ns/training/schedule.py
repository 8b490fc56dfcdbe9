"""Which stage a step is in, what is trainable then and which losses are on (DEGSTalk, training strategy).

Pure functions of a step and a schedule. It must not know optimizers, models or nerfstudio.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from degstalk_ns.errors import UserError


class LearningRateKind(str, Enum):
    """How a group of parameters is slowed down over the run."""

    CONSTANT = "constant"
    MEANS = "means"
    FIELDS = "fields"

    @staticmethod
    def of(group: str) -> LearningRateKind:
        """The kind of a parameter group by its name (``face_means``, ``mouth_field_grids``, ...)."""
        if "_field_" in group:
            return LearningRateKind.FIELDS
        return LearningRateKind.MEANS if group.endswith("_means") else LearningRateKind.CONSTANT


class Stage(str, Enum):
    """``STATIC``: Gaussians alone. ``MOTION``: Gaussians and fields. ``FUSE``: colours and face opacity, composed."""

    STATIC = "static"
    MOTION = "motion"
    FUSE = "fuse"


@dataclass
class ScheduleConfig:
    """The recipe in fractions of the run, so that a shorter run is the same recipe in small.

    The defaults are the release's 60,000 steps: 3,000 static, 47,000 motion, 10,000 fuse.
    """

    static_end: float = 3_000 / 60_000
    """End of the static stage, as a fraction of the run (release: 3,000 of 60,000 steps)."""
    motion_end: float = 50_000 / 60_000
    """End of the motion stage, as a fraction of the run (release: 50,000)."""
    growth_start: float = 500 / 60_000
    """First growth and pruning, as a fraction of the run (release: 500)."""
    growth_end: float = 49_000 / 60_000
    """Last growth and pruning (release: 1,000 steps before the end of motion)."""
    growth_every: float = 100 / 60_000
    """Between two growths (release: 100 steps)."""
    size_prune_start: float = 3_000 / 60_000
    """From here on Gaussians too large on screen or in space are pruned (release: after 3,000 steps)."""
    perceptual_start: float = 47_000 / 60_000
    """From here to the end of motion the face has perceptual losses (release: 3,000 steps before its end)."""
    curriculum_end: float = 40_000 / 60_000
    """The curriculum windows reach their ends here (release: 10,000 steps before the end of motion)."""
    blink_end: float | None = None
    """The window of blink strength reaches closed eyes here; None: at ``curriculum_end``, as in the release. Origin:
    ours. Eyes that first close when Gaussians hardly move any more and none are added stay open."""
    hair_free_end: float = 46_000 / 60_000
    """Until here 6 of 7 motion steps ignore hair in the face loss (release: shortly before the perceptual phase)."""
    fuse_perceptual_start: float = 55_000 / 60_000
    """From here on the fuse stage has LPIPS (release: from its half)."""
    sh_degree_every: float = 1_000 / 60_000
    """One more spherical-harmonics degree at each multiple (release: 1,000 steps)."""
    lr_means_end: float = 45_000 / 60_000
    """The means' learning rate reaches its last value here (release: 45,000 steps)."""
    lr_means_final: float = 0.01
    """Last over first learning rate of the means (release: 1.6e-6 over 1.6e-4, log-linear)."""
    lr_fields_half: float = 40_000 / 60_000
    """The fields' learning rates halve smoothly over this many steps (release: 40,000)."""


@dataclass(frozen=True)
class Schedule:
    """A :class:`ScheduleConfig` in the steps of one run. Steps count from 0."""

    config: ScheduleConfig
    total: int
    """Steps of the run (``max_num_iterations``)."""

    def __post_init__(self) -> None:
        if self.total < 3:
            raise UserError(f"a run needs at least 3 steps, one for each stage; max_num_iterations is {self.total}")
        if not 0 < self.config.static_end < self.config.motion_end <= 1:
            raise UserError(
                "the stages must follow each other within the run: 0 < static_end < motion_end <= 1, got "
                f"{self.config.static_end} and {self.config.motion_end}"
            )

    def steps(self, fraction: float) -> int:
        """A fraction of the run in whole steps."""
        return round(fraction * self.total)

    @property
    def static_end(self) -> int:
        return max(self.steps(self.config.static_end), 1)

    @property
    def motion_end(self) -> int:
        return max(self.steps(self.config.motion_end), self.static_end + 1)

    def stage(self, step: int) -> Stage:
        if step < self.static_end:
            return Stage.STATIC
        return Stage.MOTION if step < self.motion_end else Stage.FUSE

    def progress(self, step: int) -> float:
        """How far the windows of mouth opening have slid, 0 at the first motion step to 1 at ``curriculum_end``."""
        return self._slid(step, self.config.curriculum_end)

    def blink_progress(self, step: int) -> float:
        """How far the window of blink strength has slid, 0 at the first motion step to 1 at ``blink_end``."""
        end = self.config.blink_end
        return self._slid(step, self.config.curriculum_end if end is None else end)

    def _slid(self, step: int, last: float) -> float:
        end = self.steps(last)
        return min(max((step - self.static_end) / max(end - self.static_end, 1), 0.0), 1.0)

    def perceptual(self, step: int) -> bool:
        """LPIPS on face and mouth is on (end of the motion stage)."""
        return self.stage(step) is Stage.MOTION and step >= self.steps(self.config.perceptual_start)

    def fuse_perceptual(self, step: int) -> bool:
        return self.stage(step) is Stage.FUSE and step >= self.steps(self.config.fuse_perceptual_start)

    def ignores_hair(self, step: int, every: int) -> bool:
        """Hair pixels are left out of the face loss at this step: all motion steps but each ``every``-th, until
        ``hair_free_end``. In the static stage hair counts."""
        if self.stage(step) is not Stage.MOTION or step >= self.steps(self.config.hair_free_end):
            return False
        return step % every != 0

    def sh_degree(self, step: int, highest: int) -> int:
        """Spherical-harmonics degree in use."""
        every = max(self.steps(self.config.sh_degree_every), 1)
        return min(step // every, highest)

    def grows(self, step: int) -> bool:
        """Growth and pruning happen after this step."""
        every = max(self.steps(self.config.growth_every), 1)
        start, end = self.steps(self.config.growth_start), self.steps(self.config.growth_end)
        return start <= step < min(end, self.motion_end) and step > 0 and step % every == 0

    def growth_progress(self, step: int) -> float:
        """0 at the first growth, 1 at the last: how far the pruning threshold has risen."""
        start, end = self.steps(self.config.growth_start), self.steps(self.config.growth_end)
        return min(max((step - start) / max(end - start, 1), 0.0), 1.0)

    def prunes_by_size(self, step: int) -> bool:
        return step > self.steps(self.config.size_prune_start)

    def trains(self, step: int, group: str) -> bool:
        """Whether the parameters named ``group`` are trained at this step.

        Static: Gaussians (their embeddings have no effect yet). Motion: everything. Fuse: colours of both regions and
        the face's opacities.
        """
        stage = self.stage(step)
        if stage is Stage.MOTION:
            return True
        if stage is Stage.STATIC:
            return "_field_" not in group and not group.endswith("_embeddings")
        return group.endswith(("_sh0", "_shN")) or group == "face_opacities"

    def rate_factor(self, step: int, kind: LearningRateKind) -> float:
        """Factor on a group's first learning rate: means log-linear to ``lr_means_final``, fields halving smoothly."""
        if kind is LearningRateKind.MEANS:
            return self.config.lr_means_final ** min(step / max(self.steps(self.config.lr_means_end), 1), 1.0)
        if kind is LearningRateKind.FIELDS:
            return 0.5 ** (step / max(self.steps(self.config.lr_fields_half), 1))
        return 1.0
