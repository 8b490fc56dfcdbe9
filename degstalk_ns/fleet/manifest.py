"""What a fleet is asked for: subjects, methods, seeds, sounds, and where the results go; checked whole.

It must not know how a step is run.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import fsspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from degstalk_ns.errors import UserError

SAFE_NAME: Final[str] = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""Names become folders, on any system and in any store."""
LARGEST_MANIFEST: Final[int] = 32 << 20
"""Bytes. 100,000 subjects take about 10 MB."""
Name = Annotated[str, Field(pattern=SAFE_NAME)]
Words = Annotated[tuple[str, ...], Field(description="Further words of the command, as they would be typed.")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Need(_Strict):
    """What a step takes of a machine."""

    cpus: float = Field(default=2.0, gt=0, description="CPU threads; those of torch and of the kernels follow.")
    gpus: float = Field(default=0.0, ge=0, description="GPUs, or a share of one.")
    memory_gb: float = Field(default=3.0, gt=0, description="Memory, GB.")
    minutes: float = Field(default=24 * 60.0, gt=0, description="Longest time; a SLURM job is given no more.")


class Needs(_Strict):
    """What each kind of step takes. At 512 x 512 on a CPU, 1.6 to 1.8 GB were measured; the defaults leave room for
    larger frames and longer sounds."""

    process: Need = Need(memory_gb=3.0)
    train: Need = Need(memory_gb=4.0)
    evaluate: Need = Need(memory_gb=3.0)
    render: Need = Need(memory_gb=3.0)


class Drawn(_Strict):
    """A synthetic person, as `degstalk sample` makes it."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    size: int = Field(default=512, ge=64, le=2048, multiple_of=2)
    seconds: float = Field(default=10.0, ge=1, le=3600)


class FleetSubject(_Strict):
    """One person: a video, a dataset that there is already, or a synthetic one."""

    name: Name
    video: str | None = Field(default=None, description="Path or fsspec address of a video.")
    dataset: str | None = Field(default=None, description="Path or fsspec address of the folder of a dataset.")
    drawn: Drawn | None = None
    process: Words = ()

    @model_validator(mode="after")
    def _one_source(self) -> FleetSubject:
        given = [name for name in ("video", "dataset", "drawn") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of video, dataset and drawn, got {' and '.join(given) or 'none'}")
        if self.process and self.dataset is not None:
            raise ValueError("a dataset is not processed; leave process out")
        return self


class FleetSound(_Strict):
    """A sound that every trained avatar speaks."""

    name: Name
    path: str


class Training(_Strict):
    """Which avatars are trained of each subject."""

    methods: tuple[str, ...] = Field(default=("degstalk-fast",), min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(default=(0,), min_length=1)
    options: Words = ()


class Trials(_Strict):
    """A table of the paper in place of a training: what `degstalk experiment` is given."""

    table: Literal["table1", "table2"]
    methods: tuple[str, ...] = Field(min_length=1)
    budget: float = Field(gt=0, description="Minutes of training for each method on each subject.")
    seeds: int = Field(default=1, ge=1, le=100)
    schedule: Literal["fast", "paper"] = "fast"
    folder: str = Field(description="Of the trials and the tables.")


class Manifest(_Strict):
    """Everything that is asked for."""

    output: str = Field(description="Folder of the results: a path that all machines see, or an fsspec address.")
    subjects: tuple[FleetSubject, ...] = Field(min_length=1)
    training: Training | None = Field(default=Training(), description="null: datasets are made, and that is all.")
    trials: Trials | None = Field(
        default=None, description="Trials of an experiment; `degstalk experiment` makes them."
    )
    evaluate: bool = True
    sounds: tuple[FleetSound, ...] = ()
    render: Words = ()
    needs: Needs = Needs()
    retries: int = Field(
        default=2, ge=0, le=100, description="How often a step is tried again whose machine has failed it."
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Manifest:
        twice = _named_twice(self.model_dump())
        if twice:
            raise ValueError("; ".join(twice))
        made = self.training is not None or self.trials is not None
        if not made and all(subject.dataset is not None for subject in self.subjects):
            raise ValueError("nothing to do: every subject has its dataset, and training is null")
        return self

    def inputs(self) -> list[str]:
        """Every file and folder that is read, once."""
        named = [given for subject in self.subjects for given in (subject.video, subject.dataset) if given is not None]
        return list(dict.fromkeys([*named, *(sound.path for sound in self.sounds)]))


def _named_twice(content: Any) -> list[str]:
    """What stands more than once and must not, in plain values of which anything else may be wrong."""

    def under(value: Any, key: str) -> Any:
        return value.get(key) if isinstance(value, dict) else None

    def listed(value: Any) -> list[Any]:
        return list(value) if isinstance(value, list | tuple) else []

    training = under(content, "training")
    groups = {key: [under(one, "name") for one in listed(under(content, key))] for key in ("subjects", "sounds")}
    groups |= {f"training.{key}": listed(under(training, key)) for key in ("methods", "seeds")}
    found = []
    for what, names in groups.items():
        for name, number in Counter(name for name in names if isinstance(name, str | int)).items():
            if number > 1:
                found.append(f"{what}: {name} stands {'twice' if number == 2 else f'{number} times'}")
    return found


def read_manifest(path: Path) -> Manifest:
    """A manifest, YAML or JSON; relative paths in it begin at its folder.

    Raises:
        UserError: it cannot be read, or something in it cannot be meant: all that is wrong, in one line.
    """
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise UserError(f"{path}: larger than {LARGEST_MANIFEST >> 20} MB; split it")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'no text'})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise UserError(
            f"{path}{place}: neither YAML nor JSON; `degstalk fleet schema` tells what is expected"
        ) from None
    return resolved(manifest_of(content, str(path)), path.resolve().parent)


def manifest_of(content: Any, called: str) -> Manifest:
    """A manifest of plain values.

    Raises:
        UserError: as :func:`read_manifest`.
    """
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'manifest'}: {_said(fault['msg'])}"
            for fault in error.errors()
        ]
        wrong += [line for line in _named_twice(content) if not any(line in other for other in wrong)]
        more = f"; and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise UserError(
            f"{called}: {'; '.join(wrong[:10])}{more}; `degstalk fleet schema` tells what is expected"
        ) from None


def _said(message: str) -> str:
    return re.sub(r"^Value error, ", "", message).replace("Extra inputs are not permitted", "unknown key")


def resolved(manifest: Manifest, folder: Path) -> Manifest:
    """The manifest with its relative paths from ``folder`` on, so that every machine means the same."""

    def whole(path: str | None) -> str | None:
        if path is None or "://" in path or "::" in path:
            return path
        return str((folder / Path(path).expanduser()).resolve())

    subjects = [
        subject.model_copy(update={"video": whole(subject.video), "dataset": whole(subject.dataset)})
        for subject in manifest.subjects
    ]
    sounds = [sound.model_copy(update={"path": whole(sound.path)}) for sound in manifest.sounds]
    update = {"output": whole(manifest.output), "subjects": tuple(subjects), "sounds": tuple(sounds)}
    return manifest.model_copy(update=update)


def missing_inputs(manifest: Manifest) -> list[str]:
    """Those inputs that this machine does not see, each with why."""
    found = []
    for address in manifest.inputs():
        try:
            system, place = fsspec.core.url_to_fs(address)
            if not system.exists(place):
                found.append(f"{address}: no such file or folder")
        except (OSError, ValueError, ImportError) as error:
            found.append(f"{address}: cannot be reached ({' '.join(str(error).split()) or type(error).__name__})")
    return found
