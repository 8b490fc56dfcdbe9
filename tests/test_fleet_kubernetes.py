"""A manifest as a Kubernetes job, held against Kubernetes' own schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from degstalk_ns.errors import UserError
from degstalk_ns.fleet.kubernetes import Volume, kubernetes_yaml
from degstalk_ns.fleet.manifest import Manifest, manifest_of

SUBJECTS = [{"name": name, "video": f"/data/{name}.mp4"} for name in ("a", "b", "c")]


def _manifest(**more: Any) -> Manifest:
    return manifest_of({"output": "/data/results", "subjects": SUBJECTS} | more, "m")


@pytest.mark.parametrize("gpus", [0, 1])
def test_the_job_is_what_kubernetes_expects(gpus: int) -> None:
    manifest = _manifest(needs={"train": {"cpus": 4, "gpus": gpus, "memory_gb": 8}}, retries=3)
    config, job = yaml.safe_load_all(kubernetes_yaml(manifest, "heads", "degstalk:cpu", Volume("claim", Path("/data"))))
    for part in (config, job):
        kubernetes_validate.validate(part, "1.29", strict=True)
    spec = job["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimitPerIndex"]) == (3, 3, 3)
    (container,) = spec["template"]["spec"]["containers"]
    asked = container["resources"]["limits"]
    assert asked["cpu"] == "4" and asked["memory"] == "8000M" and asked.get("nvidia.com/gpu") == ("1" if gpus else None)
    assert manifest_of(yaml.safe_load(config["data"]["manifest.json"]), "m") == manifest
    with pytest.raises(Exception, match="complicated"):
        kubernetes_validate.validate(
            job | {"spec": spec | {"completionMode": "complicated", "x": 1}}, "1.29", strict=True
        )


@pytest.mark.parametrize(
    ("more", "volume", "words"),
    [
        ({"output": "/elsewhere/results"}, Volume("claim", Path("/data")), "lies not below /data"),
        ({}, None, "no --claim is given"),
        (
            {"subjects": [{"name": f"s{i}", "dataset": "s3://b/" + "x" * 300} for i in range(3000)]},
            Volume("claim", Path("/data")),
            "split it",
        ),
    ],
)
def test_what_no_pod_would_see_is_refused(more: dict[str, Any], volume: Volume | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        kubernetes_yaml(_manifest(**more), "heads", "degstalk:cpu", volume)
