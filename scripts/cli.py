"""The `degstalk` command: finds the subcommand, and turns errors into one line and an exit code.

Each subcommand is a module of ``commands/`` with a typed function ``command``; only the one that runs
is imported, so that `degstalk --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import tyro

from degstalk_ns import __version__
from degstalk_ns.errors import UserError

COMMANDS: Final[dict[str, str]] = {
    "process": "Make a dataset from a talking-head video.",
    "sample": "Make a synthetic talking-head dataset: this program generates the pictures and the voice.",
    "render": "Render a video of a trained avatar: speaking new audio, as recorded, or along a camera path.",
    "measure": "Measure how well the lips in a video follow the audio, and whether the eyes blink.",
    "phonemes": "Speak a text with known times of its phonemes, to measure how lips shut and open.",
    "experiment": "Train and measure the methods of one of the paper's tables, and write the table.",
    "import-checkpoint": "Make a run of an avatar that the official code of DEGSTalk or TalkingGaussian has trained.",
    "export": "Export a trained avatar as a Gaussian-splatting .ply file.",
    "fleet": "Process, train, evaluate and render many subjects, on one machine, a Ray cluster or SLURM.",
    "doctor": "Say what this machine and installation have, what is missing, and what that costs.",
    "bench": "Benchmark rendering, training and preprocessing, and compare with the limits of this hardware.",
}
"""Subcommand -> its line of help."""

FAILED: Final[int] = 1
"""Exit code after a mistake the user can mend."""
MISUSED: Final[int] = 2
"""Exit code after options that do not parse."""
INTERRUPTED: Final[int] = 130
"""Exit code after Ctrl-C, as shells have it (128 + SIGINT)."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; exits with a code other than 0 when something went wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, rest = (given[0], given[1:]) if given else ("--help", [])
    if name in ("-h", "--help"):
        print(_usage())
        return
    if name == "--version":
        print(__version__)
        return
    if name not in COMMANDS:
        print(f"degstalk: there is no command {name!r}; the commands are: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(MISUSED)
    # What libraries say about each other's future is nothing that a user of this command can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.")
    from degstalk_ns.files import named_write_errors  # here: --help answers without OpenCV

    try:
        module = importlib.import_module(f"degstalk_ns.scripts.commands.{name.replace('-', '_')}")
        with named_write_errors(Path.cwd()):  # of whatever a command writes, its reports too
            tyro.cli(module.command, prog=f"degstalk {name}", args=rest)
    except BrokenPipeError:
        # Whoever read our output has seen enough (`degstalk process --help | head`); nothing is left to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except UserError as error:
        print(f"degstalk: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt as interruption:
        outlook = str(interruption) or "the same command again goes on from here"
        print(f"degstalk: interrupted; {outlook}", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _usage() -> str:
    lines = [f"  {name:<18} {text}" for name, text in COMMANDS.items()]
    return "\n".join(["usage: degstalk COMMAND ...      (degstalk COMMAND --help lists its options)", "", *lines])
