"""Small real jobs for tests: a folder of distinct pictures with labels, and job data that reads it."""

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from pipeline.store.store import Store

LABELS = ("bright", "round", "shade")


def picture(index: int, size: int = 24) -> np.ndarray:
    """A picture with known factors: bright or dark ground, a disc or a square, and a shade; RGB."""
    rng = np.random.default_rng(index)
    bright, disc = factors(index)
    image = np.full((size, size, 3), 190 if bright else 60, np.uint8)
    image += rng.integers(0, 30, (size, size, 3), dtype=np.uint8)
    colour = tuple(int(v) for v in rng.integers(0, 256, 3))
    if disc:
        cv2.circle(image, (size // 2, size // 2), size // 4, colour, -1)
    else:
        cv2.rectangle(image, (size // 4, size // 4), (3 * size // 4, 3 * size // 4), colour, -1)
    return image


def factors(index: int) -> tuple[bool, bool]:
    rng = np.random.default_rng(index + 10**6)
    return bool(rng.random() < 0.5), bool(rng.random() < 0.5)


def image_id(index: int) -> str:
    return f"{index % 7}/{index:06d}.png"


def make_images(folder: Path, count: int, *, start: int = 0, size: int = 24) -> Path:
    """Writes pictures `start` to `start + count` below `folder/images`, and the labels of all of them."""
    for i in range(start, start + count):
        path = folder / "images" / image_id(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        ok, data = cv2.imencode(".png", picture(i, size)[..., ::-1])
        assert ok
        path.write_bytes(data.tobytes())
    with (folder / "labels.csv").open("a", newline="") as file:
        rows = csv.writer(file)
        if not start:
            rows.writerow(["id", *LABELS])
        for i in range(start, start + count):
            bright, disc = factors(i)
            rows.writerow([image_id(i), str(bright).lower(), str(disc).lower(), i % 5 / 5])
    return folder


def spoil(folder: Path, every: int) -> int:
    """Breaks one picture in `every`, in three different ways; returns how many."""
    paths = sorted((folder / "images").rglob("*.png"))[::every]
    for i, path in enumerate(paths):
        data = path.read_bytes()
        path.write_bytes([b"", b"this is text", data[: len(data) // 2]][i % 3])
    return len(paths)


def job_data(folder: Path, store: Path | str, **changes: Any) -> dict[str, Any]:
    """An encode job over `make_images` pictures with the exact codec, on the local executor."""
    return {
        "dataset": "shapes",
        "store": str(store),
        "source": {"images": f"{folder}/images/**/*.png", "labels": f"{folder}/labels.csv"},
        "codec": {"family": "linear", "dim": 8, "preprocess": {"size": 16}},
        "steps": [{"stage": "encode", "batch_size": 16}],
        "executor": {"kind": "local"},
    } | changes


def rows_of(store: Path | str, kind: str = "latents") -> pa.Table:
    """All rows of the dataset's latents or failures table on disk, sorted by id; an empty table when there is none."""
    names = [p.name.removesuffix(".lance") for p in Path(store).glob(f"*.{kind}.*.lance")]
    assert len(names) <= 1, names
    if not names:
        return pa.table({"id": pa.array([], pa.string())})
    table = Store.open(str(store)).table(names[0])
    return pa.Table.from_batches(table.scan(), table.schema).sort_by("id")
