"""Compiled kernels give the same bits in the process that compiles them and in one that loads them from the cache.

They need not: where a kernel calls another compiled function, the process that compiled both may run another copy of
the callee, optimised differently, than the one the cache keeps. So every helper is inlined.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from degstalk_ns.rasterization import compiled

PROGRAM = """
import sys, torch
from degstalk_ns.rasterization import rasterize
from degstalk_ns.structural import mean_ssim

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
    # The rasterizer's code is made of several files, and must not outlive a change to any of them.
    assert kept and all(compiled.VERSION in name for name in kept if "blend" in name or "project" in name)
    assert all(torch.equal(compiled, loaded) for compiled, loaded in zip(*results, strict=True))
    assert results[0][0].abs().sum() > 0 and all(gradient.abs().sum() > 0 for gradient in results[0][3:])
