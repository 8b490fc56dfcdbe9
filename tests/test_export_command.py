"""`degstalk export` on a tiny trained head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData

from degstalk_ns.avatar.splat_files import load_ply
from degstalk_ns.plugin.runs import load_run
from degstalk_ns.scripts import cli


def _run(*arguments: object) -> int:
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_export_writes_splats_that_others_open(trained_config: Path, tmp_path: Path) -> None:
    head = load_run(trained_config)
    counts = {name: len(head.model.avatar.region(name)) for name in ("face", "mouth")}
    places = {}
    for name, options in {
        "both": [], "face": ["--region", "face"], "mouth": ["--region", "mouth"], "moment": ["--time", "0.4"]
    }.items():  # fmt: skip
        output = tmp_path / f"{name}.ply"
        assert _run("export", "--load-config", trained_config, "--output", output, *options) == 0
        vertices = PlyData.read(str(output))["vertex"]
        assert {"x", "opacity", "scale_2", "rot_3", "f_dc_0", "f_rest_23"} <= {p.name for p in vertices.properties}
        places[name] = np.stack([vertices[axis] for axis in "xyz"], 1)
        assert np.isfinite(places[name]).all()
    assert len(places["face"]) == counts["face"] and len(places["mouth"]) == counts["mouth"]
    assert (places["both"] == np.concatenate([places["face"], places["mouth"]])).all()
    assert len(places["moment"]) == len(places["both"]) and not np.array_equal(places["moment"], places["both"])
    assert len(load_ply(tmp_path / "both.ply").means) == sum(counts.values())
    # Most viewers have y pointing down.
    own = head.model.avatar.region("face").means.detach().numpy()
    np.testing.assert_allclose(places["face"], own * [1, -1, -1], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "{folder}/head.obj"], "ends in .ply"),
        (["--output", "{folder}/there.ply"], "--overwrite"),
        (["--output", "{folder}/head.ply", "--time", "99"], "the recording lasts"),
        (["--output", "{folder}/there.ply/head.ply"], "cannot be written"),
    ],
)
def test_export_refuses_in_one_line(
    trained_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    (tmp_path / "there.ply").write_text("mine")
    filled = [option.format(folder=tmp_path) for option in options]
    assert _run("export", "--load-config", trained_config, *filled) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert (tmp_path / "there.ply").read_text() == "mine"


def test_a_run_of_an_earlier_version_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, output = tmp_path / "config.yml", tmp_path / "head.ply"
    config.write_text("!!python/object:degstalk_ns.trainer.DegstalkTrainerConfig\nmethod_name: degstalk\n")
    assert _run("export", "--load-config", config, "--output", output) == cli.FAILED
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not output.exists()
    assert str(config) in error and "earlier version of degstalk-ns" in error and "train again" in error
