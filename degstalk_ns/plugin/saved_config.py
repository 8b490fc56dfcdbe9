"""Adapts a saved `config.yml` to the options of this version: missing ones get defaults, unknown ones are dropped, and
runs of an earlier version are rejected.

It must not know what any option means.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml
from nerfstudio.utils.rich_utils import CONSOLE

from degstalk_ns.errors import UserError, one_line_errors

EARLIER_CLASS = "degstalk_ns.trainer.DegstalkTrainerConfig"
"""What the config of a run was an instance of before the modules moved into folders (0.1)."""
EARLIER_VERSION = (
    "the run was made by an earlier version of degstalk-ns, which this version cannot read: train again with "
    "ns-train, or install that version"
)
_MOST_NAMES = 8
"""Options that one line names; of more it gives the number."""


def complete(config: Any) -> list[str]:
    """Bring a config from a file up to the classes of today, in place and at any depth of dataclasses.

    Options that were not saved get their defaults, and options that no longer exist are removed.

    Args:
        config: a dataclass whose attributes were set from a file, whatever names they have there.

    Returns:
        What was changed, one line each; empty where the file fits.
    """
    missing, unknown = _differences(config, "")
    lines = []
    if missing:
        what = "1 option was not in it and got its default"
        if len(missing) > 1:
            what = f"{len(missing)} options were not in it and got their defaults"
        lines.append(f"config.yml: {what}: {_listed(missing)}")
    if unknown:
        what = "1 option in it does not exist in this version and is ignored"
        if len(unknown) > 1:
            what = f"{len(unknown)} options in it do not exist in this version and are ignored"
        lines.append(f"config.yml: {what}: {_listed(unknown)}")
    return lines


@one_line_errors()
def say_completed(config: Any) -> None:
    """:func:`complete` a config, and print on nerfstudio's console what was changed."""
    for line in complete(config):
        CONSOLE.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)


def refuse_earlier_runs() -> None:
    """Let every program that reads a run's `config.yml` end in one line where an earlier version wrote it.

    nerfstudio's programs hand the file to yaml, which would end in a traceback: the class that the file names is gone.
    This tells yaml what to do with the name of that one class; nothing else that yaml reads is affected.
    """
    yaml.Loader.add_constructor(f"tag:yaml.org,2002:python/object:{EARLIER_CLASS}", _refuse)


@one_line_errors()
def _refuse(loader: yaml.Loader, node: yaml.Node) -> None:
    raise UserError(f"config.yml: {EARLIER_VERSION}")


def _differences(config: Any, prefix: str) -> tuple[list[str], list[str]]:
    """Names of the options that were missing (now set) and unknown (now gone)."""
    fields = {item.name: item for item in dataclasses.fields(config)}
    unknown = [name for name in vars(config) if name not in fields]
    for name in unknown:
        delattr(config, name)
    missing, unknown = [], [prefix + name for name in unknown]
    for name, item in fields.items():
        if name not in vars(config):
            if item.default_factory is not dataclasses.MISSING:
                setattr(config, name, item.default_factory())
            elif item.default is not dataclasses.MISSING:
                setattr(config, name, item.default)
            else:
                raise UserError(f"config.yml: has no {prefix}{name}, which has no default; {EARLIER_VERSION}")
            missing.append(prefix + name)
        value = getattr(config, name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            more_missing, more_unknown = _differences(value, f"{prefix}{name}.")
            missing, unknown = missing + more_missing, unknown + more_unknown
    return missing, unknown


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
