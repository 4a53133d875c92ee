"""The Ray executor: Ray Data streams split numbers through read tasks, codec actors and write tasks to the driver.

Ray retries whatever a dying actor or node was doing, so a split may be written twice; receipts name their rows and the
committer drops what is in already. Nothing is keyed on blocks, whose layout Ray may change between runs. Only receipts
reach the driver.

CPU shares leave room for every leg: actors that took all CPUs would starve the writers (first commit after 38 s, not 9).
"""

import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from pipeline.executors.base import MapJob, Receipt, Sink, Splits, fold_group, groups, merged
from pipeline.executors.counter import Counter
from pipeline.executors.device import resolve_device
from pipeline.executors.threads import leave_cores_to_torch
from schemas.errors import JobError, LatentmillError
from schemas.executor import RayExecutor as RaySpec
from stages.stage import MapStage, Opens, ReduceStage

State = TypeVar("State")
Item = TypeVar("Item")

READ_CPUS = 0.4
CODEC_CPUS = 0.5
WRITE_CPUS = 0.2
"""Three different shares: legs of equal resources would be fused, and a GPU would wait for JPEGs."""

KEPT_WORKERS = 256
"""Ray ends idle workers beyond one a core, and its actors count. With shares below 1 it ended and started (1 to 2 CPU seconds
each) a worker every few splits: 6 % of an encode on 2 cores. There are never more than ran at once."""


class RayExecutor:
    """Runs maps and reduces on Ray: a private one (`address: local`), or a cluster that is there already."""

    def __init__(self, spec: RaySpec) -> None:
        self._spec = spec
        self._started = not ray.is_initialized()
        if self._started:
            _start(spec)
        _quiet(DataContext.get_current())
        self._counter: Any = None

    def rows_read(self) -> int:
        """Rows read so far by the map that is running; 0 where that cannot be told."""
        if self._counter is None:
            return 0
        try:
            return int(ray.get(self._counter.total.remote(), timeout=1))
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            return 0  # its node died or is busy; the display goes on with what was computed

    def map(self, job: MapJob) -> Iterator[Receipt]:
        splits = len(job.splits)
        if not splits:
            return
        workers = self._workers(splits)
        self._counter = ray.remote(num_cpus=0, max_restarts=-1)(Counter).remote()
        legs = ray.data.range(splits, override_num_blocks=splits)
        legs = legs.map_batches(
            _Read(job.splits, self._counter), batch_size=None, batch_format="pyarrow", num_cpus=READ_CPUS
        )
        legs = legs.map_batches(
            _Compute,
            fn_constructor_args=(job.stage, self._spec.device, self._threads(workers)),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=workers),
            num_cpus=self._actor_cpus(),
            num_gpus=self._spec.gpus_per_worker or None,
        )
        legs = legs.map_batches(_Write(job.sink), batch_size=None, batch_format="pyarrow", num_cpus=WRITE_CPUS)
        with _plain_errors():
            for rows in legs.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for payload in rows["receipt"].to_pylist():
                    yield pickle.loads(payload)  # our own worker's dataclass, from Ray's object store

    def reduce(self, splits: Splits, stage: ReduceStage[State]) -> State:
        cuts = groups(len(splits))
        if not cuts:
            return stage.start()
        numbers = ray.data.range(len(cuts), override_num_blocks=len(cuts))
        if isinstance(stage, Opens):
            workers = self._workers(len(cuts))
            folds = numbers.map_batches(
                _OpenFold,
                fn_constructor_args=(splits, stage, cuts, self._spec.device, self._threads(workers)),
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=workers),
                num_cpus=self._actor_cpus(),
                num_gpus=self._spec.gpus_per_worker or None,
            )
        else:
            fold = _Fold(splits, stage, cuts)
            folds = numbers.map_batches(fold, batch_size=None, batch_format="pyarrow", num_cpus=1)
        with _plain_errors():
            state: State = merged(stage, _states(folds), count=len(cuts))
            return state

    def stream(self, task: Callable[[str], Iterator[Item]]) -> Iterator[Item]:
        # A node that dies takes the task with it; Ray runs it again, and the task itself goes on from its last state.
        cpus = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
        remote = ray.remote(num_cpus=cpus, num_gpus=self._spec.gpus_per_worker or None, max_retries=3)(_stream)
        with _plain_errors():
            for item in remote.options(num_returns="streaming").remote(task, self._spec.device):
                yield ray.get(item)

    def close(self) -> None:
        if self._started:
            ray.shutdown()

    def _workers(self, splits: int) -> int:
        cluster = ray.cluster_resources()
        if self._spec.workers:
            wanted = self._spec.workers
        elif self._spec.gpus_per_worker:
            wanted = int(cluster.get("GPU", 0) / self._spec.gpus_per_worker)
            if not wanted:
                raise JobError.one(
                    "executor.gpus_per_worker",
                    self._spec.gpus_per_worker,
                    f"this Ray has {cluster.get('GPU', 0):g} GPUs.",
                    "join a cluster with GPUs, or leave gpus_per_worker at 0",
                )
        else:
            # One actor a core with one torch thread each beats fewer with more: no thread waits for another.
            wanted = int(cluster.get("CPU", 1))
        return max(1, min(wanted, splits))

    def _actor_cpus(self) -> float:
        """CPU share of one actor, so that reads and writes always find room beside a full pool."""
        return 1.0 if self._spec.gpus_per_worker else CODEC_CPUS

    def _threads(self, workers: int) -> int | None:
        """Torch threads of one actor on CPU, so that all of them together have the cluster's cores; None on a GPU."""
        if self._spec.gpus_per_worker:
            return None
        return max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)


