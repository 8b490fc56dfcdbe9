"""Reads the `config.yml` of a run without running what it says.

nerfstudio writes these files with Python's own tags and reads them with a loader that calls whatever they name. Here
only config dataclasses, the classes that they are for, paths and enumerations are made; all else is refused. It must
not know what any option means.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.constructor import ConstructorError

from degstalk_ns.errors import UserError
from degstalk_ns.plugin.saved_config import EARLIER_CLASS, EARLIER_VERSION
from degstalk_ns.reading.access import refuse_unreadable

LARGEST_CONFIG: Final[int] = 1 << 20
"""A config has some ten thousand."""
_PATHS: Final[frozenset[str]] = frozenset(
    f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
) | {"pathlib._local.PosixPath", "pathlib._local.WindowsPath"}
_PACKAGES: Final[tuple[str, ...]] = (
    *("degstalk_ns.configs", "degstalk_ns.plugin", "degstalk_ns.avatar", "degstalk_ns.training"),
    *("degstalk_ns.dataparsers", "degstalk_ns.viewer", "degstalk_ns.animation"),
    *("nerfstudio.configs", "nerfstudio.engine", "nerfstudio.data", "nerfstudio.models", "nerfstudio.pipelines"),
    *("nerfstudio.utils", "nerfstudio.cameras", "torch.optim"),
)
"""Packages whose config dataclasses, and the classes that they are for, may be named."""
_READING: Final = (
    *(yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, RecursionError),
    *(NotImplementedError, OSError),
)
"""What a broken file may bring about in yaml's constructors."""


class ConfigLoader(yaml.SafeLoader):
    """yaml's safe loader, and the few kinds of Python objects that a config is made of."""


def read_config_file(path: Path, expected: str) -> Any:
    """What the file holds.

    Args:
        path: ``config.yml``.
        expected: what the user is told to give instead of a file that is no config.

    Raises:
        UserError: not there, not readable, of an earlier version, or with code, which is named and not run.
    """
    refuse_unreadable(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; {expected}")
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise UserError(f"{path}: {path.stat().st_size} bytes are too many for a config; {expected}")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=ConfigLoader)
        check_targets(content)
    except UserError as error:
        message = str(error)
        raise (error if message.startswith(str(path)) else UserError(f"{path}: {message}")) from None
    except ConstructorError as error:
        if "degstalk_ns." in str(error.problem):
            raise UserError(f"{path}: {error.problem}: {EARLIER_VERSION}") from None
        raise UserError(f"{path}: cannot be read as a run's config ({error.problem}); {expected}") from None
    except _READING as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot be read as a run's config ({reason}); {expected}") from None
    return content


def check_targets(content: Any) -> None:
    """Refuse a config whose class to be set up is not the one that its kind has.

    Raises:
        UserError: as said.
    """
    if not dataclasses.is_dataclass(content) or isinstance(content, type):
        values = (
            content.values() if isinstance(content, dict) else content if isinstance(content, (list, tuple)) else ()
        )
        for value in values:
            check_targets(value)
        return
    target = next((field for field in dataclasses.fields(content) if field.name == "_target"), None)
    if target is not None and "_target" in vars(content):
        factory = target.default_factory
        usual = target.default if factory is dataclasses.MISSING else factory()
        if content._target is not usual:  # type: ignore[attr-defined]
            name = getattr(content._target, "__qualname__", content._target)  # type: ignore[attr-defined]
            raise UserError(f"{type(content).__name__} is to set up {name}, which is not run")
    for value in vars(content).values():
        check_targets(value)


def _refused(name: str) -> UserError:
    return UserError(f"it names {name}, which is no part of a config, and is not run")


def _found(name: str, node: yaml.Node) -> Any:
    """The attribute that ``name`` names, of one of the packages."""
    module, _, attribute = name.rpartition(".")
    if not any(module == package or module.startswith(f"{package}.") for package in _PACKAGES):
        root, _, inside = module.partition(".")
        if root in ("degstalk_ns", "nerfstudio") and inside and "." not in inside and not find_spec(module):
            raise ConstructorError(None, None, f"there is no {name} here", node.start_mark)
        raise _refused(name)
    try:
        value: Any = importlib.import_module(module)
        value = getattr(value, attribute)
    except (ImportError, AttributeError):
        raise ConstructorError(None, None, f"there is no {name} here", node.start_mark) from None
    return value


def _dataclass(loader: ConfigLoader, name: str, node: yaml.Node) -> Iterator[Any]:
    if name == EARLIER_CLASS:
        raise UserError(EARLIER_VERSION)
    kind = _found(name, node)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)) or not isinstance(node, yaml.MappingNode):
        raise _refused(name)
    made = kind.__new__(kind)
    yield made
    state = {str(key): value for key, value in loader.construct_mapping(node, deep=True).items()}
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
    else:
        vars(made).update(state)


def _class(loader: ConfigLoader, name: str, node: yaml.Node) -> type:
    value = _found(name, node)
    if not isinstance(value, type):
        raise _refused(name)
    return value


def _applied(loader: ConfigLoader, name: str, node: yaml.Node) -> Any:
    """A path, or the member of an enumeration."""
    arguments = loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else None
    if arguments is None or any(dataclasses.is_dataclass(argument) for argument in arguments):
        raise _refused(name)
    if name in _PATHS:
        return Path(*map(str, arguments))
    if name == _BY_NAME:
        kind, member = arguments if len(arguments) == 2 else (None, None)
        members = kind.__members__ if isinstance(kind, type) and issubclass(kind, Enum) else {}
        if member not in members:
            raise _refused(name)
        return members[str(member)]
    kind = _found(name, node)
    if not (isinstance(kind, type) and issubclass(kind, Enum)) or len(arguments) != 1:
        raise _refused(name)
    return kind(arguments[0])


_BY_NAME: Final[str] = "builtins.getattr"
"""What Python 3.11.0 to 3.11.3 (Debian 12 has one of them) writes for the member of an enumeration: its class, which is
looked for as all classes are, and its name."""


def _tuple(loader: ConfigLoader, node: yaml.Node) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise _refused("a tuple of something else")
    return tuple(loader.construct_sequence(node, deep=True))


def _any_other(loader: ConfigLoader, name: str, node: yaml.Node) -> Any:
    raise _refused(name or "a Python object")


_TAG: Final[str] = "tag:yaml.org,2002:python/"
ConfigLoader.add_multi_constructor(f"{_TAG}object:", _dataclass)
ConfigLoader.add_multi_constructor(f"{_TAG}name:", _class)
ConfigLoader.add_multi_constructor(f"{_TAG}object/apply:", _applied)
ConfigLoader.add_constructor(f"{_TAG}tuple", _tuple)
ConfigLoader.add_multi_constructor(_TAG, _any_other)
