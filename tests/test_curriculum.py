import numpy as np
import pytest

from degstalk_ns.training.curriculum import Curriculum, CurriculumConfig, places, sliding_window
from degstalk_ns.training.stages import Schedule, ScheduleConfig

COUNT = 200
OPENING = np.linspace(0, 1, COUNT)
BLINK = np.linspace(1, 0, COUNT)
SCHEDULE = Schedule(ScheduleConfig(), 6_000)
CURRICULUM = Curriculum(SCHEDULE, OPENING, BLINK, CurriculumConfig(), seed=3)
STATIC_END, END, MOTION_END = 300, 4_000, 5_000
OPEN, CLOSED = places(OPENING), places(BLINK)


def _progress(step: int) -> float:
    return (step - STATIC_END) / (END - STATIC_END)


def test_places_run_from_the_first_to_the_99th_percentile() -> None:
    place = places(np.arange(101.0))
    assert place[[0, 1, 50, 99, 100]].tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert places(np.full(5, 7.0)).tolist() == [0.0] * 5


def test_window_holds_the_places_around_its_centre() -> None:
    inside = sliding_window(OPENING, 0.5, 0.2, smallest=1)
    assert inside.tolist() == np.flatnonzero(np.abs(OPENING - 0.5) <= 0.1).tolist()


def test_window_stays_whole_at_the_ends_of_the_range() -> None:
    for centre, inside in ((-1.0, OPENING <= 0.4), (0.1, OPENING <= 0.4), (0.9, OPENING >= 0.6)):
        assert sliding_window(OPENING, centre, 0.4, smallest=1).tolist() == np.flatnonzero(inside).tolist()


def test_sparse_window_is_widened() -> None:
    values = np.array([0.0, 0.01, 0.02, 1.0])
    assert sliding_window(values, 1.0, 0.2, smallest=3).tolist() == [1, 2, 3]
    assert len(sliding_window(np.zeros(5), 0.5, 0.2, smallest=4)) >= 4


def test_last_window_holds_the_strongest_values() -> None:
    # Blinks end in a plateau at 1; in single precision 1 - 0.9 exceeds half a window of 0.2.
    values = np.concatenate([np.linspace(0, 0.95, 300), np.ones(40)]).astype(np.float32)
    inside = sliding_window(places(values), 1.0, 0.2, smallest=16)
    assert set(range(300, 340)) <= set(inside.tolist())
    first = sliding_window(places(1 - values), 0.0, 0.2, smallest=16)
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


def _tried(step: int, curriculum: Curriculum = CURRICULUM) -> list[int]:
    """Frames that a mouth step tries before it falls back on those with the widest mouth."""
    frames = curriculum.mouth_frames(step)
    assert frames[-4:] == [199, 198, 197, 196]
    return frames[:-4]


def test_static_mouth_steps_take_wide_open_mouths() -> None:
    for step in range(STATIC_END):
        assert (OPEN[_tried(step)] >= 0.8 - 1e-9).all()


def test_one_mouth_step_in_seven_takes_its_window_which_grows_from_open_to_closed() -> None:
    for step in range(301, END, 7):
        lowest = 0.8 * (1 - _progress(step))
        assert (OPEN[_tried(step)] >= lowest - 1e-9).all()
    # It reaches from its lower end to the widest mouths all the time.
    for begin in (700, 2_100, 3_500):
        steps = range(begin, begin + 210, 7)
        seen = OPEN[np.concatenate([_tried(step) for step in steps])]
        assert seen.max() == 1 and seen.min() < 0.8 * (1 - _progress(begin)) + 0.03
    for every in (1, 3):
        other = Curriculum(SCHEDULE, OPENING, BLINK, CurriculumConfig(mouth_every=every), seed=3)
        early = [step for step in range(302, 350) if (OPEN[_tried(step, other)] > 0.75).all()]
        assert early == [step for step in range(302, 350) if step % every == 0]


def test_the_other_mouth_steps_draw_from_all_frames() -> None:
    drawn = {step: _tried(step)[0] for step in range(400, 600)}
    others = [frame for step, frame in drawn.items() if step % 7]
    assert len(others) == len(set(others))  # one epoch, without replacement
    assert (OPEN[others] < 0.5).mean() == pytest.approx(0.5, abs=0.1)
    # If that frame does not show enough of the mouth, any other may follow.
    assert any(OPEN[frame] < 0.2 for frame in _tried(401)[1:]) and any(OPEN[frame] > 0.8 for frame in _tried(401)[1:])


def test_after_the_curriculum_mouths_are_drawn_from_all() -> None:
    drawn = [_tried(step)[0] for step in range(END, END + COUNT)]
    assert sorted(drawn) == list(range(COUNT))


def test_face_windows_of_opening_and_blink_slide_until_the_curriculum_ends() -> None:
    for step in range(STATIC_END, END, 15):
        frame = CURRICULUM.face_frame(step)
        place, half = (OPEN, 0.1) if step % 30 == 0 else (CLOSED, 0.225)
        centre = min(max(_progress(step), half), 1 - half)
        assert abs(place[frame] - centre) <= half + 1e-9
    # Then all frames come without replacement, also at the steps that had a window.
    assert sorted(CURRICULUM.face_frame(step) for step in range(END, END + COUNT)) == list(range(COUNT))


def test_eyes_may_close_before_the_mouth_windows_end() -> None:
    schedule = Schedule(ScheduleConfig(blink_end=0.2), 6_000)
    curriculum = Curriculum(schedule, OPENING, BLINK, CurriculumConfig(blink_every=5), seed=3)
    steps = range(1_200, END, 5)
    assert all(CLOSED[curriculum.face_frame(step)] >= 0.55 - 1e-9 for step in steps if step % 30)
    # the windows of mouth opening are on their way still
    assert all(OPEN[curriculum.face_frame(step)] <= _progress(step) + 0.1 for step in steps if step % 30 == 0)
    assert [curriculum.mouth_frames(step) for step in steps] == [CURRICULUM.mouth_frames(step) for step in steps]


def test_fuse_stage_takes_one_frame_for_both() -> None:
    assert CURRICULUM.mouth_frames(5_500) == [CURRICULUM.face_frame(5_500)]


def test_mismatched_values_are_refused() -> None:
    with pytest.raises(ValueError, match="one opening and one blink"):
        Curriculum(SCHEDULE, OPENING, BLINK[:-1])
