"""`degstalk fleet` with real processes: on this machine, on a Ray cluster of three nodes, and by submitit's processes.

Each subject is a drawn person of one second; what is trained of it is tried in tests/test_fleet_unit.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from degstalk_ns.fleet.engines.engine import Engine
from degstalk_ns.fleet.engines.here import ThisMachine
from degstalk_ns.fleet.manifest import Manifest, read_manifest
from degstalk_ns.fleet.schedule import FleetSchedule
from degstalk_ns.fleet.steps import steps_of
from degstalk_ns.fleet.store import Store

NEED = {"process": {"cpus": 1, "memory_gb": 0.5}}


def _manifest(folder: Path, count: int = 3, **more: Any) -> tuple[Path, Manifest]:
    drawn = [{"name": f"s{i}", "drawn": {"seed": i, "size": 64, "seconds": 2}} for i in range(count)]
    path = folder / "fleet.yml"
    content = {"output": "out", "subjects": drawn, "training": None, "needs": NEED} | more
    path.write_text(yaml.safe_dump(content))
    return path, read_manifest(path)


def _digests(folder: Path) -> dict[str, str]:
    names = ("transforms_train.json", "aud.wav", "3dmm.npz", "ori_imgs/0.jpg", "ori_imgs/24.jpg", "parsing/7.png")
    paths = [dataset / name for dataset in sorted(folder.glob("*/process/dataset")) for name in names]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _ran(manifest: Manifest, engine: Engine) -> FleetSchedule:
    store = Store(manifest.output)
    schedule = FleetSchedule(steps_of(manifest), store, manifest.retries)
    with engine:
        assert engine.check(manifest, {"process": manifest.needs.process}) == []
        schedule.run(engine)
    return schedule


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FleetSchedule]:
    folder = tmp_path_factory.mktemp("here")
    _, manifest = _manifest(folder)
    return folder, _ran(manifest, ThisMachine(manifest))


def test_all_is_done_on_this_machine(here: tuple[Path, FleetSchedule]) -> None:
    folder, schedule = here
    assert schedule.complete and len(_digests(folder / "out")) == 18
    assert all(record.mark is not None and 5e7 < record.mark.memory < 1e10 for record in schedule.records.values())


@pytest.mark.parametrize("name", ["local", "slurm"])
def test_a_process_that_is_killed_is_tried_again(name: str, tmp_path: Path) -> None:
    _, manifest = _manifest(tmp_path, 1)
    engine: Engine = ThisMachine(manifest)
    if name == "slurm":
        pytest.importorskip("submitit")
        from degstalk_ns.fleet.engines.on_slurm import SlurmJobs

        engine = SlurmJobs(manifest, tmp_path / ".slurm", cluster="local")

    def kill() -> None:
        me, deadline = psutil.Process(), time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in me.children(recursive=True):
                    if "fleet" in child.cmdline():
                        time.sleep(0.5)
                        os.kill(child.pid, signal.SIGKILL)
                        return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    schedule = _ran(manifest, engine)
    thread.join()
    (record,) = schedule.records.values()
    assert schedule.complete and record.tries == 2 and record.retried[0].endswith("ended by signal 9")
    assert name == "local" or "job " in record.retried[0]


def test_bad_input_is_refused_once_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    subjects = [{"name": "bad", "video": "broken.mp4"}, {"name": "s0", "drawn": {"size": 64, "seconds": 2}}]
    path, _ = _manifest(tmp_path, 0, subjects=subjects)
    command = [sys.executable, "-c", "from degstalk_ns.scripts.cli import main; main()", "fleet", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 and "bad, process:" in done.stderr and "broken.mp4" in done.stderr
    report = (tmp_path / "out/report.md").read_text()
    assert (
        "| s0 | process | done |" in report and "| bad | process | failed |" in report and "Tried again" not in report
    )
    # The same again: what is done is left alone.
    stamp = (tmp_path / "out/s0/process/step.json").stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 1 and "1 done before" in again.stdout
    assert (tmp_path / "out/s0/process/step.json").stat().st_mtime_ns == stamp


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        found.add_node(num_cpus=1)
    ray.init(address=found.address, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


def test_a_ray_cluster_of_three_nodes_makes_the_same(
    cluster: Any, here: tuple[Path, FleetSchedule], tmp_path: Path
) -> None:
    from degstalk_ns.fleet.engines.on_ray import RayCluster

    _, manifest = _manifest(tmp_path)
    schedule = _ran(manifest, RayCluster(manifest))
    assert schedule.complete and _digests(tmp_path / "out") == _digests(here[0] / "out")
    assert len({record.mark.node for record in schedule.records.values() if record.mark}) == 3


def test_a_node_that_is_taken_away_costs_a_retry(cluster: Any, tmp_path: Path) -> None:
    from degstalk_ns.fleet.engines.on_ray import RayCluster

    node = cluster.add_node(num_cpus=4)  # the only one that can take this step
    _, manifest = _manifest(tmp_path, 1, needs={"process": {"cpus": 2, "memory_gb": 0.5}})
    store = Store(manifest.output)
    schedule = FleetSchedule(steps_of(manifest), store, manifest.retries)
    spare: list[Any] = []

    def show(schedule: FleetSchedule) -> None:
        (record,) = schedule.records.values()
        if record.tries == 1 and not spare and (tmp_path / "out/s0/process/log.txt").exists():
            cluster.remove_node(node)
            spare.append(cluster.add_node(num_cpus=4))

    with RayCluster(manifest) as engine:
        schedule.run(engine, show)
    (record,) = schedule.records.values()
    assert schedule.complete and record.tries == 2 and "died" in record.retried[0]
    cluster.remove_node(spare[0])


def test_what_the_cluster_has_not_is_said_before_anything_starts(cluster: Any, tmp_path: Path) -> None:
    from degstalk_ns.fleet.engines.on_ray import RayCluster

    _, manifest = _manifest(tmp_path, 1, needs={"process": {"cpus": 1, "gpus": 1, "memory_gb": 0.5}})
    with RayCluster(manifest) as engine:
        (said,) = engine.check(manifest, {"process": manifest.needs.process})
    assert said == "needs.process.gpus: 1 GPUs, and the largest machine of the cluster has 0"


def test_submitit_makes_the_same(here: tuple[Path, FleetSchedule], tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    from degstalk_ns.fleet.engines.on_slurm import SlurmJobs

    _, manifest = _manifest(tmp_path)
    schedule = _ran(manifest, SlurmJobs(manifest, tmp_path / ".slurm", cluster="local"))
    assert schedule.complete and _digests(tmp_path / "out") == _digests(here[0] / "out")
