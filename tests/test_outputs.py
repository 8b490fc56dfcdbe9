from __future__ import annotations

import weakref

import pytest

from degstalk_ns.plugin.outputs import Lazy


def test_values_are_computed_once_and_only_when_read() -> None:
    calls: list[str] = []

    def way(name: str, value: int) -> int:
        calls.append(name)
        return value

    results = Lazy(
        {"a": lambda _: way("a", 1), "b": lambda all_: way("b", all_["shared"]), "shared": lambda _: way("s", 7)},
        hidden=("shared",),
    )
    assert list(results) == ["a", "b"] and len(results) == 2 and "b" in results and "shared" not in results
    assert not calls
    assert results["b"] == 7 and results["b"] == 7
    assert calls == ["s", "b"]
    assert dict(results) == {"a": 1, "b": 7}


def test_values_can_be_added_and_replaced_and_unknown_names_are_key_errors() -> None:
    results = Lazy({"a": lambda _: 1})
    results["c"] = 3
    results["a"] = 2
    assert dict(results) == {"a": 2, "c": 3}
    del results["a"]
    with pytest.raises(KeyError):
        results["a"]
    assert results.get("a") is None


def test_results_go_without_the_garbage_collector() -> None:
    class Value:
        pass

    results = Lazy({"a": lambda all_: all_["b"], "b": lambda _: Value()})
    value = weakref.ref(results["a"])
    assert value() is not None
    del results
    assert value() is None
