"""`bench render` on a tiny avatar: what it reports is there and adds up; nothing here judges a time."""

from __future__ import annotations

import pytest
import torch
from test_avatar import _avatar, _conditions, _view

from degstalk_ns.avatar.renderer import FrameRenderer
from degstalk_ns.bench.machine import Machine
from degstalk_ns.bench.render import Played, Shot, bench_render


def test_render_times_every_phase_of_the_real_frames() -> None:
    avatar = _avatar()
    shots = [Shot(_view(), _conditions(seed)) for seed in (0, 1)]
    plates = torch.rand(2, 48, 48, 3)
    played = Played("head", FrameRenderer(avatar), 1, True, shots, lambda place: plates[place])
    report = bench_render(played, Machine("test", 2, 2, operations=1e11, bytes=1e10), 3, lambda _: None)
    seconds = report.data["seconds"]
    assert set(seconds) >= {"fields", "rasterization of both regions", "composition", "whole frame"}
    assert report.data["frames_per_second"] == pytest.approx(1 / seconds["whole frame"]["median"])
    assert report.data["gflop"] > 0 and report.data["gaussians"] == {"face": 300, "mouth": 200}
