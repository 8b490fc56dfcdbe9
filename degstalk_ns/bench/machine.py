"""What this machine can do at best, measured in the minute of the benchmark, so that ratios mean the same anywhere.

It must not know what is held against it.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

import torch

from degstalk_ns.bench.timing import measure_together
from degstalk_ns.errors import UserError

MATRIX = 1024
"""Side of the single-precision matrices whose product is timed."""
COPIED = 64 << 20
"""Bytes that are copied: far more than any cache holds."""


@dataclass(frozen=True)
class Machine:
    """One device and its limits.

    Attributes:
        name: of the processor or the GPU. cores: of the processor. threads: that torch and the kernels use.
        operations: per second, of a single-precision matrix product (a multiplication and an addition are two).
        bytes: per second, of a copy (read and written).
    """

    name: str
    cores: int
    threads: int
    operations: float
    bytes: float
    torch: str = torch.__version__

    def describe(self) -> str:
        return (
            f"{self.name}, {self.cores} cores, {self.threads} threads: matrix product "
            f"{self.operations / 1e9:.0f} GFLOP/s, copy {self.bytes / 1e9:.1f} GB/s"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def use_threads(threads: int | None) -> None:
    """Sets the number of threads of torch and of our kernels; None leaves it to torch.

    Raises:
        UserError: fewer than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise UserError(f"--threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` as a device.

    Raises:
        UserError: a GPU was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available to PyTorch; omit --device, or give --device cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def measure_machine(device: torch.device | None = None, repeats: int = 20) -> Machine:
    """Measures this machine now."""
    device = device or torch.device("cpu")
    a, b = (torch.rand(MATRIX, MATRIX, device=device) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # on a GPU, no TensorFloat-32
    try:
        times = measure_together(
            {"product": lambda: torch.mm(a, b, out=product), "copy": lambda: target.copy_(source)},
            repeats,
            device=device,
        )
    finally:
        torch.set_float32_matmul_precision(precision)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return Machine(
        name=name,
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        operations=2 * MATRIX**3 / times["product"].median,
        bytes=2 * COPIED / times["copy"].median,
    )


def processor_name() -> str:
    """Name of the processor, as its maker calls it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
