"""Reports of the benchmarks: shown whole at any width, saved whole or not at all, plotted."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import cv2
import pytest
from rich.console import Console

from degstalk_ns.console.report import Curve, Report, Table, check_writable, plot_times, plot_values
from degstalk_ns.errors import UserError


def _report() -> Report:
    table = Table("title", ("", "ms", "10% .. 90%"))
    table.add("first row", "1.0", "0.5 .. 2.5")
    table.add("second [row]", "20.0", "")
    return Report("raster", [table], ["a note"], {"count": 3})


def _shown(width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    _report().show(console)
    return console.export_text()


def test_a_table_has_a_line_for_each_row() -> None:
    lines = [line.split() for line in _shown(60).splitlines()]
    assert ["first", "row", "1.0", "0.5", "..", "2.5"] in lines and ["second", "[row]", "20.0"] in lines
    assert ["title"] in lines and ["a", "note"] in lines


def test_a_table_that_is_too_wide_becomes_lists_and_loses_nothing() -> None:
    lines = [line.rstrip() for line in _shown(30).splitlines()]
    first = lines.index("  first row")
    assert lines[first : first + 3] == ["  first row", "    ms: 1.0", "    10% .. 90%: 0.5 .. 2.5"]
    second = lines.index("  second [row]")
    assert lines[second + 1 :] == ["    ms: 20.0", "a note"]  # an empty cell is left out


def test_a_row_has_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="4 cells for 3 columns"):
        _report().tables[0].add("one", "too", "many", "cells")


def test_the_json_names_the_benchmark_and_replaces_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    unsaved = _report()
    unsaved.data["what"] = object()
    with pytest.raises(TypeError):
        unsaved.save(path)
    assert path.read_text() == "old"
    _report().save(path)
    assert json.loads(path.read_text()) == {"benchmark": "raster", "count": 3}
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_cannot_be_written_is_found_out_first(tmp_path: Path) -> None:
    check_writable(tmp_path / "r.json")
    check_writable(None)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        check_writable(tmp_path / "nowhere" / "r.json")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may write anywhere")
def test_a_folder_without_permission_is_found_out_first(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="cannot be written to"):
            check_writable(tmp_path / "r.json")
    finally:
        tmp_path.chmod(0o700)


def test_a_plot_has_a_panel_for_each_entry_and_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_text("old")
    curve = Curve("cpu", [100, 5000], [1.0, 2.0], [0.9, 1.8], [1.1, 2.5])
    with pytest.raises(ValueError):
        plot_times(path, "title", {"pixels": [Curve("cpu", [1, 2], [1.0], [1.0], [1.0])]})
    assert path.read_text() == "old"
    widths = []
    for panels in ({"pixels": [curve]}, {"pixels": [curve], "Gaussians": [curve, curve]}):
        plot_times(path, "title", panels)
        widths.append(cv2.imread(str(path)).shape[1])
    assert widths[1] == 2 * widths[0]
    assert list(tmp_path.iterdir()) == [path]


def test_curves_and_level_lines_share_their_x(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    curves = [Curve("whisper", [40, 400], [0.4, float("nan")]), Curve("still", [40, 400], [0.1, 0.1], level=True)]
    plot_values(path, "title", "milliseconds", {"r": curves, "LMD": curves[:1]})
    assert cv2.imread(str(path)).shape[1] > 1000 and list(tmp_path.iterdir()) == [path]
