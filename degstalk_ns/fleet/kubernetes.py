"""A manifest as a Kubernetes job: one pod for each subject, which does its steps one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from degstalk_ns.errors import UserError
from degstalk_ns.fleet.manifest import Manifest, Need

REFUSED: Final[int] = 3
"""Exit code of `degstalk fleet subject` where the input is to blame: its pod is not started again."""
LARGEST_CONFIG_MAP: Final[int] = 1_000_000
"""Bytes that a ConfigMap may hold."""
_FOLDER: Final[str] = "/fleet"


@dataclass(frozen=True)
class Volume:
    """A persistent volume claim, and where pods see it."""

    claim: str
    mount: Path


def kubernetes_yaml(
    manifest: Manifest, name: str, image: str, volume: Volume | None = None, parallelism: int = 50
) -> str:
    """A ConfigMap with the manifest and an Indexed Job (Kubernetes 1.29 and later), as YAML.

    Raises:
        UserError: a path that no pod would see, or a manifest too large for a ConfigMap.
    """
    for address in (manifest.output, *manifest.inputs()):
        inside = volume is not None and PurePosixPath(volume.mount) in PurePosixPath(address).parents
        if "://" not in address and not inside:
            where = f"lies not below {volume.mount}" if volume is not None else "is a path, and no --claim is given"
            raise UserError(f"{address}: {where}, so that no pod would see it")
    text = manifest.model_dump_json(indent=1)
    if len(text) > LARGEST_CONFIG_MAP:
        raise UserError(f"the manifest has {len(text):,} bytes, a ConfigMap {LARGEST_CONFIG_MAP:,}; split it")
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"manifest.json": text},
    }
    return yaml.safe_dump_all([config, _job(manifest, name, image, volume, parallelism)], sort_keys=False)


def _job(manifest: Manifest, name: str, image: str, volume: Volume | None, parallelism: int) -> dict[str, Any]:
    needs = [manifest.needs.process, manifest.needs.train, manifest.needs.evaluate, manifest.needs.render]
    most = {what: max(getattr(need, what) for need in needs) for what in Need.model_fields}
    asked: dict[str, str] = {"cpu": f"{most['cpus']:g}", "memory": f"{math.ceil(most['memory_gb'] * 1000)}M"}
    if most["gpus"]:
        asked["nvidia.com/gpu"] = str(math.ceil(most["gpus"]))
    volumes: list[dict[str, Any]] = [{"name": "manifest", "configMap": {"name": name}}]
    mounts: list[dict[str, Any]] = [{"name": "manifest", "mountPath": _FOLDER}]
    if volume is not None:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": volume.claim}})
        mounts.append({"name": "data", "mountPath": str(volume.mount)})
    container = {
        "name": "fleet",
        "image": image,
        "command": [
            *("degstalk", "fleet", "subject", f"{_FOLDER}/manifest.json"),
            *("--index", "$(JOB_COMPLETION_INDEX)"),
        ],
        "resources": {"requests": asked, "limits": asked},
        "volumeMounts": mounts,
    }
    rules = [
        {
            "action": "FailIndex",
            "onExitCodes": {"containerName": "fleet", "operator": "In", "values": [REFUSED]},
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completionMode": "Indexed",
            "completions": len(manifest.subjects),
            "parallelism": min(parallelism, len(manifest.subjects)),
            "backoffLimitPerIndex": manifest.retries,
            "maxFailedIndexes": len(manifest.subjects),
            "podFailurePolicy": {"rules": rules},
            "template": {"spec": {"restartPolicy": "Never", "containers": [container], "volumes": volumes}},
        },
    }
