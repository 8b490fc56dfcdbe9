"""`ns-train degstalk --help` says of every option of ours what it means."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

NERFSTUDIOS_OWN = re.compile(r"\.scheduler$")
"""A null entry of nerfstudio's `optimizers` dictionary, which has no place for a description."""


def test_every_option_is_described() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ns-train"), "degstalk", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "79", "NO_COLOR": "1"},
    )
    lines = [line.strip("│╭╮╰╯─ ") for line in done.stdout.splitlines()]
    options = {
        line.split()[0].removeprefix("--"): following
        for line, following in itertools.pairwise(lines)
        if line.startswith(("--pipeline.", "--optimizers."))
    }
    assert len(options) > 150
    bare = [
        name for name, text in options.items() if not re.match(r"[A-Z0-9]", text) and not NERFSTUDIOS_OWN.search(name)
    ]
    assert bare == []
    assert "pipeline.model.eval-num-rays-per-chunk" not in options
