"""The example digits: scikit-learn's pictures, enlarged, none lost, labels true."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from digits import COLUMNS, write_digits


def test_a_folder_of_digits(tmp_path: Path) -> None:
    assert write_digits(tmp_path, count=60) == 60
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    bunch = load_digits()
    assert tuple(rows[0]) == COLUMNS and len(rows) == 60
    for index, row in enumerate(rows):
        with Image.open(tmp_path / "images" / row["id"]) as image:
            assert image.size == (32, 32) and image.mode == "L" and image.format == "PNG"
            reduced = np.asarray(image.resize((8, 8), Image.Resampling.BOX), float) / 255 * 16
        assert np.abs(reduced - bunch.images[index]).mean() < 1.0
        assert int(row["digit"]) == bunch.target[index]
        assert row["even"] == str(bunch.target[index] % 2 == 0).lower()
        assert row["looped"] == str(bunch.target[index] in (0, 6, 8, 9)).lower()
        assert float(row["ink"]) == round(float(bunch.images[index].mean()) / 16, 4)


def test_the_command_writes_all_of_them(tmp_path: Path, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(root / "examples" / "digits.py"), "--out", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1797 files")
    assert len(list((tmp_path / "images").iterdir())) == 1797
