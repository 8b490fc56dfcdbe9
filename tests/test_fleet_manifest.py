"""The manifest of a fleet: what is wrong in it is said at once, all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from degstalk_ns.errors import UserError
from degstalk_ns.fleet.manifest import Manifest, missing_inputs, read_manifest

GOOD: dict[str, Any] = {
    "output": "results",
    "subjects": [{"name": "anna", "video": "anna.mp4"}, {"name": "drawn-1", "drawn": {"seed": 3, "size": 96}}],
    "training": {"methods": ["degstalk-fast"], "seeds": [0, 1], "options": ["--max-num-iterations", "40"]},
    "sounds": [{"name": "hello", "path": "s3://sounds/hello.wav"}],
}


def _written(folder: Path, content: Any) -> Path:
    path = folder / "fleet.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_relative_paths_begin_at_the_manifest(tmp_path: Path) -> None:
    manifest = read_manifest(_written(tmp_path, GOOD))
    assert manifest.output == str(tmp_path / "results") and manifest.subjects[0].video == str(tmp_path / "anna.mp4")
    assert manifest.sounds[0].path == "s3://sounds/hello.wav"
    assert missing_inputs(manifest)[0] == f"{tmp_path / 'anna.mp4'}: no such file or folder"


def test_every_fault_is_told_in_one_line(tmp_path: Path) -> None:
    wrong = json.loads(json.dumps(GOOD))
    wrong["subjects"][0] |= {"dataset": "d", "age": 4}
    wrong["subjects"][1]["drawn"]["size"] = 97
    wrong["retries"], wrong["sead"] = -1, 3
    wrong["subjects"][1]["name"] = wrong["subjects"][0]["name"]
    with pytest.raises(UserError) as error:
        read_manifest(_written(tmp_path, wrong))
    said = str(error.value)
    assert "\n" not in said and str(tmp_path / "fleet.yml") in said and "fleet schema" in said
    for part in (
        "subjects.0.age: unknown key",
        "subjects.1.drawn.size",
        "retries",
        "sead: unknown key",
        "stands twice",
    ):
        assert said.count(part) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"subjects": [{"name": "a", "dataset": "x"}] * 2}, "subjects: a stands twice"),
        ({"subjects": [{"name": "a"}]}, "expected one of video, dataset and drawn, got none"),
        ({"subjects": [{"name": "a", "dataset": "x", "process": ["--features"]}]}, "a dataset is not processed"),
        ({"subjects": [{"name": "../a", "dataset": "x"}]}, "subjects.0.name"),
        ({"subjects": []}, "subjects"),
        ({"needs": {"train": {"cpus": 0}}}, "needs.train.cpus"),
        ({"training": {"seeds": [1, 1]}}, "training.seeds: 1 stands twice"),
        ({"training": None, "subjects": [{"name": "a", "dataset": "x"}]}, "nothing to do"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        read_manifest(_written(tmp_path, GOOD | change))
    assert words in str(error.value)


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"", b"- 1", b"!!python/object/apply:os.system [x]"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fleet.yml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"fleet\.yml"):
        read_manifest(path)


def test_the_schema_accepts_what_is_read_and_refuses_what_is_not() -> None:
    schema = Manifest.model_json_schema()
    jsonschema.validate(GOOD, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(GOOD | {"sead": 3}, schema)
