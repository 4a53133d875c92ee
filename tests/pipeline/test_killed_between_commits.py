"""SIGKILL between two commits that belong together: readers see the state before, and the same command makes it whole.

The driver is a process of its own that is held still at the moment in question, and killed there.
"""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import cv2
import pytest
from store_rows import child, line

from pipeline.executors.local import LocalExecutor
from pipeline.readers import list_runs
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from tests.jobs import image_id, job_data, make_images, picture, rows_of

pytestmark = pytest.mark.fault

STEPS = [{"stage": "encode", "batch_size": 4, "commit_rows": 8}]
DRIVER = """
import json, sys, time
from pathlib import Path
from pipeline.context import Context
from pipeline.executors.local import LocalExecutor
from pipeline.run import run_job
from pipeline.store.table import Table
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job

def stop(*_):
    print("stopped", flush=True)
    time.sleep(600)

if sys.argv[2] == "publish":
    Context.publish = stop
else:
    real = Table.commit
    Table.commit = lambda self, *a, **k: stop() if ".failures." in self.name else real(self, *a, **k)
run_job(parse_job(json.loads(Path(sys.argv[1]).read_text())), report=lambda e: None, executor=LocalExecutor(LocalSpec()))
"""


def run(folder: Path) -> dict[str, Any]:
    job = parse_job(job_data(folder, folder / "store", steps=STEPS))
    return run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec())).steps["encode"]


def run_until_killed(folder: Path, before: str) -> None:
    """Runs the job in a process of its own and kills it before it comes to `before`."""
    path = folder / "job.json"
    path.write_text(json.dumps(job_data(folder, folder / "store", steps=STEPS)))
    with child(DRIVER, path, before) as driver:
        assert line(driver) == "stopped"
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert [r["state"] for r in list_runs(str(folder / "store"), {}, None, limit=5)].count("died") == 1


def bright_for_readers(folder: Path) -> int:
    store = Store.open(str(folder / "store"))
    entry = store.current("shapes")
    assert entry is not None
    return store.table(entry.table).count_rows("labels.bright = true", version=entry.version)


def test_between_new_labels_and_the_catalog(tmp_path: Path) -> None:
    make_images(tmp_path, 20)
    run(tmp_path)
    before = bright_for_readers(tmp_path)
    path = tmp_path / "labels.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(row | {"bright": "true"} for row in rows)
    run_until_killed(tmp_path, "publish")
    assert all(row["labels"]["bright"] for row in rows_of(tmp_path / "store").to_pylist()), "the labels were committed"
    assert bright_for_readers(tmp_path) == before < 20
    counts = run(tmp_path)
    assert (counts["relabelled"], counts["encoded"], counts["in_latents"]) == (0, 0, 20)
    assert bright_for_readers(tmp_path) == 20


def test_between_latents_and_failures(tmp_path: Path) -> None:
    """Broken pictures were mended, good ones broke, and new ones of both kinds came."""

    def write(number: int, *, good: bool) -> None:
        ok, data = cv2.imencode(".png", picture(1000 + number)[..., ::-1])
        assert ok
        (tmp_path / "images" / image_id(number)).write_bytes(data.tobytes() if good else b"this is text")

    make_images(tmp_path, 12)
    for number in (0, 1, 2):
        write(number, good=False)
    run(tmp_path)
    assert rows_of(tmp_path / "store", "failures")["id"].to_pylist() == sorted(map(image_id, (0, 1, 2)))
    make_images(tmp_path, 4, start=12)
    for number in (0, 1):
        write(number, good=True)
    for number in (5, 14):
        write(number, good=False)
    run_until_killed(tmp_path, "failures")
    store = tmp_path / "store"
    latents, failures = set(rows_of(store)["id"].to_pylist()), set(rows_of(store, "failures")["id"].to_pylist())
    assert latents & failures, "the kill came too late: nothing stands in both"
    assert failures == set(map(image_id, (0, 1, 2)))
    counts = run(tmp_path)
    assert (counts["in_latents"], counts["in_failures"]) == (13, 3)
    assert rows_of(store, "failures")["id"].to_pylist() == sorted(map(image_id, (2, 5, 14)))
    assert rows_of(store)["id"].to_pylist() == sorted(image_id(n) for n in range(16) if n not in (2, 5, 14))
    assert run(tmp_path)["encoded"] == 0
