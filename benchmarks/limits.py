"""What the cores can do at most: decoding alone and the model alone, both on all cores."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIZE, DECODED = 64, 20_000


@dataclass(frozen=True)
class Limit:
    """Images a second of decode alone and of the model alone, each on all cores."""

    decode: float
    model: float

    @property
    def rate(self) -> float:
        """What no pipeline on these cores can pass: every image is decoded and encoded once."""
        return 1 / (1 / self.decode + 1 / self.model)

    def with_(self, other: "Limit") -> "Limit":
        """The mean of two measurements, before and after a run: a shared machine is not the same machine all the time."""
        return Limit((self.decode + other.decode) / 2, (self.model + other.model) / 2)


def measured_limit(paths: list[Path], codec: Path, channels_last: bool) -> Limit:
    return Limit(decode_rate(paths[:DECODED]), model_rate(codec, channels_last))


def codec_data(codec: Path, channels_last: bool) -> dict[str, object]:
    return {"family": "conv_vae", "weights": str(codec), "channels_last": channels_last, "preprocess": {"size": SIZE}}


def decode_rate(paths: list[Path]) -> float:
    """Images a second that all cores together read and decode."""
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(_decode, [[p] for p in paths[:cores]]))  # workers are up
        started = time.perf_counter()
        list(pool.map(_decode, [paths[i::cores] for i in range(cores)]))
        return len(paths) / (time.perf_counter() - started)


def _decode(paths: list[Path]) -> None:
    import cv2

    from schemas.codec import Preprocess
    from stages.images import decode

    cv2.setNumThreads(1)
    preprocess = Preprocess(size=(SIZE, SIZE))
    for path in paths:
        decode(path.read_bytes(), preprocess=preprocess, max_pixels=10**8, max_bytes=10**8, uri=str(path))


def model_rate(codec: Path, channels_last: bool) -> float:
    """Images a second of the model alone: the better of one process with all threads and one process a core."""
    cores = os.cpu_count() or 1
    rates = []
    for processes in {1, cores}:
        with ProcessPoolExecutor(processes) as pool:
            asked = [(codec_data(codec, channels_last), cores // processes)] * processes
            rates.append(sum(pool.map(_encode, asked)))
    return max(rates)


def _encode(asked: tuple[dict[str, object], int]) -> float:
    import torch

    from benchmarks.codec import opened

    data, threads = asked
    torch.set_num_threads(threads)
    codec = opened(data)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (256, SIZE, SIZE, 3), dtype=np.uint8))
    for _ in range(3):
        codec.encode(pixels)
    started, batches = time.perf_counter(), 0
    while time.perf_counter() - started < 8:
        codec.encode(pixels)
        batches += 1
    return 256 * batches / (time.perf_counter() - started)
