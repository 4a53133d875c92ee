"""Ray loses an actor, then a whole node, in the middle of a run: the tables must come out as if nothing had happened."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from pipeline.executors.ray import RayExecutor
from pipeline.run import run_job
from schemas.executor import RayExecutor as RaySpec
from schemas.job import parse_job
from tests.faults.test_driver_killed import SLOW
from tests.jobs import image_id, job_data, make_images, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.fault]

IMAGES = 600


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that only drives and two worker nodes; its own Ray, apart from the one other tests share."""
    if ray.is_initialized():
        ray.shutdown()
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def run_while(cluster: Cluster, tmp_path: Path, strike: Callable[[], bool]) -> list[str]:
    """Runs an encode job on the cluster, calling `strike` from another thread until it says that it struck."""
    struck: list[bool] = []

    def watch() -> None:
        end = time.monotonic() + 90
        while time.monotonic() < end and not struck:
            if strike():
                struck.append(True)
            time.sleep(0.05)

    folder = make_images(tmp_path / "data", IMAGES)
    executor = {"kind": "ray", "address": cluster.address, "workers": 2}
    job = parse_job(job_data(folder, tmp_path / "store", executor=executor, **SLOW))
    watcher = threading.Thread(target=watch, daemon=True)
    runner = RayExecutor(RaySpec(**executor))
    watcher.start()
    result = run_job(job, report=lambda event: None, executor=runner)
    assert struck, "the run was over before anything was killed"
    assert result.steps["encode"]["in_latents"] == IMAGES
    return rows_of(tmp_path / "store")["id"].to_pylist()


def actor_processes() -> list[psutil.Process]:
    """Ray's codec actors among the descendants of this test's own cluster."""
    mine = psutil.Process().children(recursive=True)
    return [p for p in mine if p.is_running() and "MapWorker" in " ".join(_title(p))]


def _title(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_actor_killed(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    commits = tmp_path / "store"

    def strike() -> bool:
        found = actor_processes()
        if not found or not list(commits.glob("*.latents.*.lance/data/*")):
            return False
        os.kill(found[0].pid, signal.SIGKILL)
        return True

    assert run_while(cluster, tmp_path, strike) == sorted(image_id(i) for i in range(IMAGES))


def test_raylet_killed(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=2)
    doomed = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    commits = tmp_path / "store"

    def strike() -> bool:
        if not list(commits.glob("*.latents.*.lance/data/*")):
            return False
        cluster.remove_node(doomed, allow_graceful=False)  # SIGKILL to that raylet and its workers
        return True

    assert run_while(cluster, tmp_path, strike) == sorted(image_id(i) for i in range(IMAGES))
