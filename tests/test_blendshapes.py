import numpy as np
import pytest

from degstalk_ns.errors import UserError
from degstalk_ns.landmarks import blendshapes as ex
from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.landmarks.measures import MEASURE_NAMES, face_measures

OPENFACE = "01 02 04 05 06 07 09 10 12 14 15 17 20 23 25 26 45".split()


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(200, 40, (6, lm.NUM_POINTS, 3))


@pytest.fixture
def blendshapes() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1, (6, 52))


def column(name: str) -> int:
    return ex.BLENDSHAPES.index(name)


def test_names_are_mediapipes_without_neutral_and_blinks() -> None:
    assert len(ex.BLENDSHAPES) == len(set(ex.BLENDSHAPES)) == 52
    assert len(ex.EXPRESSION_NAMES) == 50 and ex.EXPRESSION_NAMES[-1] == "innerLipOpening"
    assert not {"_neutral", "eyeBlinkLeft", "eyeBlinkRight"} & set(ex.EXPRESSION_NAMES)


def test_each_value_lands_in_its_column(blendshapes: np.ndarray, points: np.ndarray) -> None:
    values = ex.expression(blendshapes, points)
    stored = dict(zip(values.names, values.expression_params.T, strict=True))
    assert values.names == ex.TRACKED_NAMES and len(stored) == 62
    measured = dict(zip(MEASURE_NAMES, face_measures(points).T, strict=True))
    for name, found in stored.items():
        if name == "innerLipOpening":
            wanted = lm.mesh_lip_opening(points)
        else:
            wanted = measured[name] if name in measured else blendshapes[:, column(name)]
        np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=name)
    assert "browInnerUp" not in stored and "browRightInner" in stored
    without = ex.driving_signals(blendshapes, lm.mesh_lip_opening(points))
    assert without.names == ex.EXPRESSION_NAMES
    for i, name in enumerate(ex.EXPRESSION_NAMES[:-1]):
        np.testing.assert_allclose(without.expression_params[:, i], blendshapes[:, column(name)], rtol=1e-6)
    np.testing.assert_allclose(without.expression_params[:, -1], lm.mesh_lip_opening(points), rtol=1e-6)
    np.testing.assert_allclose(values.eyelid_params[:, 1], blendshapes[:, column("eyeBlinkRight")], rtol=1e-6)
    sideways = blendshapes[:, column("jawRight")] - blendshapes[:, column("jawLeft")]
    np.testing.assert_allclose(values.jaw_params[:, 1], sideways, rtol=1e-5)
    assert values.expression_params.dtype == values.jaw_params.dtype == values.eyelid_params.dtype == np.float32


@pytest.mark.parametrize("change", ["narrow", "nan", "short points", "nan points"])
def test_bad_values_are_refused(blendshapes: np.ndarray, points: np.ndarray, change: str) -> None:
    if change == "narrow":
        blendshapes = blendshapes[:, :51]
    elif change == "nan":
        blendshapes[3, 7] = np.nan
    elif change == "short points":
        points = points[:-1]
    else:
        points[2, 0, 0] = np.nan
    with pytest.raises(UserError):
        ex.expression(blendshapes, points)


def test_action_units_are_openfaces_columns_in_range(blendshapes: np.ndarray, points: np.ndarray) -> None:
    blendshapes[2, [column("eyeBlinkLeft"), column("eyeBlinkRight")]] = 1.0
    valid = np.array([1, 1, 1, 1, 0, 1], dtype=bool)
    table = ex.au_table(blendshapes, points, valid)
    assert list(table) == ["frame", "timestamp", "confidence", "success", *(f"AU{n}_r" for n in OPENFACE)]
    assert table["frame"].tolist() == [1, 2, 3, 4, 5, 6] and table["timestamp"][5] == pytest.approx(0.2)
    assert table["success"].tolist() == [1, 1, 1, 1, 0, 1]
    assert table["AU45_r"][2] == 5.0
    levels = np.stack([table[f"AU{n}_r"] for n in OPENFACE])
    assert levels.min() >= 0.0 and levels.max() <= 5.0
