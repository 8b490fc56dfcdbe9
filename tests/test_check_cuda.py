"""The script for GPU machines: what it compares, tried on the CPU."""

from __future__ import annotations

import pytest
import torch

from degstalk_ns.scripts import check_cuda


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_cuda.main([]) == 2
    error = capsys.readouterr().err
    assert "no CUDA device" in error and len(error.strip().splitlines()) == 1


def test_every_scene_holds_on_the_cpu_and_a_changed_one_does_not() -> None:
    cpu = torch.device("cpu")
    scenes = check_cuda.scenes()
    assert len(scenes) >= 10
    scene = scenes["needles"]
    truth, exact = check_cuda.drawn(scene, "reference", cpu, torch.float64)
    image, gradients = check_cuda.drawn(scene, "cpu", cpu, torch.float32)
    assert check_cuda.image_difference(image, truth)[2]
    assert all(check_cuda.gradient_difference(gradients[name], exact[name])[1] for name in exact)
    assert not check_cuda.image_difference(image + 0.01, truth)[2]
    assert not check_cuda.image_difference(torch.full_like(image, torch.nan), truth)[2]
    assert not check_cuda.gradient_difference(1.1 * gradients["means"], exact["means"])[1]