def _states(folds: ray.data.Dataset) -> Iterator[tuple[int, Any]]:
    """Groups and their states, as workers finish them."""
    for rows in folds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for group, payload in zip(rows["group"].to_pylist(), rows["state"].to_pylist(), strict=True):
            yield group, pickle.loads(payload)  # our own worker's state, from Ray's object store


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What a worker raised as one of our errors arrives as that error, as it would from the local executor."""
    try:
        yield
    except (ray.exceptions.RayError, LatentmillError) as error:
        # Ray wraps what a task raised, more than once, and some of its wrappers pretend to be what they wrap.
        inside: BaseException | None = error
        while inside is not None and (
            not isinstance(inside, LatentmillError) or isinstance(inside, ray.exceptions.RayError)
        ):
            inside = getattr(inside, "cause", None) or inside.__cause__
        if inside is None:
            raise
        raise inside from None


def _stream(task: Callable[[str], Iterator[Item]], device: str) -> Iterator[Item]:
    import torch

    torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))))
    yield from task(resolve_device(device))


class _Read:
    """Split numbers → rows. Ray Data may hand several numbers at once."""

    def __init__(self, splits: Splits, counter: Any) -> None:
        self._splits, self._counter = splits, counter

    def __call__(self, numbers: pa.Table) -> Iterator[pa.Table]:
        for index in numbers["id"].to_pylist():
            started = time.perf_counter()
            batches = list(self._splits.read(index))
            if batches:  # a render split may have nothing left to draw
                table = pa.Table.from_batches(batches)
                self._counter.add.remote(table.num_rows)
                yield _stamped(table, "read", time.perf_counter() - started)


class _Compute:
    """The stage inside an actor: opened once, then batch after batch."""

    def __init__(self, stage: MapStage, device: str, threads: int | None) -> None:
        self._stage = stage
        self._refused = _opened(stage, device, threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        if self._refused is not None:
            raise self._refused
        started = time.perf_counter()
        batches = [self._stage(batch) for batch in table.to_batches() if batch.num_rows]
        if not batches:
            return table.slice(0, 0)
        return _stamped(pa.Table.from_batches(batches), "compute", time.perf_counter() - started, table.schema.metadata)


class _Write:
    """Rows → a receipt, pickled into one cell."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def __call__(self, table: pa.Table) -> pa.Table:
        started = time.perf_counter()
        receipt = self._sink.write(b for b in table.to_batches() if b.num_rows)
        seconds = _stamps(table) | {"write": time.perf_counter() - started}
        return pa.table({"receipt": [pickle.dumps(replace(receipt, seconds=seconds))]})


class _Fold:
    """Group numbers → the group's state, pickled into one cell."""

    def __init__(self, splits: Splits, stage: ReduceStage[Any], cuts: list[range]) -> None:
        self._splits, self._stage, self._cuts = splits, stage, cuts

    def __call__(self, numbers: pa.Table) -> Iterator[pa.Table]:
        for group in numbers["id"].to_pylist():
            state = fold_group(self._splits, self._stage, self._cuts[group])
            yield pa.table({"group": [group], "state": pa.array([pickle.dumps(state)], pa.large_binary())})


class _OpenFold:
    """The same inside an actor, for a stage with a model: opened once, then group after group."""

    def __init__(
        self, splits: Splits, stage: ReduceStage[Any], cuts: list[range], device: str, threads: int | None
    ) -> None:
        assert isinstance(stage, Opens)
        self._fold = _Fold(splits, stage, cuts)
        self._refused = _opened(stage, device, threads)
        leave_cores_to_torch()

    def __call__(self, numbers: pa.Table) -> Iterator[pa.Table]:
        if self._refused is not None:
            raise self._refused
        yield from self._fold(numbers)


def _opened(stage: Opens, device: str, threads: int | None) -> LatentmillError | None:
    """Opens a stage in its actor. Of an actor that fails to start Ray keeps the text alone, so an error of ours is kept:
    raised by the first batch it arrives whole.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    try:
        stage.open(resolve_device(device))
    except LatentmillError as error:
        return error
    return None


_STAMP = b"latentmill.seconds."


def _stamped(table: pa.Table, kind: str, seconds: float, metadata: dict[bytes, bytes] | None = None) -> pa.Table:
    """Carries worker seconds along in the schema's metadata, beside the rows they were spent on."""
    kept = {k: v for k, v in (metadata or {}).items() if k.startswith(_STAMP)}
    mark = {_STAMP + kind.encode(): str(seconds).encode()}
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **kept, **mark})


def _stamps(table: pa.Table) -> dict[str, float]:
    metadata = table.schema.metadata or {}
    return {k.removeprefix(_STAMP).decode(): float(v) for k, v in metadata.items() if k.startswith(_STAMP)}


def _start(spec: RaySpec) -> None:
    local = spec.address == "local"
    if local:
        # Ray's own actor pools make its core log an error about arguments it keeps itself; files and exceptions still tell all.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with warnings.catch_warnings():
        # Ray forks to start its processes, which at once become other programs: Lance's warning does not apply.
        warnings.filterwarnings("ignore", message="lance is not fork-safe")
        ray.init(
            # "local" by name: with no address, Ray may attach to a stale cluster named in a file of the temp folder.
            address=spec.address,
            num_cpus=spec.num_cpus if local else None,
            object_store_memory=spec.object_store_bytes if local else None,
            include_dashboard=False if local else None,
            runtime_env=spec.runtime_env or None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _system_config={"num_workers_soft_limit": KEPT_WORKERS} if local else None,
        )


def _quiet(context: DataContext) -> None:
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # its own wrapper loses what it wraps on the way to the driver
    logging.getLogger("ray.data").setLevel(logging.ERROR)
