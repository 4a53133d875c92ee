"""A torch DataLoader loop that ends with the same table, tuned: decoding in workers, whole batches, Lance fragments of ours.

Batches of 256 are decoded whole in a worker, so that one tensor crosses the process border and not 256. How many workers
and how many torch threads is tried out by the benchmark, which takes the best.
"""

import json
import sys
import time
from pathlib import Path

import cv2
import lance
import numpy as np
import pyarrow as pa
import torch
import xxhash
from lance.fragment import write_fragments
from torch.utils.data import DataLoader, Dataset

from benchmarks.codec import opened
from schemas.codec import Preprocess
from stages.images import decode

BATCH, COMMIT_SECONDS = 256, 5.0


class Batches(Dataset):
    """Item i is batch i: ids, versions, hashes, sizes and pixels."""

    def __init__(self, folder: Path, paths: list[str], size: int) -> None:
        self._folder, self._paths, self._preprocess = folder, paths, Preprocess(size=(size, size))

    def __len__(self) -> int:
        return -(-len(self._paths) // BATCH)

    def __getitem__(self, i: int):
        paths = self._paths[i * BATCH : (i + 1) * BATCH]
        pixels = np.empty((len(paths), *self._preprocess.size, 3), np.uint8)
        facts = []
        for row, path in enumerate(paths):
            file = self._folder / path
            data = file.read_bytes()
            stat = file.stat()
            found = decode(data, preprocess=self._preprocess, max_pixels=10**8, max_bytes=10**8, uri=path)
            pixels[row] = found.pixels
            facts.append(
                (f"{stat.st_size}-{stat.st_mtime_ns}", xxhash.xxh3_128_hexdigest(data), found.width, found.height)
            )
        return paths, facts, torch.from_numpy(pixels)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def main() -> None:
    asked = json.loads(sys.argv[1])
    folder, table, size = Path(asked["images"]), asked["table"], asked["codec"]["preprocess"]["size"]
    paths = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.jpg"))[: asked["count"]]
    torch.set_num_threads(asked["threads"])
    codec = opened(asked["codec"])
    dim = codec.latent.dim
    schema = pa.schema(
        [("id", pa.string()), ("uri", pa.string()), ("source_version", pa.string()), ("content_hash", pa.string()),
         ("latent", pa.list_(pa.float32(), dim)), ("width", pa.int32()), ("height", pa.int32())]
    )  # fmt: skip
    dataset = lance.write_dataset(schema.empty_table(), table, enable_stable_row_ids=True)
    loader = DataLoader(
        Batches(folder, paths, size),
        batch_size=None,
        num_workers=asked["workers"],
        prefetch_factor=4,
        worker_init_fn=_start_worker,
    )
    waiting: list[pa.RecordBatch] = []
    last = -float("inf")
    for ids, facts, pixels in loader:
        latents = codec.encode(pixels).mean.numpy()
        versions, hashes, widths, heights = zip(*facts, strict=True)
        latent = pa.FixedSizeListArray.from_arrays(pa.array(latents.reshape(-1)), dim)
        uris = [str(folder / i) for i in ids]
        columns = [ids, uris, versions, hashes, latent, widths, heights]
        waiting.append(
            pa.RecordBatch.from_arrays(
                [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
            )
        )
        if time.monotonic() - last >= COMMIT_SECONDS:
            dataset, waiting, last = _commit(dataset, table, schema, waiting), [], time.monotonic()
    _commit(dataset, table, schema, waiting)


def _commit(
    dataset: lance.LanceDataset, table: str, schema: pa.Schema, batches: list[pa.RecordBatch]
) -> lance.LanceDataset:
    if not batches:
        return dataset
    fragments = write_fragments(pa.Table.from_batches(batches), table, schema=schema)
    return lance.LanceDataset.commit(table, lance.LanceOperation.Append(fragments), read_version=dataset.version)


if __name__ == "__main__":
    main()
