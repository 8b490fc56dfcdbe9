"""What the machine can do: its rates, its devices, and its threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from rasterizer_scenes import make_scene

from degstalk_ns.bench.machine import Machine, choose_device, measure_machine, use_threads
from degstalk_ns.errors import UserError
from degstalk_ns.rasterization import rasterize


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    """Those of torch, which are set back, as is the precision of its products."""
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield before
    torch.set_num_threads(before)
    torch.set_float32_matmul_precision(precision)


def test_the_machine_has_rates_and_says_who_it_is() -> None:
    torch.set_float32_matmul_precision("high")
    machine = measure_machine(repeats=2)
    assert 1e8 < machine.operations < 1e15 and 1e7 < machine.bytes < 1e13 and machine.cores >= 1
    assert machine.threads == torch.get_num_threads() and machine.torch == torch.__version__
    assert machine.name and machine.to_json()["operations"] == machine.operations
    assert torch.get_float32_matmul_precision() == "high"  # as it was before


def test_it_is_described_in_billions() -> None:
    assert Machine("a processor", 4, 2, operations=1.234e11, bytes=1.26e10).describe() == (
        "a processor, 4 cores, 2 threads: matrix product 123 GFLOP/s, copy 12.6 GB/s"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(UserError, match="no CUDA device"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


def test_the_cpu_can_be_chosen_on_any_machine() -> None:
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("number", [1, 64])
def test_any_number_of_threads_draws_the_same(number: int) -> None:
    scene = make_scene(300, 64, 64, dtype=torch.float32)
    before = rasterize(**scene)[0]
    use_threads(number)
    assert torch.get_num_threads() == number
    np.testing.assert_array_equal(rasterize(**scene)[0].numpy(), before.numpy())


def test_threads_are_left_alone_or_at_least_one(threads: int) -> None:
    use_threads(None)
    assert torch.get_num_threads() == threads
    with pytest.raises(UserError, match="--threads must be at least 1, not 0"):
        use_threads(0)
    assert torch.get_num_threads() == threads
