"""The help of every `degstalk` command says of each option what it means, in whole sentences without markup."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator

import pytest

from degstalk_ns.scripts import cli

BENCHMARKS = ("raster", "render", "train", "process")
COMMANDS = [[name] for name in cli.COMMANDS if name not in ("bench", "fleet")]
COMMANDS += [["bench", name] for name in BENCHMARKS] + [["fleet", name] for name in ("run", "step")]
MARKUP = re.compile(r":[a-z]+:`|``")
"""Of docstrings, which no terminal renders."""
GIVEN = re.compile(r" \((default: .*|required|optional.*|repeatable.*)\)$")
"""What the command line's library appends to a help text."""


def _boxes(text: str) -> Iterator[list[str]]:
    """The lines of each box of options."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("│"):
            lines.append(line[1:].rstrip("│").rstrip())
        elif line.startswith("╭"):
            lines = []
        elif line.startswith("╰"):
            yield lines


def _described(text: str) -> tuple[list[str], dict[str, str]]:
    """Descriptions of the groups, and the help text of each option and argument."""
    groups: list[str] = []
    texts: dict[str, str] = {}
    for lines in _boxes(text):
        rule = next((index for index, line in enumerate(lines) if set(line.strip()) == {"─"}), None)
        if rule is not None:
            groups.append(" ".join(line.strip() for line in lines[:rule]))
        name = ""
        for line in lines if rule is None else lines[rule + 1 :]:
            if line.startswith("  "):
                texts[name] = f"{texts[name]} {line.strip()}".strip()
                continue
            head, *rest = re.split(r" {2,}", line.strip(), maxsplit=1)
            name = head.split(",")[0].split(" ")[0]
            texts[name] = rest[0] if rest else ""
    return groups, texts


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_whole_sentences_without_markup(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="utf-8", write_through=True))
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    text = printed.getvalue().decode()
    assert not MARKUP.search(text)
    groups, texts = _described(text)
    assert texts.pop("-h") == "show this help message and exit"
    assert texts
    sentences = {**{group: group for group in groups}, **{name: GIVEN.sub("", said) for name, said in texts.items()}}
    assert {name: said for name, said in sentences.items() if not re.match(r"[A-Z].*\.$", said)} == {}


def test_every_command_has_one_whole_line_in_the_list() -> None:
    assert all(re.match(r"[A-Z].*\.$", line) and len(line) < 100 for line in cli.COMMANDS.values())
