"""What a second run costs when there is nothing to do, over 200,000 image files: the share of the first run's time."""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import lance
import yaml

from benchmarks.corpus import FOLDER
from benchmarks.encode import codec_data, make_codec
from benchmarks.results import Result, report


def small_jpegs(count: int) -> Path:
    """`count` JPEG files of 64 px: 1,000 distinct pictures under `count` names, hard links where the disk has them."""
    from benchmarks.corpus import jpegs

    folder = FOLDER / f"linked-{count}"
    if (folder / ".done").exists():
        return folder
    originals = sorted(jpegs(1000, 64).rglob("*.jpg"))
    for i in range(count):
        path = folder / f"{i // 1000:04d}" / f"{i:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.hardlink_to(originals[i % 1000])
    (folder / ".done").touch()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    asked = parser.parse_args()
    scratch = FOLDER / "resume"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    codec = FOLDER / "codec-64-128"
    make_codec(codec)
    job = {
        "dataset": "bench",
        "store": str(scratch / "store"),
        "source": {"images": f"{small_jpegs(asked.count)}/**/*.jpg"},
        "codec": codec_data(codec, channels_last=True),
        "steps": [{"stage": "encode", "store_logvar": False}],
        "executor": {"kind": "ray"},
    }
    path = scratch / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "pipeline", "run", str(path)], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
        table = lance.dataset(str(next((scratch / "store").glob("bench.latents.*.lance"))))
        assert table.count_rows() == asked.count, "rows are missing or doubled"
    first, again = times[0], min(times[1:])
    report(
        "resume",
        f"A second run with nothing to do over {asked.count:,} images",
        [
            Result("second run ÷ first run, %", 100 * again / first, "<=", 3.0, f"{again:.2f} s after {first:,.0f} s"),
        ],
    )


if __name__ == "__main__":
    main()
