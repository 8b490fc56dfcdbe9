import numpy as np
import pytest

from degstalk_ns.training.curriculum import Curriculum, CurriculumConfig, sliding_window
from degstalk_ns.training.stages import Schedule, ScheduleConfig

COUNT = 200
OPENING = np.linspace(0, 1, COUNT)
BLINK = np.linspace(1, 0, COUNT)
SCHEDULE = Schedule(ScheduleConfig(), 6_000)
CURRICULUM = Curriculum(SCHEDULE, OPENING, BLINK, CurriculumConfig(), seed=3)


def test_window_holds_the_values_around_its_centre() -> None:
    inside = sliding_window(OPENING, 0.5, 0.2, smallest=1)
    assert 0.38 < OPENING[inside].min() < 0.42 and 0.58 < OPENING[inside].max() < 0.62


def test_sparse_window_is_widened() -> None:
    values = np.array([0.0, 0.01, 0.02, 1.0])
    assert len(sliding_window(values, 1.0, 0.2, smallest=3)) == 3
    assert len(sliding_window(np.zeros(5), 0.5, 0.2, smallest=4)) >= 4


def test_last_window_holds_the_strongest_values() -> None:
    # Blinks end in a plateau at 1; in single precision 1 - 0.9 exceeds half a window of 0.2.
    values = np.concatenate([np.linspace(0, 0.95, 300), np.ones(40)]).astype(np.float32)
    inside = sliding_window(values, 1.0, 0.2, smallest=16)
    assert set(range(300, 340)) <= set(inside.tolist())
    first = sliding_window(1 - values, 0.0, 0.2, smallest=16)
    assert set(range(300, 340)) <= set(first.tolist())


def test_draws_without_replacement() -> None:
    epoch = [CURRICULUM.face_frame(step) for step in range(COUNT)]
    assert sorted(epoch) == list(range(COUNT))
    assert epoch != [CURRICULUM.face_frame(step) for step in range(COUNT, 2 * COUNT)]


def test_every_choice_is_a_function_of_the_step() -> None:
    again = Curriculum(SCHEDULE, OPENING, BLINK, CurriculumConfig(), seed=3)
    for step in (0, 299, 300, 2_000, 4_999, 5_500):
        assert CURRICULUM.face_frame(step) == again.face_frame(step)
        assert CURRICULUM.mouth_frames(step) == again.mouth_frames(step)
    other = Curriculum(SCHEDULE, OPENING, BLINK, CurriculumConfig(), seed=4)
    assert [CURRICULUM.face_frame(step) for step in range(50)] != [other.face_frame(step) for step in range(50)]


def test_static_mouth_steps_take_wide_open_mouths() -> None:
    for step in range(0, 300, 10):
        assert OPENING[CURRICULUM.mouth_frames(step)[0]] > 0.75


def test_motion_mouth_slides_from_open_to_closed() -> None:
    middle = SCHEDULE.static_end + (SCHEDULE.steps(SCHEDULE.config.curriculum_end) - SCHEDULE.static_end) // 2
    assert 0.35 < OPENING[CURRICULUM.mouth_frames(middle)[0]] < 0.65
    last = SCHEDULE.steps(SCHEDULE.config.curriculum_end) - 1
    assert OPENING[CURRICULUM.mouth_frames(last)[0]] < 0.25
    # afterwards all frames again
    drawn = [CURRICULUM.mouth_frames(step)[0] for step in range(last + 1, last + 1 + COUNT)]
    assert len(set(drawn)) > COUNT // 2


def test_face_windows_of_opening_and_blink() -> None:
    end = SCHEDULE.steps(SCHEDULE.config.curriculum_end)
    late = end // 30 * 30
    assert OPENING[CURRICULUM.face_frame(late)] > 0.75
    assert BLINK[CURRICULUM.face_frame(late - 15)] > 0.75
    early = -(-SCHEDULE.static_end // 30) * 30
    assert OPENING[CURRICULUM.face_frame(early)] < 0.25
    assert BLINK[CURRICULUM.face_frame(early + 15)] < 0.25


def test_eyes_may_close_before_the_mouth_windows_end() -> None:
    schedule = Schedule(ScheduleConfig(blink_end=0.2), 6_000)
    curriculum = Curriculum(schedule, OPENING, BLINK, CurriculumConfig(blink_every=5), seed=3)
    steps = range(1_200, schedule.motion_end, 5)
    assert all(BLINK[curriculum.face_frame(step)] > 0.75 for step in steps if step % 30)
    # the windows of mouth opening are on their way still
    assert all(OPENING[curriculum.face_frame(step)] < 0.6 for step in steps[:200] if step % 30 == 0)
    assert [curriculum.mouth_frames(step) for step in steps] == [CURRICULUM.mouth_frames(step) for step in steps]


def test_fuse_stage_takes_one_frame_for_both() -> None:
    assert CURRICULUM.mouth_frames(5_500) == [CURRICULUM.face_frame(5_500)]


def test_mismatched_values_are_refused() -> None:
    with pytest.raises(ValueError, match="one opening and one blink"):
        Curriculum(SCHEDULE, OPENING, BLINK[:-1])
