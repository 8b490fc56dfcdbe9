import csv
from pathlib import Path

import numpy as np
import pytest

from degstalk_ns.dataparsers.writing import write_action_units, write_face_model, write_lms
from degstalk_ns.errors import UserError
from degstalk_ns.landmarks import blendshapes as ex
from degstalk_ns.landmarks import mesh478 as lm

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
    for i, name in enumerate(ex.EXPRESSION_NAMES[:-1]):
        np.testing.assert_allclose(values.expression_params[:, i], blendshapes[:, column(name)], rtol=1e-6)
    np.testing.assert_allclose(values.expression_params[:, -1], lm.mouth_opening(points), rtol=1e-6)
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


def test_action_units_are_openfaces_columns_in_range(
    blendshapes: np.ndarray, points: np.ndarray, tmp_path: Path
) -> None:
    blendshapes[2, [column("eyeBlinkLeft"), column("eyeBlinkRight")]] = 1.0
    valid = np.array([1, 1, 1, 1, 0, 1], dtype=bool)
    table = ex.au_table(blendshapes, points, valid)
    write_action_units(tmp_path / "au.csv", table)
    with (tmp_path / "au.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["frame", "timestamp", "confidence", "success", *(f"AU{n}_r" for n in OPENFACE)]
    assert len(rows) == 6 and rows[0]["frame"] == "1" and float(rows[5]["timestamp"]) == pytest.approx(0.2)
    assert [row["success"] for row in rows] == ["1", "1", "1", "1", "0", "1"]
    assert float(rows[2]["AU45_r"]) == 5.0
    levels = np.array([[float(row[f"AU{n}_r"]) for n in OPENFACE] for row in rows])
    assert levels.min() >= 0.0 and levels.max() <= 5.0


def test_files_are_written_whole(blendshapes: np.ndarray, points: np.ndarray, tmp_path: Path) -> None:
    values = ex.expression(blendshapes, points)
    write_face_model(tmp_path / "3dmm.npz", values)
    with np.load(tmp_path / "3dmm.npz") as stored:
        np.testing.assert_array_equal(stored["expression_params"], values.expression_params)
        assert stored["expression_names"].tolist() == list(ex.EXPRESSION_NAMES)
        assert stored["jaw_params"].shape == (6, 3) and stored["eyelid_params"].shape == (6, 2)
    write_lms(tmp_path / "0.lms", points[0])
    np.testing.assert_allclose(np.loadtxt(tmp_path / "0.lms"), lm.to_68(points[0]), atol=0.006)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.lms", "3dmm.npz"], "no temporary file is left"


def test_a_failed_write_leaves_the_old_file(
    points: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0.lms"
    path.write_text("old")
    points[0, lm.TO_68[5], 0] = np.nan
    with pytest.raises(UserError, match=r"0\.lms"):
        write_lms(path, points[0])

    def full_disk(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError):
        write_lms(path, points[1])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
