"""Pictures to measure with: distinct, smooth and textured enough that JPEGs weigh what photographs do (about 15 kB at 256 px)."""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

FOLDER = Path("build/bench")


def picture(seed: int, size: int) -> np.ndarray:
    """One RGB picture: coarse colour fields, a few shapes, a little grain. The same for the same seed."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        center = tuple(int(v) for v in draw.integers(0, size, 2))
        colour = tuple(int(v) for v in draw.integers(0, 256, 3))
        cv2.circle(image, center, int(draw.integers(size // 16, size // 4)), colour, -1, cv2.LINE_AA)
    grain = draw.integers(0, 24, (size // 2, size // 2, 3), dtype=np.uint8)
    return cv2.add(image, cv2.resize(grain, (size, size), interpolation=cv2.INTER_LINEAR))


def jpegs(count: int, size: int) -> Path:
    """A folder of `count` JPEGs of `size` pixels, made once and kept: `build/bench/jpeg-<size>-<count>/000/000123.jpg`."""
    folder = FOLDER / f"jpeg-{size}-{count}"
    done = folder / ".done"
    if not done.exists():
        jobs = [(folder, start, min(start + 1000, count), size) for start in range(0, count, 1000)]
        with ProcessPoolExecutor() as pool:
            list(pool.map(_write, jobs))
        done.touch()
    return folder


def _write(job: tuple[Path, int, int, int]) -> None:
    folder, start, stop, size = job
    part = folder / f"{start // 1000:03d}"
    part.mkdir(parents=True, exist_ok=True)
    for i in range(start, stop):
        (part / f"{i:06d}.jpg").write_bytes(simplejpeg.encode_jpeg(picture(i, size), quality=88))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=256)
    asked = parser.parse_args()
    print(jpegs(asked.count, asked.size))
