"""A run's config.yml is read without running what it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from degstalk_ns.configs.methods import degstalk, degstalk_fast
from degstalk_ns.configs.variants import talking_gaussian
from degstalk_ns.errors import UserError, errors_caught_outside
from degstalk_ns.plugin.config_file import LARGEST_CONFIG, read_config_file

SIGN = "degstalk-config-was-run"


def _read(text: str, tmp_path: Path) -> object:
    path = tmp_path / "config.yml"
    path.write_text(text)
    with errors_caught_outside():
        return read_config_file(path, "expected a config")


@pytest.mark.parametrize("method", [degstalk, degstalk_fast, talking_gaussian])
def test_configs_are_read_as_yaml_reads_them(method, tmp_path: Path, trained_config: Path) -> None:  # type: ignore[no-untyped-def]
    text = yaml.dump(method.config)
    assert _read(text, tmp_path) == yaml.load(text, Loader=yaml.Loader) == method.config
    saved = trained_config.read_text()
    assert _read(saved, tmp_path) == yaml.load(saved, Loader=yaml.Loader)


ETA = "!!python/object/apply:nerfstudio.utils.writer.EventName [ETA (time)]"
EVENTS = "!!python/name:nerfstudio.utils.writer.EventName ''"
CODE = {
    "a call": f"!!python/object/apply:os.system ['touch {SIGN}']",
    "another call": f"!!python/object/apply:subprocess.check_call [['touch', '{SIGN}']]",
    "a new object": f"!!python/object/new:os.system ['touch {SIGN}']",
    "a module": "!!python/module:antigravity",
    "a function": "!!python/name:os.system",
    "builtins": f'!!python/object/apply:builtins.eval [\'open("{SIGN}", "w")\']',
    "a function of ours": "!!python/name:degstalk_ns.plugin.runs.load_run",
    "a call of ours": "!!python/object/apply:degstalk_ns.plugin.runs.load_run ['x']",
    "a class that is no config": "!!python/object:nerfstudio.utils.writer.LocalWriter {}",
    "a program of nerfstudio": "!!python/name:nerfstudio.scripts.train.main",
    "a path of objects": "!!python/object/apply:pathlib.PosixPath [!!python/name:os.system '']",
    "bytes": "!!python/bytes 'aGVsbG8='",
    "an attribute": "!!python/object/apply:builtins.getattr [!!python/name:os.system '', __globals__]",
    "an attribute of a class": f"!!python/object/apply:builtins.getattr [{EVENTS}, __init__]",
    "an attribute of a member": f"!!python/object/apply:builtins.getattr [{ETA}, name]",
    "one of three": f"!!python/object/apply:builtins.getattr [{EVENTS}, nowhere, ETA]",
}


@pytest.mark.parametrize("kind", CODE)
def test_code_is_named_and_not_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = yaml.dump(degstalk_fast.config)
    for text in (
        CODE[kind],
        f"a: {CODE[kind]}",
        whole.replace("method_name: degstalk-fast", f"method_name: {CODE[kind]}"),
    ):
        with pytest.raises(UserError, match=r"and is not run|cannot be read") as refused:
            _read(text, tmp_path)
        assert str(refused.value).startswith(str(tmp_path / "config.yml")) and "\n" not in str(refused.value)
    assert os.listdir(tmp_path) == ["config.yml"]


def test_a_config_of_debian_12_is_read(tmp_path: Path) -> None:
    """Its Python, 3.11.2, writes a member of an enumeration by its name."""
    text = yaml.dump(degstalk_fast.config)
    member = "!!python/object/apply:nerfstudio.utils.writer.EventName\n      - ETA (time)\n"
    assert member in text
    by_name = f"!!python/object/apply:builtins.getattr\n      - {EVENTS}\n      - ETA\n"
    assert _read(text.replace(member, by_name), tmp_path) == degstalk_fast.config


def test_a_config_may_not_set_up_another_class(tmp_path: Path) -> None:
    text = yaml.dump(degstalk_fast.config)
    ours = "_target: &"
    assert "degstalk_ns.plugin.model.DegstalkModel" in text and ours
    other = text.replace("!!python/name:degstalk_ns.plugin.model.DegstalkModel", "!!python/name:torch.optim.adam.Adam")
    with pytest.raises(UserError, match="DegstalkModelConfig is to set up Adam, which is not run"):
        _read(other, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        *("2026-99-99", "!!int 'x'", "!!float 'x'", "!!timestamp 'x'", "!!set 3", "!!omap 4"),
        *("a: *b", "[" * 5_000, "{? [a] : b}", "\x00", "!!python/tuple 3", "!!merge 3", "<<: [1, 2]"),
        "!!python/object:nerfstudio.engine.trainer.X {}",
        "!!python/object/apply:nerfstudio.utils.writer.EventName ['no such event']",
        *("!!python/object:degstalk_ns.plugin.model.DegstalkModelConfig [1]", "!!python/object:nowhere {}"),
        *("!!python/object:degstalk_ns.no_such_module.X {}", "!!python/object/apply:pathlib.PosixPath 3"),
    ],
)
def test_what_yaml_cannot_make_is_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        _read(text, tmp_path)
    assert "config.yml" in str(refused.value) and "\n" not in str(refused.value)


def test_floods_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too many for a config"):
        _read("a: " + "x" * LARGEST_CONFIG, tmp_path)
    with pytest.raises(UserError, match="no such file; expected a config"):
        read_config_file(tmp_path / "nowhere.yml", "expected a config")
    (tmp_path / "config.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_config_file(tmp_path / "config.yml", "expected a config")
