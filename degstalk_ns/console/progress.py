"""How a long job shows that it moves: one bar a stage with frames/s, and no scribbling of native libraries on it.

It must not know what the stages do.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from degstalk_ns.errors import UserError

Advance = Callable[[int], None]
"""Called with the number of frames that were done since the last call."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        # Over the whole stage; rich's own figure is that of the last half minute.
        if not task.elapsed or task.total == 1:
            return Text("")
        return Text(f"{task.completed / (task.finished_time or task.elapsed):.1f} frames/s")


class Progress:
    """One bar a stage on ``console``; None shows nothing. Without a terminal: a line when a stage ends."""

    def __init__(self, console: Console | None) -> None:
        self._console = console

    def say(self, line: str) -> None:
        """One line of text between the bars."""
        if self._console is not None:
            self._console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """Shows a stage of ``total`` frames while the block runs; gives the callback that moves it."""
        if self._console is None:
            yield lambda _: None
            return
        columns: list[Any] = [TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), _Rate()]
        with RichProgress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=self._console) as bars:
            task = bars.add_task(title, total=total)
            yield lambda count: bars.advance(task, count)


@contextmanager
def quiet_native_messages() -> Iterator[None]:
    """Hold back what native code writes to the error stream (MediaPipe logs several lines for each task it makes).

    They are shown after all if the block fails for a reason that is not the user's to mend.
    """
    try:
        number = sys.__stderr__.fileno() if sys.__stderr__ is not None else -1
        saved = os.dup(number)
    except (OSError, ValueError):
        yield  # no error stream to hold back
        return
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        os.dup2(held.fileno(), number)
        try:
            yield
        except (UserError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, number)
            os.close(saved)
