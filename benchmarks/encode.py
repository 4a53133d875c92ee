"""Encode 50,000 JPEGs of 256 px → 64 px → 128-d on this machine's cores, fp32: Latentmill against what one would write oneself.

Every contender ends with the same Lance table. Rates are read off the tables' own history (time and rows of each
commit), the same way for all: *steady* is from the first commit to the last. One run prints everything as ratios, medians over three rounds.

    latentmill   `latentmill run` on a private Ray
    dataloader   a torch DataLoader loop, tuned: worker processes decode with our decoder, one process encodes and writes
    plain ray    `read_images` → `map_batches` → append, on fewer images (it is slow)
    limits       decode alone and the model alone on all cores; together they bound what any pipeline can do here
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np
import yaml

from benchmarks.corpus import FOLDER, jpegs
from benchmarks.limits import SIZE, Limit, codec_data, measured_limit
from benchmarks.results import Result, report

DIM, PLAIN_IMAGES, ROUNDS = 128, 8000, 3
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


@dataclass(frozen=True)
class Round:
    """One run of ours, of the DataLoader loop, and the limit measured right before and right after ours."""

    ours: History
    loop: History
    limit: Limit


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
    channels_last = not asked.contiguous
    settings = tuned(images, codec, scratch, channels_last)
    rounds: list[Round] = []
    limit = measured_limit(paths, codec, channels_last)
    for _ in range(ROUNDS):
        for table in ("store", "loop.lance"):
            shutil.rmtree(scratch / table, ignore_errors=True)
        mine = ours(images, codec, scratch / "store", channels_last)
        after = measured_limit(paths, codec, channels_last)
        loop = peer("dataloader", images, codec, scratch / "loop.lance", channels_last, asked.count, **settings)
        rounds.append(Round(mine, loop, limit.with_(after)))
        limit = after
    plain = peer("plain_ray", images, codec, scratch / "plain.lance", channels_last, min(PLAIN_IMAGES, asked.count))
    difference = same_latents(next((scratch / "store").glob("bench.latents.*.lance")), scratch / "loop.lance")
    assert difference < 1e-3, f"latents differ by {difference}"
    report(
        "encode",
        f"Encode {asked.count:,} JPEGs, 256 px → {SIZE} px → {DIM}-d, fp32",
        _figures(rounds, plain, settings, difference),
    )


def _figures(rounds: list[Round], plain: History, settings: dict[str, int], difference: float) -> list[Result]:
    """Medians over the rounds; every ratio is taken within its round, where both sides had the same neighbours."""

    def median(figure: Callable[[Round], float]) -> float:
        return statistics.median(figure(r) for r in rounds)

    def spread(figure: Callable[[Round], float]) -> str:
        return "rounds " + ", ".join(f"{figure(r):.3g}" for r in rounds)

    def ratio(name: str, figure: Callable[[Round], float], goal: float | None, detail: str) -> Result:
        return Result(name, median(figure), ">=" if goal else None, goal, f"{spread(figure)}; {detail}")

    steady, whole = median(lambda r: r.ours.steady), median(lambda r: r.ours.whole)
    limits = [median(lambda r, n=name: getattr(r.limit, n)) for name in ("decode", "model", "rate")]  # type: ignore[misc]
    return [
        ratio(
            "steady rate ÷ tuned DataLoader loop",
            lambda r: r.ours.steady / r.loop.steady,
            1.0,
            f"{steady:,.0f}/s against {median(lambda r: r.loop.steady):,.0f}/s "
            f"with {settings['workers']} workers, {settings['threads']} threads",
        ),
        ratio(
            "steady rate ÷ plain Ray script",
            lambda r: r.ours.steady / plain.steady,
            2.0,
            f"{plain.steady:,.0f}/s over {PLAIN_IMAGES:,} images",
        ),
        ratio(
            "steady rate ÷ limit of the cores",
            lambda r: r.ours.steady / r.limit.rate,
            0.85,
            "decode {:,.0f}/s, model {:,.0f}/s, limit {:,.0f}/s".format(*limits),
        ),
        Result(
            "first commit after the command, s",
            median(lambda r: r.ours.first),
            "<=",
            15.0,
            f"{spread(lambda r: r.ours.first)}; DataLoader loop {median(lambda r: r.loop.first):.1f} s, plain Ray {plain.first:.1f} s",
        ),
        ratio(
            "whole run ÷ DataLoader loop's whole run",
            lambda r: r.ours.whole / r.loop.whole,
            None,
            f"{whole:,.0f}/s against {median(lambda r: r.loop.whole):,.0f}/s",
        ),
        ratio(
            "whole run ÷ plain Ray script's whole run",
            lambda r: r.ours.whole / plain.whole,
            None,
            f"{plain.whole:,.0f}/s",
        ),
        Result(
            "largest difference of a latent", difference, "<=", 1e-3, "Latentmill against the DataLoader loop, all rows"
        ),
    ]


if __name__ == "__main__":
    main()
