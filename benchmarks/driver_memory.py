"""How much the driver's memory grows when a run has ten times the rows: 100,000 against 1,000,000, on Ray.

The driver is this benchmark's own child, and its peak resident memory is what the operating system counted at its end.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import lance
import yaml

from benchmarks.corpus import FOLDER
from benchmarks.results import Result, report
from benchmarks.tiny import SIDE, tiny_parquet

DRIVER = """
import json, resource, sys, threading, time
sys.argv = ["latentmill", "run", sys.argv[1], "--json"]
from pipeline.cli import app, run_command
code = run_command(app)
print(json.dumps({"code": code, "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def peak(count: int, scratch: Path) -> tuple[float, int]:
    """Peak resident memory of a driver in MB, and the rows of the table it made."""
    store = scratch / f"store-{count}"
    job = {
        "dataset": "tiny",
        "store": str(store),
        "source": {"kind": "parquet", "images": f"{tiny_parquet(count)}/*.parquet", "id_column": "id"},
        "codec": {"family": "linear", "dim": 8, "preprocess": {"size": SIDE}},
        "steps": [{"stage": "encode", "batch_size": 1024}],
        "executor": {"kind": "ray"},
    }
    path = scratch / f"job-{count}.yaml"
    path.write_text(yaml.safe_dump(job))
    done = subprocess.run([sys.executable, "-c", DRIVER, str(path)], check=True, capture_output=True, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["code"] == 0, done.stderr[-2000:]
    rows = lance.dataset(str(next(store.glob("tiny.latents.*.lance")))).count_rows()
    return told["peak_kb"] / 1000, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    asked = parser.parse_args()
    scratch = FOLDER / "driver-memory"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    few, rows_few = peak(asked.few, scratch)
    many, rows_many = peak(asked.many, scratch)
    assert (rows_few, rows_many) == (asked.few, asked.many), "rows are missing"
    report(
        "driver_memory",
        f"Driver memory from {asked.few:,} to {asked.many:,} rows",
        [
            Result("growth of the driver's peak, MB", many - few, "<=", 100, f"{few:,.0f} MB, then {many:,.0f} MB"),
            Result("bytes a further row", (many - few) * 1e6 / (asked.many - asked.few), None, None),
        ],
    )


if __name__ == "__main__":
    main()
