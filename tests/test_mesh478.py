import numpy as np
import pytest
from mesh_faces import mesh_face, relative_gap

from degstalk_ns.landmarks import mesh478 as lm


@pytest.fixture
def face() -> np.ndarray:
    return mesh_face()


@pytest.mark.parametrize("ring", [lm.LIPS_OUTER, lm.LIPS_INNER, lm.RIGHT_EYE, lm.LEFT_EYE, lm.FACE_OVAL, lm.RIGID])
def test_rings_name_each_point_once(ring: tuple[int, ...]) -> None:
    assert len(set(ring)) == len(ring)
    assert 0 <= min(ring) and max(ring) < lm.NUM_POINTS


def test_rigid_points_are_mirrored_pairs_off_the_lids_and_lips() -> None:
    assert len(lm.RIGID_LEFT) == len(lm.RIGID_RIGHT)
    assert not set(lm.RIGID) & {*lm.LIPS_OUTER, *lm.LIPS_INNER, *lm.RIGHT_EYE, *lm.LEFT_EYE}


def test_rings_follow_the_mesh_edges() -> None:
    connections = pytest.importorskip("mediapipe.tasks.python.vision").FaceLandmarksConnections

    def edges(part: list) -> set[frozenset[int]]:
        return {frozenset((c.start, c.end)) for c in part}

    def closed(ring: tuple[int, ...]) -> set[frozenset[int]]:
        return {frozenset(pair) for pair in zip(ring, ring[1:] + ring[:1], strict=True)}

    assert closed(lm.LIPS_OUTER) | closed(lm.LIPS_INNER) == edges(connections.FACE_LANDMARKS_LIPS)
    assert closed(lm.RIGHT_EYE) == edges(connections.FACE_LANDMARKS_RIGHT_EYE)
    assert closed(lm.LEFT_EYE) == edges(connections.FACE_LANDMARKS_LEFT_EYE)
    assert closed(lm.FACE_OVAL) == edges(connections.FACE_LANDMARKS_FACE_OVAL)


def test_68_points_use_the_rings_in_the_conventions_order(face: np.ndarray) -> None:
    assert len(lm.TO_68) == 68 and len(set(lm.TO_68)) == 68
    points = lm.to_68(np.stack([face, face + 1]))
    assert points.shape == (2, 68, 2)
    outer, inner = points[0, 48:60], points[0, 60:68]
    # 48 and 54 are the corners, 51 the middle of the upper lip, 57 of the lower one; y points down.
    assert outer[0, 0] == outer[:, 0].min() and outer[6, 0] == outer[:, 0].max()
    assert outer[3, 1] == outer[:, 1].min() and outer[9, 1] == outer[:, 1].max()
    assert inner[2, 1] < inner[6, 1]
    assert points[0, 36, 0] < points[0, 39, 0] < points[0, 42, 0] < points[0, 45, 0]
    assert points[0, 37, 1] < points[0, 41, 1]


def test_lip_opening_is_free_of_size_and_turn_and_zero_when_closed(face: np.ndarray) -> None:
    opening = lm.mesh_lip_opening(face)
    assert 0.15 < opening < 0.25
    assert lm.mesh_lip_opening(3.0 * face) == pytest.approx(opening)
    c, s = np.cos(0.5), np.sin(0.5)
    turned = face @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    assert lm.mesh_lip_opening(turned) == pytest.approx(opening)
    face[list(lm.LIPS_INNER), 1] = 150
    assert lm.mesh_lip_opening(face) == pytest.approx(0.0)


def test_the_gap_that_renders_are_compared_by_is_in_the_image_plane_and_free_of_size() -> None:
    faces = np.stack([mesh_face(lips) for lips in (0.0, 4.0, 8.0)])
    wanted = [relative_gap(lips) for lips in (0.0, 4.0, 8.0)]
    assert lm.lip_gap_between_eye_corners(faces).tolist() == pytest.approx(wanted)
    assert lm.lip_gap_between_eye_corners(3.0 * faces + 7.0).tolist() == pytest.approx(wanted)
    faces[..., 2] = np.random.default_rng(0).normal(size=faces.shape[:2])
    assert lm.lip_gap_between_eye_corners(faces).tolist() == pytest.approx(wanted)
    assert lm.lip_gap_between_eye_corners(faces[..., :2]).tolist() == pytest.approx(wanted)
