"""Compiled kernels give the same bits in the process that compiles them and in one that loads them from the cache.

They need not: where a kernel calls another compiled function, the process that compiled both may run another copy of
the callee, optimised differently, than the one the cache keeps. So every helper is inlined.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from degstalk_ns import rasterization
from degstalk_ns.kernels import compiled

PROGRAM = """
import sys, torch
from degstalk_ns.rasterization import rasterize
from degstalk_ns.metrics.ssim import mean_ssim

random = torch.Generator().manual_seed(0)
count, size = 500, 64
parameters = [
    (torch.rand(count, 3, generator=random) - 0.5) * 0.2,
    torch.rand(count, 4, generator=random) - 0.5,
    torch.rand(count, 3, generator=random) * 0.02 + 1e-3,
    torch.rand(count, generator=random),
    torch.rand(count, 16, 3, generator=random) - 0.5,
]
parameters = [p.requires_grad_() for p in parameters]
view = torch.eye(4)[None]
view[0, 2, 3] = 1.0
camera = torch.tensor([[[200.0, 0, 32], [0, 200, 32], [0, 0, 1]]])
image, alpha, _ = rasterize(*parameters, view, camera, size, size, sh_degree=3)
similarity = mean_ssim(image[0], torch.rand(size, size, 3, generator=random))
(image.square().sum() + alpha.sum() + similarity).backward()
torch.save([image.detach(), alpha.detach(), similarity.detach(), *(p.grad for p in parameters)], sys.argv[1])
"""


def test_the_cache_holds_the_code_that_was_compiled(tmp_path: Path) -> None:
    results = []
    for name in ("compiling", "loading"):
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / name)],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            check=True,
        )
        results.append(torch.load(tmp_path / name))
    kept = [path.name for path in (tmp_path / "cache").rglob("*.nbi")]
    # A kernel's code is made of the files of two folders, and must not outlive a change to any of them.
    version = compiled.sources_digest(Path(rasterization.__file__).resolve().parent)
    assert kept and all(version in name for name in kept if "blend" in name or "project" in name)
    assert all(torch.equal(compiled, loaded) for compiled, loaded in zip(*results, strict=True))
    assert results[0][0].abs().sum() > 0 and all(gradient.abs().sum() > 0 for gradient in results[0][3:])


def test_a_change_in_either_folder_is_another_version(tmp_path: Path) -> None:
    """A file of the kernel's own folder, and one of the folder that all kernels stand on."""

    def digest() -> str:
        code = "import sys; sys.path.insert(0, sys.argv[1]); from kernels import compiled; from pathlib import Path; "
        code += "print(compiled.sources_digest(Path(sys.argv[1]) / 'own'))"
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    shutil.copytree(Path(compiled.__file__).parent, tmp_path / "kernels")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "one_kernels.py").write_text("LIMIT = 1\n")
    seen = [digest(), digest()]
    assert seen[0] == seen[1]
    for changed in (tmp_path / "own" / "one_kernels.py", tmp_path / "kernels" / "lanes.py"):
        changed.write_text(changed.read_text() + "# changed\n")
        seen.append(digest())
    assert len(set(seen)) == 3
