"""What a benchmark found: a table to read, a JSON file to compare, a plot to look at.

It must not know what was timed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from degstalk_ns.errors import UserError
from degstalk_ns.files import write_bytes, write_whole

_UNLIMITED_WIDTH = 10_000
"""Columns that no table has."""


def _broken(heading: str) -> str:
    """A heading with its words under each other, but for ranges: columns are as wide as their cells."""
    return heading if ".." in heading else heading.replace(" ", "\n")


@dataclass
class Table:
    """Rows of text under headings; the first column is the name of what was measured."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(cells)


@dataclass
class Report:
    """Everything one run found.

    Attributes:
        name: of the benchmark. notes: lines below the tables. data: for the JSON file.
    """

    name: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def show(self, console: Console) -> None:
        """Prints everything. A table that is wider than the console is printed as lists, so that nothing is cut off."""
        for table in self.tables:
            console.print(f"\n{table.title}", markup=False, soft_wrap=True, style="bold")
            drawn = RichTable(box=SIMPLE, padding=(0, 1), collapse_padding=True)
            for index, column in enumerate(table.columns):
                drawn.add_column(_broken(column), justify="right" if index else "left", no_wrap=True)
            for row in table.rows:
                drawn.add_row(*(Text(cell) for cell in row))  # text, not rich's markup
            if Measurement.get(console, console.options.update(width=_UNLIMITED_WIDTH), drawn).maximum <= console.width:
                console.print(drawn)
                continue
            for row in table.rows:
                console.print(f"  {row[0]}", markup=False)
                for column, cell in list(zip(table.columns, row, strict=True))[1:]:
                    if cell:
                        console.print(f"    {column}: {cell}", markup=False)
        for note in self.notes:
            console.print(note, markup=False, soft_wrap=True)

    def save(self, path: Path) -> None:
        """Writes the JSON file, whole or not at all."""
        write_bytes(path, (json.dumps({"benchmark": self.name, **self.data}, indent=1) + "\n").encode())


def check_writable(path: Path | None) -> None:
    """Finds out before anything is measured whether ``path`` can be written.

    Raises:
        UserError: its folder is not there, or it is a folder itself.
    """
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: the folder {path.parent} cannot be written to")


@dataclass(frozen=True)
class Curve:
    """One line of a plot: values over x, where known with 10th and 90th percentile; ``level`` for a dashed line that
    the others are compared with."""

    label: str
    x: Sequence[float]
    median: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    level: bool = False


def plot_times(path: Path, title: str, panels: dict[str, list[Curve]]) -> None:
    """Draws one panel per entry (its key is the label of x), milliseconds over x, both logarithmic; whole or not at
    all."""
    with _figure(path, title, panels) as axes:
        for axis, (label, curves) in zip(axes, panels.items(), strict=True):
            _times(axis, label, curves)


def plot_values(path: Path, title: str, x: str, panels: dict[str, list[Curve]]) -> None:
    """Draws one panel per entry (its key is the label of y), all over the same ``x``; whole or not at all."""
    with _figure(path, title, panels) as axes:
        for axis, (label, curves) in zip(axes, panels.items(), strict=True):
            for curve in curves:
                style = {"linestyle": "--", "linewidth": 1.0} if curve.level else {"marker": "o", "markersize": 4}
                axis.plot(curve.x, curve.median, label=curve.label, **style)
            axis.set(xlabel=x, ylabel=label)
            axis.grid(True, linewidth=0.4, alpha=0.5)
        axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))  # one for all panels


def _times(axis: Any, label: str, curves: Sequence[Curve]) -> None:
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    for curve in curves:
        (line,) = axis.plot(curve.x, curve.median, marker="o", markersize=4, label=curve.label)
        axis.fill_between(curve.x, curve.low, curve.high, alpha=0.2, color=line.get_color(), linewidth=0)
    axis.set(xscale="log", yscale="log", xlabel=label, ylabel="milliseconds (median, 10th to 90th percentile)")
    ticks = sorted({x for curve in curves for x in curve.x})
    axis.set_xticks(ticks, [f"{tick / 1000:g}k" if tick >= 5000 else f"{tick:g}" for tick in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_minor_formatter(ScalarFormatter())
    axis.tick_params(axis="y", which="both", labelsize=8)
    axis.grid(True, which="both", linewidth=0.4, alpha=0.5)
    axis.legend(frameon=False)


@contextmanager
def _figure(path: Path, title: str, panels: dict[str, list[Curve]]) -> Iterator[list[Any]]:
    """One axis a panel, beside each other; the picture is written at the end."""
    # Imported here: it takes half a second, and few runs plot.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.2 * len(panels), 4.2), squeeze=False)
    yield list(axes[0])
    figure.suptitle(title)
    figure.tight_layout()
    write_whole(path, lambda part: figure.savefig(part, dpi=130, format="png"))
    pyplot.close(figure)
