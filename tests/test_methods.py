"""What importing the methods does to a process: it happens in every program of nerfstudio, whatever method is meant."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, os, sys, warnings
import cv2, gsplat, numba, scipy, torch, torchmetrics, viser, yaml
import nerfstudio.data.datamanagers.full_images_datamanager, nerfstudio.engine.trainer, nerfstudio.plugins.types

def state():
    return {
        "torch's safe globals": sorted(map(str, torch.serialization.get_safe_globals())),
        "filters of warnings": [str(entry) for entry in warnings.filters],
        "torch's threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "torch's switches": [torch.get_float32_matmul_precision(), torch.is_grad_enabled()],
        "torch's generator": torch.random.get_rng_state().tolist(),
        "environment": sorted(os.environ.items()),
        "classes that yaml makes": sorted(map(str, yaml.Loader.yaml_constructors)),
    }

def asked(*_):
    raise AssertionError("the GPU was asked for")

before = state()
torch.cuda.is_available = torch.cuda.device_count = asked
del sys.argv
import degstalk_ns.configs.methods as methods
after = state()
changed = {
    name: [entry for entry in after[name] if entry not in before[name]]
    for name in before
    if before[name] != after[name]
}
heavy = [name for name in ("mediapipe", "degstalk_ns.plugin.viewer") if name in sys.modules]
print(json.dumps({"changed": changed, "heavy": heavy, "method": methods.degstalk.config.method_name}))
"""


def test_importing_the_methods_changes_nothing_but_that_yaml_refuses_runs_of_earlier_versions() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    earlier = "tag:yaml.org,2002:python/object:degstalk_ns.trainer.DegstalkTrainerConfig"
    assert result == {"changed": {"classes that yaml makes": [earlier]}, "heavy": [], "method": "degstalk"}
