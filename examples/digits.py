"""Writes scikit-learn's 1,797 real handwritten digits (8×8, 16 grey levels) as PNG files with a labels file.

    python examples/digits.py --out out/digits

Writes `<out>/images/<number>.png` (32×32 grey, enlarged smoothly, white on black) and `<out>/labels.csv` with `digit`
(a name written as a number: declare it `category`), `even`, `looped` (0, 6, 8 and 9 close a loop) and `ink` (mean brightness of the original, 0 to 1).
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIDE = 32
COLUMNS = ("id", "digit", "even", "looped", "ink")


def write_digits(out: Path, *, count: int | None = None) -> int:
    """Writes the first `count` digits (default: all 1,797) below `out`; returns how many there are."""
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    bunch = load_digits()
    pictures, digits = bunch.images[:count], bunch.target[:count]
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for index, (picture, digit) in enumerate(zip(pictures, digits, strict=True)):
            name = f"{index:04d}.png"
            _enlarged(picture).save(images / name)
            even, looped = digit % 2 == 0, digit in (0, 6, 8, 9)
            table.writerow((name, digit, _word(even), _word(looped), round(float(picture.mean()) / 16, 4)))
    return len(pictures)


def _enlarged(picture: np.ndarray) -> Image.Image:
    """(8, 8) values 0 … 16 as a 32×32 8-bit grey picture."""
    grey = np.clip(picture * (255 / 16) + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _word(value: bool) -> str:
    return "true" if value else "false"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write scikit-learn's handwritten digits as PNG files with labels.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, default=None, help="the first so many; default: all 1,797")
    args = parser.parse_args()
    written = write_digits(args.out, count=args.count)
    print(f"{written} files in {args.out / 'images'}; labels in {args.out / 'labels.csv'}")


if __name__ == "__main__":
    main()
