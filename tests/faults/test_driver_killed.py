"""The driver is killed with SIGKILL, at moments found by watching the store, and the same command is run again.

Nothing in the product knows of these tests: the moment "written, not committed" is seen from outside, by a data file that
no version of the table names yet. Only processes that the test itself started are ended, by their id.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lance
import pytest
import yaml

from pipeline.readers import list_failures, list_runs
from tests.jobs import image_id, job_data, make_images, rows_of, spoil

pytestmark = [pytest.mark.slow, pytest.mark.fault]

IMAGES = 400
SLOW = {
    "codec": {
        "family": "custom",
        "entry": "tests.slow_codec:SlowCodec",
        "options": {"seconds": 0.005},
        "preprocess": {"size": 16},
    },
    "allow_code": True,
}


def start(job: Path, root: Path) -> subprocess.Popen[bytes]:
    """`latentmill run` in a process group of its own."""
    command = [sys.executable, "-m", "pipeline", "run", str(job)]
    return subprocess.Popen(
        command, cwd=root, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


def latents_table(store: Path) -> Path | None:
    return next(iter(store.glob("*.latents.*.lance")), None)


def written(store: Path) -> set[str]:
    table = latents_table(store)
    return {p.name for p in (table / "data").glob("*.lance")} if table and (table / "data").exists() else set()


def committed(store: Path) -> set[str]:
    table = latents_table(store)
    if table is None:
        return set()
    try:
        fragments = lance.dataset(str(table)).get_fragments()
    except (OSError, ValueError):
        return set()
    return {Path(f.path).name for fragment in fragments for f in fragment.data_files()}


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 60) -> bool:
    """Whether `ready` came true while the process lived."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if ready():
            return True
        time.sleep(0.01)
    return False


def run_to_end(job: Path, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(job)], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def every_id_once(store: Path, broken: int) -> None:
    latents, failures = rows_of(store)["id"].to_pylist(), rows_of(store, "failures")["id"].to_pylist()
    assert len(failures) == broken
    assert sorted(latents + failures) == sorted(image_id(i) for i in range(IMAGES))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = make_images(tmp_path / "data", IMAGES)
    data = job_data(folder, tmp_path / "store", **SLOW)
    data["steps"] = [{"stage": "encode", "batch_size": 16, "commit_rows": 100, "commit_seconds": 60}]
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_killed_between_write_and_commit(job: Path, tmp_path: Path, root: Path, kind: str) -> None:
    data = yaml.safe_load(job.read_text())
    job.write_text(yaml.safe_dump({**data, "executor": {"kind": kind}}))
    broken = spoil(tmp_path / "data", 10)
    store = tmp_path / "store"
    process = start(job, root)
    try:
        assert wait_for(lambda: bool(committed(store)) and bool(written(store) - committed(store)), process)
    finally:
        kill(process)
    assert written(store) - committed(store), "the kill came too late: nothing was left uncommitted"
    before = rows_of(store).num_rows
    assert 0 < before < IMAGES - broken
    (died,) = list_runs(str(store), {}, None, limit=5)
    assert died["state"] == "died"
    assert len(list_failures(str(store), {}, None, where=None, limit=100)) <= broken
    run_to_end(job, root)
    every_id_once(store, broken)
    assert not list((store / "_work").glob("*/*")), "work files of the killed run were left behind"
    if kind == "local":  # workers of a killed Ray driver may outlive it by a moment, and write one more orphan
        assert written(store) == committed(store), "files of the killed run were left behind"


def test_killed_at_random_moments_until_it_is_done(job: Path, tmp_path: Path, root: Path) -> None:
    broken = spoil(tmp_path / "data", 7)
    store = tmp_path / "store"
    draw = random.Random(20261120)
    counts = []
    for _ in range(4):
        process = start(job, root)
        wait_for(lambda: latents_table(store) is not None, process)
        wait_for(lambda: False, process, seconds=draw.uniform(0.0, 1.2))
        kill(process)
        counts.append(rows_of(store).num_rows if latents_table(store) else 0)
    assert counts == sorted(counts), "rows were lost between runs"
    assert counts[-1] < IMAGES - broken, "no kill came in time; make the job longer"
    run_to_end(job, root)
    every_id_once(store, broken)


def test_a_second_run_is_told_who_holds_the_dataset(job: Path, tmp_path: Path, root: Path) -> None:
    store = tmp_path / "store"
    slower = yaml.safe_load(job.read_text())
    slower["codec"]["options"]["seconds"] = 0.03  # 12 s, in which the second run starts and is turned away
    job.write_text(yaml.safe_dump(slower))
    first = start(job, root)
    try:
        assert wait_for(lambda: bool(committed(store)), first)
        second = subprocess.run(
            [sys.executable, "-m", "pipeline", "run", str(job)], cwd=root, capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 1
        assert str(first.pid) in second.stderr, second.stderr
        assert first.wait(timeout=120) == 0
    finally:
        if first.poll() is None:
            kill(first)
    every_id_once(store, 0)
