"""The clock of a picture that follows a sound."""

from __future__ import annotations

import pytest

from degstalk_ns.viewer.sync import FollowedSound, InFlight, Lead


def test_the_sound_runs_on_between_reports_and_old_reports_are_left_out() -> None:
    sound = FollowedSound()
    assert sound.report(2, 1.0, True, at=100.0)
    assert sound.now(100.5) == pytest.approx(1.5)
    assert not sound.report(1, 0.2, False, at=100.1)
    assert sound.now(101.0) == pytest.approx(2.0)
    assert sound.report(3, 2.1, False, at=101.2)
    assert sound.now(150.0) == 2.1


def _played(way: float, lead: Lead, frames: int = 200) -> list[float]:
    """How early each frame comes when drawing and sending take ``way`` seconds."""
    spares = []
    for _ in range(frames):
        spares.append(lead.seconds - way)
        lead.observe(spares[-1])
    return spares


@pytest.mark.parametrize("way", [0.02, 0.3, 0.9])
def test_frames_come_in_time_whatever_the_way_takes(way: float) -> None:
    lead = Lead()
    spares = _played(way, lead)
    assert all(spare >= 0 for spare in spares[20:])
    assert spares[-1] == pytest.approx(lead.wanted, abs=0.02)


def test_the_lead_does_not_swing_though_several_frames_are_on_their_way() -> None:
    lead, way, under_way = Lead(), 0.35, [0.3] * 8
    leads = []
    for _ in range(400):
        under_way.append(lead.seconds)
        lead.observe(under_way.pop(0) - way)
        leads.append(lead.seconds)
    assert all(value >= way for value in leads[50:])
    assert max(leads[300:]) - min(leads[300:]) < 0.05


def test_a_lead_has_its_bounds() -> None:
    lead = Lead()
    for _ in range(100):
        lead.observe(-50.0)
    assert lead.seconds == lead.longest
    for _ in range(10_000):
        lead.observe(50.0)
    assert lead.seconds == 0.0


def test_a_page_is_not_flooded_and_lost_frames_are_forgotten() -> None:
    flight = InFlight(standing=2, playing=3, patience=1.0)
    for number in (1, 2):
        assert not flight.full(0.0, playing=False)
        flight.start(number, 0.0)
    assert flight.full(0.1, playing=False) and not flight.full(0.1, playing=True)
    flight.start(3, 0.2)
    assert flight.full(0.3, playing=True)
    flight.confirm(2)
    assert not flight.full(0.3, playing=False) and list(flight.sent) == [3]
    flight.start(4, 0.4)
    assert not flight.full(1.3, playing=False) and list(flight.sent) == [4]
