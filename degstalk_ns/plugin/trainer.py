"""Adapter to nerfstudio's Trainer: a resumed run ends where the schedule ends, checkpoints are written whole or not
at all, saved configs say what they lack, and mistakes of the user end in one line. No mathematics of its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils import writer
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.rich_utils import CONSOLE

from degstalk_ns.avatar.avatar import REGIONS
from degstalk_ns.dataparsers.layout import require_dataset_folder
from degstalk_ns.errors import UnwritableError, UserError, one_line_errors
from degstalk_ns.files import named_write_errors, only_one, reach_disk
from degstalk_ns.kernels.memory import keep_freed_memory
from degstalk_ns.kernels.threads import cores_shared
from degstalk_ns.plugin.datamanager import TalkingHeadDataManager, TalkingHeadDataManagerConfig
from degstalk_ns.plugin.host import kept_local
from degstalk_ns.plugin.pipeline import DegstalkPipeline
from degstalk_ns.plugin.saved_config import refuse_earlier_runs, say_completed
from degstalk_ns.reading.checkpoints import checkpoint_step, newest_checkpoint, read_training_state
from degstalk_ns.training.convergence import LengthConfig, longer, longest, why_longer
from degstalk_ns.training.coverage import what_is_missing
from degstalk_ns.training.densification import remove_broken
from degstalk_ns.training.stages import Schedule, Stage

refuse_earlier_runs()


@dataclass
class DegstalkTrainerConfig(TrainerConfig):
    """Trainer of a talking portrait. The option max-num-iterations is the length of the whole schedule, also of a
    resumed run."""

    _target: type = field(default_factory=lambda: DegstalkTrainer)
    length: LengthConfig = field(default_factory=LengthConfig)
    """Whether a run extends itself until its lips follow those of the training frames."""

    def __setattr__(self, name: str, value: Any) -> None:
        # `ns-viewer` puts its own viewer settings here, and nerfstudio's programs the folder of the checkpoints, of
        # which they would take the last by name, whole or not.
        super().__setattr__(name, kept_local(value) if name == "viewer" else value)
        if name == "load_dir" and value is not None and vars(self).get("load_step", 0) is None:
            with one_line_errors():
                super().__setattr__("load_step", checkpoint_step(newest_checkpoint(Path(value), _note)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        # yaml calls this with what a file holds, in every program; copy does too, and then there is nothing to say.
        vars(self).update(state)
        say_completed(self)

    def save_config(self) -> None:
        """As nerfstudio's, with absolute folders: `ns-eval`, `ns-render` and `ns-viewer` look for relative ones where
        they are started, not where the training was."""
        manager = self.pipeline.datamanager
        assert isinstance(manager, TalkingHeadDataManagerConfig)
        parser = manager.dataparser
        if manager.data is None and parser.data != Path():  # nerfstudio's word for none
            manager.data = parser.data
        for owner, name in ((self, "output_dir"), (self, "data"), (manager, "data")):
            folder = getattr(owner, name)
            if folder is not None:
                setattr(owner, name, Path(folder).absolute())
        if manager.data is not None:
            parser.data = manager.data
        with one_line_errors(), named_write_errors(self.output_dir):
            require_dataset_folder(manager.data)
            if self.machine.num_devices <= 1:  # with more, the processes that train are others
                _BEGUN.close()
                _BEGUN.enter_context(only_one(self.get_base_dir()))
            if not self.get_base_dir().exists():
                _MADE.add(self.get_base_dir())
            super().save_config()


def resume_command(given: Sequence[str], method: str, data: Path | None, checkpoints: Path) -> str:
    """What goes on with a training: the command that began it, with all its options, from its checkpoints. Where that
    was no ``ns-train METHOD`` or had its options from a file, only the dataset is named.

    Args:
        given: the words of this process's command.
    """
    if len(given) < 2 or Path(given[0]).stem != "ns-train" or given[1] != method:  # begun by something else
        return shlex.join(["ns-train", method, "--data", str(data), "--load-dir", str(checkpoints)])
    words = list(given[2:])
    names = [word.partition("=")[0].replace("_", "-") for word in words]
    if "--load-config" in names:  # nerfstudio would take the whole config from there, without what is added here
        return shlex.join(["ns-train", method, "--data", str(data), "--load-dir", str(checkpoints)])
    for place in reversed(range(len(words))):
        if names[place] in ("--load-dir", "--load-step", "--load-checkpoint"):
            del words[place : place + (1 if "=" in words[place] else 2)]
    return shlex.join(["ns-train", method, "--load-dir", str(checkpoints), *words])


_BEGUN = ExitStack()
"""Keeps other processes from the folder of the run whose config.yml this one has written, until it trains there."""
_MADE: set[Path] = set()
"""Folders of runs that this process has made for their config.yml."""


class DegstalkTrainer(Trainer):
    """nerfstudio's trainer with a schedule that has an end, which may be put off."""

    config: DegstalkTrainerConfig
    _asked: int
    _total: int
    _trained: int
    _leave_a_core: Callable[[bool], None]

    def __init__(self, config: TrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        # Not when the methods are listed: looking for a GPU starts the driver, in every program of nerfstudio.
        if config.machine.device_type == "cuda" and not torch.cuda.is_available():
            CONSOLE.print("note: no CUDA device was found: training on the CPU", markup=False, highlight=False)
            config.machine.device_type = "cpu"
        super().__init__(config, local_rank, world_size)

    @one_line_errors()
    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """As nerfstudio's; mistakes of the user end in one line."""
        keep_freed_memory()
        try:
            with named_write_errors(self.base_dir):
                super().setup(test_mode)
        except (UserError, SystemExit):  # what is refused leaves no run that looks like one
            self._leave_nothing()
            raise

    def _leave_nothing(self) -> None:
        """Removes what was written of a run that cannot begin, if its folder is new."""
        if self.base_dir not in _MADE:
            return
        for name in ("config.yml", "dataparser_transforms.json"):
            with suppress(OSError):
                (self.base_dir / name).unlink()
        for folder in (self.checkpoint_dir, self.base_dir, *self.base_dir.parents):
            if folder == self.config.output_dir:
                break
            with suppress(OSError):  # something else is in it, or it is not there
                folder.rmdir()

    @one_line_errors()
    def train(self) -> None:
        """Train up to ``max_num_iterations``; nerfstudio would add as many again to a resumed run."""
        total = max(self.config.max_num_iterations, int(self._pipeline.steps))
        if self._start_step >= total:
            raise UserError(
                f"the checkpoint is at step {self._start_step - 1} and the run has {total} steps: nothing is left to "
                "train; evaluate it with ns-eval"
            )
        self._refuse_to_fall_back(total)
        self._pipeline.planned.fill_(total)
        given, self._total = self.config.max_num_iterations, total
        if total != given:
            self._lengthen(total)
        self._asked, self._trained = given, max(self._start_step - 1, 0)
        self.config.max_num_iterations = max(total, longest(given, self.config.length)) - self._start_step
        before, after = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION
        self.callbacks += [TrainingCallback([before], self._share_cores), TrainingCallback([after], self._see_progress)]
        _BEGUN.close()
        try:
            with only_one(self.base_dir), named_write_errors(self.base_dir), cores_shared() as leave_one:
                self._leave_a_core = leave_one
                super().train()
        except KeyboardInterrupt:
            _note(f"interrupted; {self._how_to_go_on()}")
            sys.exit(_INTERRUPTED)
        except UnwritableError as error:
            reason = str(error).partition(";")[0]
            raise UserError(f"{reason}; make room or change the permissions; {self._how_to_go_on()}") from None
        finally:
            self.config.max_num_iterations = given
            del self.callbacks[-2:]
        self._say_what_is_missing()

    def _how_to_go_on(self) -> str:
        """What to do when a training has ended before its time."""
        config = self.config
        if any(checkpoint_step(path) is not None for path in self.checkpoint_dir.glob("*.ckpt")):
            data = config.pipeline.datamanager.data
            return f"go on with: {resume_command(sys.argv, str(config.method_name), data, self.checkpoint_dir)}"
        if config.load_dir is not None or config.load_checkpoint is not None:
            return "it has no checkpoint of its own yet; the same command goes on from where it began"
        return "it has no checkpoint yet; the same command begins anew"

    @property
    def _pipeline(self) -> DegstalkPipeline:
        assert isinstance(self.pipeline, DegstalkPipeline)
        return self.pipeline

    def _refuse_to_fall_back(self, total: int) -> None:
        """A longer run begins all its phases later: a checkpoint that is past one of them does not fit into it."""
        planned, step, schedule = int(self._pipeline.planned), self._start_step, self._pipeline.model.schedule
        assert schedule is not None
        if not planned or planned == total or not step:
            return
        before, after = (Schedule(schedule.config, steps) for steps in (planned, total))
        if after.phase(step) < before.phase(step - 1):
            raise UserError(
                f"the checkpoint is at step {step - 1} of {planned}, in the {before.stage(step - 1).value} stage; in a "
                f"run of {total} steps it would fall back to an earlier phase: train such a run from its beginning"
            )

    def _lengthen(self, total: int) -> None:
        self._total = total
        self._pipeline.lengthen(total, self.config.machine.seed)
        writer.GLOBAL_BUFFER["max_iter"] = total

    def _share_cores(self, step: int) -> None:
        """Before each step: a step of many small operations leaves a core to the thread that reads frames ahead."""
        schedule = self._pipeline.model.schedule
        assert schedule is not None
        self._leave_a_core(schedule.stage(step) is Stage.MOTION and not schedule.perceptual(step))

    def _see_progress(self, step: int) -> None:
        """After each step: stop at the last one; at the end of densification, extend a run that has not learned enough
        to move its lips."""
        self._trained = step
        schedule = self._pipeline.model.schedule
        assert schedule is not None
        length = self.config.length
        if step == schedule.growth("face").end and longest(self._asked, length) > self._total:
            moved = self._pipeline.learned_lips(length.frames)
            steps = None if isinstance(moved, str) else longer(self._total, self._asked, moved, length)
            if isinstance(moved, str):
                _note(f"whether the run is long enough is not looked at: {moved}")
            elif steps is not None:
                _note(why_longer(steps, moved))
                self._lengthen(steps)
        if step >= self._total - 1:  # nerfstudio's loop has as many steps as there may be at most
            self.stop_training = True

    def _after_train(self) -> None:
        self.step = self._trained  # nerfstudio's loop counts one on before it stops
        super()._after_train()

    def _say_what_is_missing(self) -> None:
        """One line for each thing that the recording could not teach."""
        manager = self.pipeline.datamanager
        assert isinstance(manager, TalkingHeadDataManager)
        recording = manager.recording
        rows = recording.train.aud_ids
        for line in what_is_missing(recording.mouth_opening[rows], recording.blink[rows]):
            _note(line)

    @one_line_errors()
    def _load_checkpoint(self) -> None:
        """As nerfstudio's, from the newest checkpoint that is whole, without running anything that it holds."""
        config = self.config
        if config.load_dir is not None and config.load_step is None:
            config.load_step = checkpoint_step(newest_checkpoint(config.load_dir, _note))
        given = config.load_checkpoint
        if config.load_dir is not None:
            given = config.load_dir / f"step-{config.load_step:09d}.ckpt"
        if given is not None:
            read_training_state(given)
        super()._load_checkpoint()

    def _remove_broken(self) -> None:
        """Removes Gaussians with numbers that are not finite, and says so: no checkpoint is to hold any."""
        model = self._pipeline.model
        for name in REGIONS:
            params = model.avatar.region(name).params
            groups = {key: f"{name}_{key}" for key in params}
            count = remove_broken(params, {key: self.optimizers.optimizers[group] for key, group in groups.items()})
            if count:
                for key, group in groups.items():
                    self.optimizers.parameters[group] = [params[key]]
                _note(f"{count} Gaussians of the {name} had numbers that are not finite and were removed")

    @check_main_thread
    @one_line_errors()
    def save_checkpoint(self, step: int) -> None:
        """Writes the checkpoint beside its folder, then moves it in, and keeps the one before: neither a killed run nor
        a machine that stops leaves half a checkpoint alone."""
        self._remove_broken()
        final, name = self.checkpoint_dir, f"step-{step:09d}.ckpt"
        beside = final.with_name(f"{final.name}.incomplete")
        try:
            final.mkdir(parents=True, exist_ok=True)
            self.checkpoint_dir = beside
            super().save_checkpoint(step)
            reach_disk(beside / name)
            os.replace(beside / name, final / name)
            reach_disk(final)
        except (OSError, RuntimeError) as error:  # torch raises the latter where a disk is full
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            if "inline_container" in reason:  # torch's writer, which got less onto the disk than it gave
                reason = "not all of it was taken; the disk may be full"
            self.checkpoint_dir = final
            raise UserError(
                f"{final / name}: the checkpoint cannot be written ({reason}); make room; {self._how_to_go_on()}"
            ) from None
        finally:
            self.checkpoint_dir = final
            shutil.rmtree(beside, ignore_errors=True)
        if self.config.save_only_latest_checkpoint:
            steps = {number: path for path in final.iterdir() if (number := checkpoint_step(path)) is not None}
            for older in sorted(steps)[:-_KEPT]:
                steps[older].unlink()


_INTERRUPTED: Final[int] = 130
"""Exit code after Ctrl-C, as shells have it (128 + SIGINT)."""
_KEPT: Final[int] = 2
"""Checkpoints that are kept: the newest, and the one before, should that be torn."""


def _note(line: str) -> None:
    CONSOLE.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
