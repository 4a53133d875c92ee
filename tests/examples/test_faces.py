"""The example faces: deterministic, factors as asked, broken files as asked; and the ruler that measures edits is true."""

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from broken_files import KINDS, spoil
from face_drawing import HAIR, STYLES, Factors, Nuisance, render_face
from face_measures import measure_glasses, measure_smile
from faces import BINARY, COLUMNS, Correlation, factors_of, write_faces
from schemas.errors import FailureCode

MANY = 300


@pytest.fixture(scope="module")
def faces() -> tuple[list[Factors], list[np.ndarray]]:
    """Random faces with every factor at work."""
    factors = [factors_of(i, seed=7) for i in range(MANY)]
    return factors, [render_face(f) for f in factors]


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image


def labels(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_face_is_its_factors() -> None:
    first = render_face(Factors(seed=3))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, render_face(Factors(seed=3)))
    assert (first != render_face(Factors(seed=4))).any()


@pytest.mark.parametrize(
    "change",
    [{"smile": -0.6}, {"glasses": True}, {"hair": "red"}, {"skin": 0.9}, {"turn": 20.0}, {"light": 0.8}, {"old": True}],
    ids=lambda c: next(iter(c)),
)
def test_every_factor_is_plain_to_see(change: dict[str, object]) -> None:
    for seed in range(8):
        before = render_face(Factors(seed=seed)).astype(int)
        after = render_face(Factors(seed=seed, **change)).astype(int)  # type: ignore[arg-type]
        changed = np.abs(after - before).max(axis=2) > 24
        assert changed.sum() >= 25, f"seed {seed}: {changed.sum()} pixels"


def test_a_factor_changes_its_own_place_only() -> None:
    for seed in range(8):
        still = render_face(Factors(seed=seed)).astype(int)
        smile = np.argwhere(np.abs(render_face(Factors(seed=seed, smile=-1)) - still).max(axis=2) > 8)
        glasses = np.argwhere(np.abs(render_face(Factors(seed=seed, glasses=True)) - still).max(axis=2) > 8)
        assert smile[:, 0].min() >= 40 and smile[:, 0].max() <= 54
        assert glasses[:, 0].min() >= 22 and glasses[:, 0].max() <= 40


def test_every_style_and_colour_occurs() -> None:
    factors = [factors_of(i) for i in range(200)]
    assert {f.hair for f in factors} == set(HAIR)
    assert {Nuisance.draw(f.seed).style for f in factors} == set(STYLES)
    assert {f.smile > 0 for f in factors} == {True, False} and min(abs(f.smile) for f in factors) >= 0.3


@pytest.mark.parametrize("sigma", [0, 0.8, 1.2])
def test_the_ruler_follows_the_smile(faces: tuple[list[Factors], list[np.ndarray]], sigma: float) -> None:
    factors, images = faces
    measured = np.array([measure_smile(blurred(image, sigma)) for image in images])
    smile = np.array([f.smile for f in factors])
    assert spearmanr(measured, smile).statistic >= 0.95
    for hard in ([abs(f.turn) > 10 for f in factors], [f.skin > 0.7 for f in factors], [f.old for f in factors]):
        assert spearmanr(measured[hard], smile[hard]).statistic >= 0.9


@pytest.mark.parametrize("seed", range(6))
def test_the_ruler_rises_along_a_strip(seed: int) -> None:
    strip = [render_face(Factors(seed=seed, smile=s, turn=4.0 * seed - 10)) for s in np.linspace(-1, 1, 9)]
    measured = [measure_smile(image) for image in strip]
    assert measured[0] < -2 and measured[-1] > 2
    assert spearmanr(measured, range(9)).statistic >= 0.9


@pytest.mark.parametrize("sigma", [0, 0.8, 1.2])
def test_the_ruler_sees_glasses(faces: tuple[list[Factors], list[np.ndarray]], sigma: float) -> None:
    factors, images = faces
    measured = np.array([measure_glasses(blurred(image, sigma)) for image in images])
    worn = np.array([f.glasses for f in factors])
    assert roc_auc_score(worn, measured) >= 0.99
    for hard in ([abs(f.turn) > 10 for f in factors], [f.skin > 0.7 for f in factors], [f.old for f in factors]):
        assert roc_auc_score(worn[hard], measured[hard]) >= 0.97


def test_the_ruler_sees_glasses_fade_in() -> None:
    for seed in range(6):
        bare = render_face(Factors(seed=seed)).astype(float)
        worn = render_face(Factors(seed=seed, glasses=True)).astype(float)
        measured = [measure_glasses((bare + t * (worn - bare)).astype(np.uint8)) for t in np.linspace(0, 1, 6)]
        assert measured == sorted(measured) and measured[-1] > measured[0] + 0.2


