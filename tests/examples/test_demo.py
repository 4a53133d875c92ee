"""The demo from end to end, as a user runs it; and that its edits do to the pictures what they say, measured in pixels."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from face_measures import measure_glasses, measure_smile
from stages.layout import gap_of
from tests import commands

SIDE = 64
STRENGTHS = (-1, 0, 1, 2, 3)

pytestmark = pytest.mark.slow


def latentmill(*arguments: str, folder: Path) -> Any:
    """Runs the command with --json and returns what it printed. What computes is a process, as on a user's machine; readers are not."""
    if arguments[0] not in ("demo", "run"):
        read = commands.latentmill(*arguments, "--json", cwd=folder)
        assert read.returncode == 0, read.stderr
        return json.loads(read.stdout)
    command = Path(sys.executable).with_name("latentmill")
    # As on a user's machine: every core works.
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [str(command), *arguments, "--json"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a whole demo, and its summary."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, latentmill("demo", folder=folder)


def strips(folder: Path, code_set: str) -> list[list[np.ndarray]]:
    """The pictures of every strip of a code set, read from the files that were rendered."""
    found = []
    for file in sorted((folder / "out/demo/renders/render" / code_set).glob("*.png")):
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        frames = [pixels[:, x : x + SIDE] for x in range(0, pixels.shape[1], SIDE + gap_of(SIDE, SIDE))]
        assert all(frame.shape == (SIDE, SIDE, 3) for frame in frames)
        found.append(frames)
    return found


def test_every_face_is_accounted_for(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = demo
    encode = summary["steps"]["encode"]
    assert (encode["listed"], encode["in_latents"], encode["in_failures"]) == (1500, 1495, 5)
    failures = latentmill("failures", "--store", "out/demo/store", folder=folder)
    kinds = {"truncated", "zero_bytes", "not_an_image", "corrupt", "too_large"}
    assert {f["error"] for f in failures} == kinds and len(failures) == 5


def test_the_smile_goes_up_along_the_smiling_strips(demo: tuple[Path, dict[str, Any]]) -> None:
    measured = np.array([[measure_smile(frame) for frame in strip] for strip in strips(demo[0], "smile")])
    assert measured.shape == (8, len(STRENGTHS))
    mean = measured.mean(axis=0)
    assert (np.diff(mean) > 0).all(), mean
    assert mean[1] < -0.5 and mean[-1] > 0.5, mean  # a frown became a smile
    assert (measured[:, -1] > measured[:, 0]).all()
    assert np.mean([spearmanr(row, STRENGTHS).statistic for row in measured]) >= 0.8


def test_an_edit_changes_both_at_once(demo: tuple[Path, dict[str, Any]]) -> None:
    frames = strips(demo[0], "cheered")
    smile = np.array([[measure_smile(frame) for frame in strip] for strip in frames])
    glasses = np.array([[measure_glasses(frame) for frame in strip] for strip in frames])
    assert smile.shape == (8, 3)
    assert (np.diff(smile.mean(axis=0)) > 0.5).all() and smile.mean(axis=0)[-1] > 0, smile.mean(axis=0)
    assert (np.diff(glasses.mean(axis=0)) < -0.05).all(), glasses.mean(axis=0)
    assert len(strips(demo[0], "invented")) == 24


def test_glasses_appear_along_the_glasses_strips(demo: tuple[Path, dict[str, Any]]) -> None:
    measured = np.array([[measure_glasses(frame) for frame in strip] for strip in strips(demo[0], "spectacles")])
    assert measured.shape == (8, len(STRENGTHS))
    mean = measured.mean(axis=0)
    assert (np.diff(mean[1:]) > 0).all(), mean
    assert mean[1] < 0.2 and mean[-1] > 0.3, mean
    assert (measured[:, -1] > measured[:, 1] + 0.1).all()
    assert np.mean([spearmanr(row, STRENGTHS).statistic for row in measured]) >= 0.8


def test_a_smile_brings_no_glasses_and_glasses_no_smile(demo: tuple[Path, dict[str, Any]]) -> None:
    glasses = np.array([[measure_glasses(f) for f in s] for s in strips(demo[0], "smile")])
    smile = np.array([[measure_smile(f) for f in s] for s in strips(demo[0], "spectacles")])
    wanted = np.array([[measure_glasses(f) for f in s] for s in strips(demo[0], "spectacles")])
    assert abs(glasses[:, -1] - glasses[:, 1]).mean() < 0.5 * abs(wanted[:, -1] - wanted[:, 1]).mean()
    assert abs((smile[:, -1] - smile[:, 1]).mean()) < 1.5


def test_paths_between_faces_are_smooth(demo: tuple[Path, dict[str, Any]]) -> None:
    for code_set in ("strangers", "neighbours"):
        paths = strips(demo[0], code_set)
        assert [len(p) for p in paths] == [9] * 6
        for path in paths:
            steps = [np.abs(b.astype(float) - a.astype(float)).mean() for a, b in itertools.pairwise(path)]
            assert max(steps) < 0.5 * np.abs(path[-1].astype(float) - path[0].astype(float)).mean() + 1


def test_the_report_shows_the_pictures(demo: tuple[Path, dict[str, Any]]) -> None:
    page = (demo[0] / "out/demo/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 20
    for words in ("smiling", "glasses", "truncated", "not an image"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_what_the_sliders_do_is_measured(demo: tuple[Path, dict[str, Any]], root: Path) -> None:
    """examples/faces_science.yaml on the demo's faces: every edit moves its own score, and hardly any other."""
    folder, _ = demo
    steps = latentmill("run", str(root / "examples" / "faces_science.yaml"), folder=folder)["steps"]
    assert steps["encode"]["encoded"] == 0 and steps["evaluate"]["pictures"] >= 128 * 6 * 4
    asked = ("measurements", "--store", "out/demo/store", "--where")
    effects = latentmill(*asked, "step = 'evaluate' AND metric = 'effect'", folder=folder)
    assert len(effects) == 6 * 3
    for row in effects:
        if row["subject"].split(".")[-1] == row["target"]:
            assert row["low"] > 0.4, row
        else:
            assert abs(row["value"]) < 0.3, row
    (share,) = latentmill(*asked, "metric = 'atypical_share'", folder=folder)
    assert share["status"] == "atypical" and share["value"] > share["threshold"]  # β is small: no N(0, I)
    odd = latentmill("query", "--store", "out/demo/store", "--order", "-anomaly", "-k", "5", folder=folder)["rows"]
    assert [row["anomaly"] for row in odd] == sorted((row["anomaly"] for row in odd), reverse=True)
    page = (folder / "out/demo/science.html").read_text(encoding="utf-8")
    for words in (
        "What each edit moves",
        "Data, model or scorer?",
        "How far codes lie from the origin",
        "Which direction does it best",
    ):
        assert words in page


def test_running_it_again_does_nothing_twice(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, first = demo
    again = latentmill("demo", folder=folder)
    assert again["run_id"] != first["run_id"]
    assert again["steps"]["train"]["trained"] == 0
    assert again["steps"]["encode"]["encoded"] == 0
    assert again["steps"]["encode"]["in_latents"] == 1495


def test_the_most_similar_faces_are_found(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    asked = ("query", "--store", "out/demo/store", "--image", "out/demo/faces/images/000007.jpg", "-k", "10")
    near = latentmill(*asked, folder=folder)["rows"]
    assert len(near) == 10 and near[0]["id"] == "000007.jpg" and near[0]["distance"] < 1e-3
    worn = latentmill(*asked, "--where", "labels.glasses = true", folder=folder)["rows"]
    assert len(worn) == 10 and all(row["labels"]["glasses"] for row in worn)
