"""Memory of the process: kept when it is freed, and told."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from degstalk_ns.kernels import memory

PROGRAM = """
import resource, sys
import numpy as np
from degstalk_ns.kernels.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
SIZE = 20 << 20
np.ones(SIZE, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(SIZE, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Pages that the system has to hand out, and clear, for a block of 20 MiB that is freed and wanted again."""


def _pages(kept: str) -> int:
    command = [sys.executable, "-c", PROGRAM, kept]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
def test_freed_memory_is_used_again() -> None:
    assert _pages("kept") < 0.1 * _pages("returned")


THREADS = """
import threading
import numpy as np
from degstalk_ns.bench.memory import resident_memory
from degstalk_ns.kernels.memory import keep_freed_memory
assert keep_freed_memory()
end = threading.Event()
def work(done):
    [np.ones(1 << 20, np.uint8) for _ in range(40)]
    done.set()
    end.wait()
before = resident_memory()
for _ in range(8):
    done = threading.Event()
    threading.Thread(target=work, args=(done,)).start()
    done.wait()
print(resident_memory() - before)
end.set()
"""
"""What remains of 40 MiB that each of eight threads, all still there, has had and freed after the other."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
def test_threads_do_not_keep_a_heap_each() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 130


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(memory.ctypes, "CDLL", None)  # not even asked
    assert not memory.keep_freed_memory()


def test_a_library_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert not memory.keep_freed_memory()


def test_what_is_allocated_is_resident_and_stays_in_the_peak() -> None:
    # In a program of its own: memory that other tests freed, and that is kept, would be used again.
    code = """
import numpy as np
from degstalk_ns.bench.memory import peak_resident_memory, resident_memory
before = resident_memory()
block = np.ones(200 << 20, np.uint8)
held = resident_memory()
assert held - before > 150 and peak_resident_memory() > held - 20
del block
assert peak_resident_memory() > held - 20
assert resident_memory() < held - 150
"""
    subprocess.run([sys.executable, "-c", code], check=True)
