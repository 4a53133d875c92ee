"""Encode 50,000 JPEGs of 256 px → 64 px → 128-d on this machine's cores, fp32: Latentmill against what one would write oneself.

Every contender ends with the same Lance table. Rates are read off the tables' own history (time and rows of each
commit), the same way for all: *steady* is from the first commit to the last. One run prints everything as ratios.

    latentmill   `latentmill run` on a private Ray
    dataloader   a torch DataLoader loop, tuned: worker processes decode with our decoder, one process encodes and writes
    plain ray    `read_images` → `map_batches` → append, on fewer images (it is slow)
    limits       decode alone and the model alone on all cores; together they bound what any pipeline can do here
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np
import yaml

from benchmarks.corpus import FOLDER, jpegs
from benchmarks.results import Result, report

SIZE, DIM, PLAIN_IMAGES = 64, 128, 8000
HERE = Path(__file__).parent


@dataclass(frozen=True)
class History:
    """Commits of a table: seconds since the command started, and rows then."""

    seconds: list[float]
    rows: list[int]

    @property
    def first(self) -> float:
        return self.seconds[0]

    @property
    def steady(self) -> float:
        """Rows a second after the first commit."""
        return (self.rows[-1] - self.rows[0]) / (self.seconds[-1] - self.seconds[0])

    @property
    def whole(self) -> float:
        """Rows a second from the command's start to the last commit."""
        return self.rows[-1] / self.seconds[-1]


def history(table: Path, started: float) -> History:
    versions = lance.dataset(str(table)).versions()
    commits = [(v["timestamp"].timestamp() - started, int(v["metadata"]["total_rows"])) for v in versions]
    grown = [c for i, c in enumerate(commits) if c[1] > (commits[i - 1][1] if i else 0)]
    return History([s for s, _ in grown], [r for _, r in grown])


def make_codec(folder: Path) -> None:
    """Weights of an untrained encoder: speed does not depend on their values."""
    from benchmarks.codec import untrained

    if not (folder / "config.json").exists():
        untrained(folder, size=SIZE, dim=DIM)


def ours(images: Path, codec: Path, out: Path, channels_last: bool) -> History:
    job = {
        "dataset": "bench",
        "store": str(out),
        "source": {"images": f"{images}/**/*.jpg"},
        "codec": codec_data(codec, channels_last),
        "steps": [{"stage": "encode", "store_logvar": False, "commit_seconds": 5}],
        "executor": {"kind": "ray"},
    }
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(job))
    started = time.time()
    subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(path), "--json"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return history(next(out.glob("bench.latents.*.lance")), started)


def peer(name: str, images: Path, codec: Path, out: Path, channels_last: bool, count: int, **settings: int) -> History:
    """A contender that is a program of its own under benchmarks/peers."""
    asked = {
        **settings,
        "images": str(images),
        "codec": codec_data(codec, channels_last),
        "table": str(out),
        "count": count,
    }
    started = time.time()
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.peers.{name}", json.dumps(asked)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return history(out, started)


def tuned(images: Path, codec: Path, scratch: Path, channels_last: bool) -> dict[str, int]:
    """The best of some settings of the DataLoader loop, by its whole run over 6,000 images."""
    rates = {}
    for workers, threads in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1)):
        table = scratch / f"try-{workers}-{threads}.lance"
        settings = {"workers": workers, "threads": threads}
        rates[workers, threads] = peer("dataloader", images, codec, table, channels_last, 6000, **settings).whole
    workers, threads = max(rates, key=lambda key: rates[key])
    return {"workers": workers, "threads": threads}


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


def same_latents(a: Path, b: Path) -> float:
    """The largest difference between two tables' latents, row by row; raises when their ids differ."""
    tables = [lance.dataset(str(t)).to_table(columns=["id", "latent"]).sort_by("id") for t in (a, b)]
    ids = [t.column("id").to_pylist() for t in tables]
    assert ids[0] == ids[1] and len(set(ids[0])) == len(ids[0]), "the tables hold different images"
    values = [t.column("latent").combine_chunks().flatten().to_numpy() for t in tables]
    return float(np.abs(values[0] - values[1]).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--contiguous", action="store_true", help="NCHW memory inside the model, not channels_last")
    asked = parser.parse_args()
    images = jpegs(asked.count, 256)
    scratch = FOLDER / "encode"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    codec = FOLDER / "codec-64-128"
    make_codec(codec)
    paths = sorted(images.rglob("*.jpg"))
    decode, model = decode_rate(paths[:10_000]), model_rate(codec, not asked.contiguous)
    limit = 1 / (1 / decode + 1 / model)
    mine = ours(images, codec, scratch / "store", not asked.contiguous)
    settings = tuned(images, codec, scratch, not asked.contiguous)
    loop = peer("dataloader", images, codec, scratch / "loop.lance", not asked.contiguous, asked.count, **settings)
    plain = peer(
        "plain_ray", images, codec, scratch / "plain.lance", not asked.contiguous, min(PLAIN_IMAGES, asked.count)
    )
    difference = same_latents(next((scratch / "store").glob("bench.latents.*.lance")), scratch / "loop.lance")
    assert difference < 1e-3, f"latents differ by {difference}"
    report(
        "encode",
        f"Encode {asked.count:,} JPEGs, 256 px → {SIZE} px → {DIM}-d, fp32",
        [
            Result(
                "steady rate ÷ tuned DataLoader loop",
                mine.steady / loop.steady,
                ">=",
                1.0,
                f"{mine.steady:,.0f}/s against {loop.steady:,.0f}/s with {settings['workers']} workers, {settings['threads']} threads",
            ),
            Result(
                "steady rate ÷ plain Ray script",
                mine.steady / plain.steady,
                ">=",
                2.0,
                f"{plain.steady:,.0f}/s over {PLAIN_IMAGES:,} images",
            ),
            Result(
                "steady rate ÷ limit of the cores",
                mine.steady / limit,
                ">=",
                0.85,
                f"decode {decode:,.0f}/s, model {model:,.0f}/s, limit {limit:,.0f}/s",
            ),
            Result(
                "first commit after the command, s",
                mine.first,
                "<=",
                15.0,
                f"DataLoader loop {loop.first:.1f} s, plain Ray {plain.first:.1f} s",
            ),
            Result(
                "whole run ÷ DataLoader loop's whole run",
                mine.whole / loop.whole,
                None,
                None,
                f"{mine.whole:,.0f}/s against {loop.whole:,.0f}/s",
            ),
            Result(
                "whole run ÷ plain Ray script's whole run",
                mine.whole / plain.whole,
                None,
                None,
                f"{plain.whole:,.0f}/s",
            ),
            Result(
                "largest difference of a latent",
                difference,
                "<=",
                1e-3,
                "Latentmill against the DataLoader loop, all rows",
            ),
        ],
    )


if __name__ == "__main__":
    main()
