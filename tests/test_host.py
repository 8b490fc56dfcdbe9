"""Where the viewer listens."""

from __future__ import annotations

import pytest
from nerfstudio.configs.base_config import ViewerConfig

from degstalk_ns.configs.methods import degstalk_fast
from degstalk_ns.plugin.host import kept_local


def test_the_viewer_stays_on_this_machine_unless_asked() -> None:
    default = ViewerConfig()
    assert default.websocket_host == "0.0.0.0"
    assert kept_local(default, ["--load-config", "x"]).websocket_host == "127.0.0.1"
    for asked in (["--viewer.websocket-host", "0.0.0.0"], ["--viewer.websocket_host=0.0.0.0"]):
        assert kept_local(default, asked).websocket_host == "0.0.0.0"
    assert kept_local(ViewerConfig(websocket_host="10.0.0.7"), []).websocket_host == "10.0.0.7"


def test_settings_that_ns_viewer_hands_to_our_run_are_kept_local(monkeypatch: pytest.MonkeyPatch) -> None:
    config = degstalk_fast.config
    before = config.viewer
    assert before.websocket_host == "127.0.0.1"
    try:
        monkeypatch.setattr("sys.argv", ["ns-viewer", "--load-config", "x"])
        config.viewer = ViewerConfig()
        assert config.viewer.websocket_host == "127.0.0.1"
        monkeypatch.setattr("sys.argv", ["ns-viewer", "--viewer.websocket-host", "0.0.0.0"])
        config.viewer = ViewerConfig()
        assert config.viewer.websocket_host == "0.0.0.0"
    finally:
        config.viewer = before
