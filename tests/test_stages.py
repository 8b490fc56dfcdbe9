import itertools

import pytest

from degstalk_ns.errors import UserError
from degstalk_ns.training.stages import LearningRateKind, Schedule, ScheduleConfig, Stage

RELEASE = Schedule(ScheduleConfig(), 60_000)


@pytest.mark.parametrize(
    ("step", "stage"),
    [(0, "static"), (2_999, "static"), (3_000, "motion"), (49_999, "motion"), (50_000, "fuse"), (59_999, "fuse")],
)
def test_stages_of_the_release(step: int, stage: str) -> None:
    assert RELEASE.stage(step) is Stage(stage)


def test_a_shorter_run_is_the_same_recipe_in_small() -> None:
    small = Schedule(ScheduleConfig(), 600)
    for step in range(600):
        assert small.stage(step) is RELEASE.stage(step * 100)
        assert small.perceptual(step) == RELEASE.perceptual(step * 100)
        assert small.finishes_mouth(step) == RELEASE.finishes_mouth(step * 100)
        assert small.fuse_perceptual(step) == RELEASE.fuse_perceptual(step * 100)


@pytest.mark.parametrize(("region", "end"), [("face", 49_000), ("mouth", 45_000)])
def test_growth_of_the_release(region: str, end: int) -> None:
    growth = RELEASE.growth(region)
    growing = [step for step in range(60_000) if growth.grows(step)]
    assert growing[0] == 500
    assert growing[-1] == end - 100
    assert {b - a for a, b in itertools.pairwise(growing)} == {100}
    assert growth.growth_progress(500) == 0 and growth.growth_progress(end) == 1
    assert growth.growth_progress((500 + end) // 2) == 0.5
    assert growth.growth_progress(0) == 0 and growth.growth_progress(59_999) == 1
    assert not growth.prunes_by_size(3_000) and growth.prunes_by_size(3_001)


def test_growth_ends_with_the_motion_stage_at_the_latest() -> None:
    schedule = Schedule(ScheduleConfig(motion_end=0.5, growth_end=0.9, mouth_growth_end=0.9), 1_000)
    for region in ("face", "mouth"):
        growth = schedule.growth(region)
        assert max(step for step in range(1_000) if growth.grows(step)) < 500 == growth.end


def test_growth_of_the_shortest_run_is_never_before_the_first_step_is_done() -> None:
    growth = Schedule(ScheduleConfig(), 3).growth("face")
    assert growth.every == 1 and not growth.grows(0) and growth.grows(1)


def test_every_stage_happens_in_the_shortest_run() -> None:
    assert [Schedule(ScheduleConfig(motion_end=0.7), 3).stage(step) for step in range(3)] == list(Stage)
    with pytest.raises(UserError, match="at least 3 steps"):
        Schedule(ScheduleConfig(), 2)


def test_stages_out_of_order_are_refused() -> None:
    with pytest.raises(UserError, match="follow each other"):
        Schedule(ScheduleConfig(static_end=0.9, motion_end=0.5), 100)


def test_what_trains_when() -> None:
    groups = ["face_means", "face_embeddings", "face_sh0", "mouth_shN", "face_opacities", "mouth_opacities"]
    groups += ["face_field_grids", "mouth_field_networks"]
    on = {step: [group for group in groups if RELEASE.trains(step, group)] for step in (0, 3_000, 50_000)}
    assert on[0] == ["face_means", "face_sh0", "mouth_shN", "face_opacities", "mouth_opacities"]
    assert on[3_000] == groups
    assert on[50_000] == ["face_sh0", "mouth_shN", "face_opacities"]


def test_the_mouth_is_finished_in_its_colours_alone_while_the_face_goes_on() -> None:
    finishing = [step for step in range(60_000) if RELEASE.finishes_mouth(step)]
    assert finishing == list(range(49_000, 50_000))
    parts = ("means", "quats", "scales", "opacities", "embeddings", "sh0", "shN", "field_grids", "field_networks")
    for step in (49_000, 49_999):
        assert [part for part in parts if RELEASE.trains(step, f"mouth_{part}")] == ["sh0", "shN"]
        assert all(RELEASE.trains(step, f"face_{part}") for part in parts)
    assert all(RELEASE.trains(48_999, f"mouth_{part}") for part in parts)


def test_learning_rates() -> None:
    means, fields = LearningRateKind.of("face_means"), LearningRateKind.of("mouth_field_grids")
    assert RELEASE.rate_factor(0, means) == 1 and RELEASE.rate_factor(45_000, means) == pytest.approx(0.01)
    assert RELEASE.rate_factor(55_000, means) == pytest.approx(0.01)
    assert RELEASE.rate_factor(22_500, means) == pytest.approx(0.1)
    assert LearningRateKind.of("face_sh0") is LearningRateKind.CONSTANT
    assert RELEASE.rate_factor(30_000, LearningRateKind.CONSTANT) == 1
    # The fields: halved by 40,000 steps, then a tenth by 50,000, counted from the start of the run.
    assert RELEASE.rate_factor(0, fields) == 1
    assert RELEASE.rate_factor(20_000, fields) == pytest.approx(0.5**0.5)
    assert RELEASE.rate_factor(39_999, fields) == pytest.approx(0.5, rel=1e-4)
    assert RELEASE.rate_factor(40_000, fields) == pytest.approx(0.1**0.8)  # 0.158
    assert RELEASE.rate_factor(50_000, fields) == pytest.approx(0.1)
    assert RELEASE.rate_factor(60_000, fields) == pytest.approx(0.1**1.2)


def test_hair_is_ignored_in_six_of_seven_motion_steps() -> None:
    assert not any(RELEASE.ignores_hair(step, 7) for step in range(3_000))
    assert sum(RELEASE.ignores_hair(step, 7) for step in range(7_000, 14_000)) == 6_000
    assert not any(RELEASE.ignores_hair(step, 7) for step in range(46_000, 60_000))


def test_sound_is_left_out_in_every_nth_motion_step() -> None:
    assert not any(RELEASE.silent(step) for step in range(0, 60_000, 7))
    half = Schedule(ScheduleConfig(silent_every=2), 60_000)
    assert not any(half.silent(step) for step in (*range(3_000), *range(50_000, 60_000)))
    assert sum(half.silent(step) for step in range(3_000, 50_000)) == 23_500
    third = Schedule(ScheduleConfig(silent_every=3), 60_000)
    assert [step for step in range(3_000, 3_010) if third.silent(step)] == [3_000, 3_003, 3_006, 3_009]


def test_sh_degree_rises_every_thousand_steps() -> None:
    assert [RELEASE.sh_degree(step, 2) for step in (0, 999, 1_000, 2_000, 50_000)] == [0, 0, 1, 2, 2]


def test_the_windows_slide_through_the_motion_stage() -> None:
    assert RELEASE.progress(0) == RELEASE.progress(3_000) == 0
    assert RELEASE.progress(40_000) == RELEASE.progress(59_000) == 1
    assert 0.4 < RELEASE.progress(21_500) < 0.6
    assert all(RELEASE.blink_progress(step) == RELEASE.progress(step) for step in range(0, 60_000, 500))
    early = Schedule(ScheduleConfig(blink_end=0.2), 60_000)
    assert early.blink_progress(3_000) == 0 and early.blink_progress(7_500) == 0.5 and early.blink_progress(12_000) == 1
    assert early.progress(21_500) == RELEASE.progress(21_500)