def test_the_two_rulers_do_not_see_each_other(faces: tuple[list[Factors], list[np.ndarray]]) -> None:
    factors, images = faces
    smile = np.array([measure_smile(i) for i in images])
    glasses = np.array([measure_glasses(i) for i in images])
    assert 0.4 <= roc_auc_score([f.glasses for f in factors], smile) <= 0.6
    assert 0.4 <= roc_auc_score([f.smile > 0 for f in factors], glasses) <= 0.6


def test_a_plain_picture_measures_nothing() -> None:
    flat = np.full((64, 64, 3), 180, np.uint8)
    assert np.isfinite(measure_smile(flat))
    assert measure_glasses(flat) == pytest.approx(0, abs=1e-6)


def phi(a: list[bool], b: list[bool]) -> float:
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("rho", [-1.0, -0.5, 0.0, 0.8, 1.0])
@pytest.mark.parametrize("pair", [("smiling", "glasses"), ("old", "smiling")])
def test_two_factors_are_correlated_as_asked(pair: tuple[str, str], rho: float) -> None:
    drawn = [factors_of(i, correlation=Correlation(*pair, rho)) for i in range(4000)]
    values = {
        "smiling": [f.smile > 0 for f in drawn],
        "glasses": [f.glasses for f in drawn],
        "old": [f.old for f in drawn],
    }
    margin = 4 * (1 - rho**2) / np.sqrt(len(drawn)) + 1e-9
    assert abs(phi(values[pair[0]], values[pair[1]]) - rho) <= margin
    (other,) = set(BINARY) - set(pair)
    assert abs(phi(values[other], values[pair[0]])) < 0.07
    assert all(abs(np.mean(v) - 0.5) < 0.04 for v in values.values())


@pytest.mark.parametrize(
    ("pair", "rho", "message"),
    [
        (("smiling", "hair"), 0.5, "choose two of"),
        (("old", "old"), 0.5, "choose two of"),
        (("old", "smiling"), 1.5, "does not"),
    ],
)
def test_a_correlation_that_makes_no_sense_is_refused(pair: tuple[str, str], rho: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Correlation(*pair, rho)


def test_a_folder_of_faces(tmp_path: Path) -> None:
    assert write_faces(tmp_path / "a", count=12) == {}
    write_faces(tmp_path / "b", count=20)
    rows = labels(tmp_path / "a")
    assert list(rows[0]) == list(COLUMNS)
    assert [r["id"] for r in rows] == sorted(p.name for p in (tmp_path / "a" / "images").iterdir())
    for row in rows:
        image = cv2.imread(str(tmp_path / "a" / "images" / row["id"]))
        assert image.shape == (64, 64, 3)
        factors = factors_of(int(row["id"].removesuffix(".jpg")))
        assert (row["smiling"], row["glasses"]) == (str(factors.smile > 0).lower(), str(factors.glasses).lower())
        assert np.abs(image[:, :, ::-1].astype(int) - render_face(factors)).mean() < 6  # JPEG at quality 92
        # A longer run begins with the same faces.
        assert (tmp_path / "b" / "images" / row["id"]).read_bytes() == (
            tmp_path / "a" / "images" / row["id"]
        ).read_bytes()
    assert rows == labels(tmp_path / "b")[:12]


def test_faces_that_are_there_are_left_alone(tmp_path: Path) -> None:
    write_faces(tmp_path, count=3)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "images").iterdir()}
    (tmp_path / "images" / "000001.jpg").write_bytes(b"spoilt")
    write_faces(tmp_path, count=4)
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "images").iterdir()}
    assert sorted(n for n in after if after[n] == before.get(n)) == ["000000.jpg", "000002.jpg"]


def test_one_file_in_three_can_be_broken(tmp_path: Path) -> None:
    broken = write_faces(tmp_path, count=45, broken_share=1 / 3)
    assert len(broken) == 15 and set(broken.values()) == set(KINDS)
    assert len(labels(tmp_path)) == 45
    for row in labels(tmp_path):
        data = (tmp_path / "images" / row["id"]).read_bytes()
        if row["id"] not in broken:
            assert data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9"
        else:
            assert data == b"" or data[-2:] != b"\xff\xd9"


def test_broken_files_are_named_as_the_failures_they_become() -> None:
    assert set(KINDS) <= {str(code) for code in FailureCode}
    assert all(len(spoil(b"\xff\xd8" + bytes(3000), kind)) < 3000 for kind in KINDS)


def test_the_command_line(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, str(root / "examples" / "faces.py"), "--out", str(tmp_path / "faces"), "--count", "10"]
    done = subprocess.run(
        [*command, "--correlate", "smiling", "glasses", "1", "--broken-share", "0.2"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "10 files" in done.stdout and "2 of them broken" in done.stdout
    assert all(row["smiling"] == row["glasses"] for row in labels(tmp_path / "faces"))
    wrong = subprocess.run([*command, "--correlate", "smiling", "glasses", "7"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "a correlation of 7.0 does not exist" in wrong.stderr
