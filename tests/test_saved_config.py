"""Saved configs of other versions: what is missing gets its default, what is unknown goes, and both are said."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from degstalk_ns.errors import UserError
from degstalk_ns.plugin.runs import load_run
from degstalk_ns.plugin.saved_config import complete, refuse_earlier_runs


@pytest.fixture
def run(trained_config: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change; the path of its config."""
    return Path(shutil.copytree(trained_config.parent, tmp_path / "outputs/tiny/degstalk-fast/only")) / "config.yml"


def test_options_newer_than_the_config_take_their_default_and_are_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.strip().startswith(("keep_rim:", "plates_in_memory:"))]
    assert len(kept) == len(lines) - 2
    run.write_text("".join(kept))
    assert load_run(run).model.config.plates_in_memory == 32
    assert capsys.readouterr().out == (
        "note: config.yml: 2 options were not in it and got their defaults: pipeline.model.keep_rim, "
        "pipeline.model.plates_in_memory\n"
    )


def test_options_that_no_longer_exist_are_named_and_not_saved_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = run.read_text()
    assert text.count("    keep_rim:") == 1
    run.write_text(text.replace("    keep_rim:", "    rim_in_pixels: 3\n    keep_rim:"))
    config = yaml.load(run.read_text(), Loader=yaml.Loader)
    assert capsys.readouterr().out == (
        "note: config.yml: 1 option in it does not exist in this version and is ignored: pipeline.model.rim_in_pixels\n"
    )
    assert not hasattr(config.pipeline.model, "rim_in_pixels")


def test_who_hands_an_earlier_config_to_yaml_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """As nerfstudio's programs do; `test_runs.py` asks one of them."""
    text = "!!python/object:degstalk_ns.trainer.DegstalkTrainerConfig\nmethod_name: degstalk\n"
    refuse_earlier_runs()
    with pytest.raises(SystemExit):
        yaml.load(text, Loader=yaml.Loader)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("[degstalk] error: config.yml:") and "train again" in line


# --- any config -------------------------------------------------------------------------------------------------------


@dataclass
class _Inner:
    rate: float = 0.5
    names: list[str] = field(default_factory=lambda: ["a"])


@dataclass
class _Outer:
    size: int
    inner: _Inner = field(default_factory=_Inner)


def _from_file(kind: type, **saved: object) -> object:
    """As yaml makes it: the attributes of the file, and no others."""
    config = object.__new__(kind)
    config.__dict__.update(saved)
    return config


def test_a_config_that_fits_is_left_alone() -> None:
    config = _Outer(3, _Inner(0.7))
    assert complete(config) == [] and config == _Outer(3, _Inner(0.7))


def test_options_at_any_depth_are_completed_and_named() -> None:
    config = _from_file(_Outer, size=3, old=1, inner=_from_file(_Inner, rate=0.7, older=2))
    assert complete(config) == [
        "config.yml: 1 option was not in it and got its default: inner.names",
        "config.yml: 2 options in it do not exist in this version and are ignored: old, inner.older",
    ]
    assert config == _Outer(3, _Inner(0.7, ["a"])) and set(vars(config)) == {"size", "inner"}
    second = _from_file(_Outer, size=3, inner=_from_file(_Inner, rate=0.7))
    complete(second)
    assert second.inner.names is not config.inner.names  # type: ignore[attr-defined]


def test_of_many_options_the_number_is_given() -> None:
    config = _from_file(_Outer, size=3, inner=_Inner(), **{f"o{number}": 0 for number in range(10)})
    (line,) = complete(config)
    assert line.startswith("config.yml: 10 options in it do not exist") and line.endswith("o7 and 2 more")


def test_an_option_without_a_default_must_be_there() -> None:
    with pytest.raises(
        UserError, match=r"config\.yml: has no size, which has no default; the run was made by an earli"
    ):
        complete(_from_file(_Outer, inner=_Inner()))
