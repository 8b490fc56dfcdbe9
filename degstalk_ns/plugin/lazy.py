"""Named results that are computed when they are first asked for. It must not know what they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from typing import Any


class Lazy(MutableMapping[str, Any]):
    """A mapping of results that knows its names at once and computes each value when it is first read.

    Args:
        ways: name -> function of this mapping that computes the value. It is handed the mapping and need not hold it: a
            frame that nobody reads any more is gone at once, without waiting for the garbage collector.
        hidden: names that can be read but are not listed: what several others have in common.
    """

    def __init__(self, ways: Mapping[str, Callable[[Lazy], Any]], hidden: Collection[str] = ()) -> None:
        self._ways = dict(ways)
        self._hidden = frozenset(hidden)
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._ways[name](self)
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._ways[name] = lambda _: value
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        del self._ways[name]
        self._values.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._ways and name not in self._hidden

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._ways if name not in self._hidden)

    def __len__(self) -> int:
        return sum(1 for _ in self)
