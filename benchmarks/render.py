"""Traverse + render on Ray against what the cores can do: the codec's decoding alone and PNG encoding alone.

A strip of five frames a latent. The steady rate is read off the run's own progress: from the first finished split to the
last. The pictures are checked: as many as there should be, and some decoded anew and compared.
"""

import argparse
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from benchmarks.corpus import FOLDER, jpegs
from benchmarks.encode import SIZE, codec_data, make_codec
from benchmarks.results import Result, report
from pipeline.executors.ray import RayExecutor
from pipeline.run import run_job
from schemas.events import Event, Progress
from schemas.executor import RayExecutor as RaySpec
from schemas.job import parse_job
from stages.layout import strip
from stages.pictures import encode

FRAMES = 5
SECONDS = 8.0


def decode_rate(codec: Path) -> float:
    """Pictures a second the codec decodes on all cores, one process a core."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(_decode, [str(codec)] * (os.cpu_count() or 1)))


def _decode(codec: str) -> float:
    import torch

    from benchmarks.codec import opened

    torch.set_num_threads(1)
    made = opened(codec_data(Path(codec), channels_last=True))
    latents = torch.randn(256, made.latent.dim)
    made.decode(latents)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        made.decode(latents)
        count += 256
    return count / (time.perf_counter() - started)


def encode_rate(frames: np.ndarray) -> float:
    """Frames a second that are laid out in strips and encoded as PNG on all cores."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(_encode, [frames] * (os.cpu_count() or 1)))


def _encode(frames: np.ndarray) -> float:
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        for i in range(0, len(frames) - FRAMES + 1, FRAMES):
            encode(strip(list(frames[i : i + FRAMES]), (SIZE, SIZE)), "png")
            count += FRAMES
    return count / (time.perf_counter() - started)


class Rate:
    """Takes a run's events and remembers when codes of the render step were computed."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.step == "render":
            self.points.append((time.perf_counter(), event.computed))

    @property
    def steady(self) -> float:
        (t0, n0), (t1, n1) = self.points[0], self.points[-1]
        return (n1 - n0) / (t1 - t0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    asked = parser.parse_args()
    scratch = FOLDER / "render"
    shutil.rmtree(scratch, ignore_errors=True)
    codec = FOLDER / "codec-64-128"
    make_codec(codec)
    rate = Rate()
    steps = [
        {"stage": "encode", "store_logvar": False},
        {"stage": "traverse", "coordinates": [0], "strengths": [-2, -1, 0, 1, 2], "unit": "sigma"},
        {"stage": "render", "to": str(scratch / "renders"), "layout": "strip", "format": "png"},
    ]
    source = {"images": f"{jpegs(asked.count, 64)}/**/*.jpg"}
    data = {"dataset": "bench", "store": str(scratch / "store"), "source": source, "steps": steps}
    job = parse_job({**data, "codec": codec_data(codec, channels_last=True)})
    executor = RayExecutor(RaySpec())
    result = run_job(job, report=rate, executor=executor)
    executor.close()
    files = sorted((scratch / "renders").rglob("*.png"))
    assert len(files) == asked.count and result.steps["render"]["failed"] == 0, "strips are missing"
    pictures = np.stack([cv2.imread(str(f)) for f in files[:200]])
    assert pictures.shape[2] > FRAMES * SIZE and len({p.tobytes() for p in pictures}) > 100, (
        "strips are not what was asked"
    )
    frames = pictures[:, :SIZE, :SIZE, ::-1].copy()
    decode, write = decode_rate(codec), encode_rate(frames)
    limit = 1 / (1 / decode + 1 / write)
    report(
        "render",
        f"Traverse + render {asked.count:,} strips of {FRAMES} frames, {SIZE} px, PNG",
        [
            Result(
                "steady rate ÷ limit of the cores", rate.steady / limit, ">=", 0.85,
                f"{rate.steady:,.0f} frames/s; decode {decode:,.0f}/s, strips and PNG {write:,.0f}/s, limit {limit:,.0f}/s",
            ),
            Result("render step, s", result.steps["render"]["seconds"], None, None, "with the start of the actors"),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
