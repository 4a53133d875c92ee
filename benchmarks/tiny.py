"""Very small pictures in Parquet, for benchmarks about rows and not about pixels."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.corpus import FOLDER

ROWS_PER_FILE = 50_000
SIDE = 8


def bmp(colour: np.ndarray) -> bytes:
    """An 8×8 BMP of one colour: 54 bytes of header and 192 of pixels, quicker to make and to read than any PNG."""
    from io import BytesIO

    out = BytesIO()
    Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in colour)).save(out, "BMP")
    return out.getvalue()


def tiny_parquet(count: int) -> Path:
    """`count` pictures in Parquet files of 50,000, each row with an id; made once and kept."""
    folder = FOLDER / f"tiny-{count}"
    if (folder / ".done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(0).integers(0, 256, (1000, 3))
    pictures = [bmp(c) for c in colours]
    for start in range(0, count, ROWS_PER_FILE):
        rows = range(start, min(start + ROWS_PER_FILE, count))
        table = pa.table({"id": [f"tiny/{i:09d}" for i in rows], "image": [pictures[i % 1000] for i in rows]})
        pq.write_table(table, folder / f"{start // ROWS_PER_FILE:05d}.parquet", row_group_size=10_000)
    (folder / ".done").touch()
    return folder
