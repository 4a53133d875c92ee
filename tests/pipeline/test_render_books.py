"""The books of a render step: every code that is to be drawn comes back once, whatever an executor loses, repeats or breaks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.executors.base import MapJob, Receipt
from pipeline.executors.local import LocalExecutor
from pipeline.run import RunResult, run_job
from pipeline.store.store import Store
from schemas.errors import AccountingError
from schemas.events import Event, Notice, StepStarted
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from tests.jobs import job_data, make_images

COUNT, FRAMES = 20, 2


class Drawing(LocalExecutor):
    """A local executor whose maps of pictures go through `drawn`; encoding is left alone."""

    def __init__(self) -> None:
        super().__init__(LocalSpec())
        self.maps = 0

    def map(self, job: MapJob) -> Iterator[Receipt]:
        if "Render" not in type(job.sink).__name__:
            yield from super().map(job)
            return
        self.maps += 1
        yield from self.drawn(job, super().map(job))

    def drawn(self, job: MapJob, receipts: Iterator[Receipt]) -> Iterator[Receipt]:
        yield from receipts


class Losing(Drawing):
    """Loses the second receipt of the first `rounds` maps."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds

    def drawn(self, job: MapJob, receipts: Iterator[Receipt]) -> Iterator[Receipt]:
        for i, receipt in enumerate(receipts):
            if self.maps > self.rounds or i != min(1, len(job.splits) - 1):
                yield receipt


class Repeating(Drawing):
    """Runs the first two splits again, as one: its receipt's range is none of those that came before."""

    def drawn(self, job: MapJob, receipts: Iterator[Receipt]) -> Iterator[Receipt]:
        yield from receipts
        receipt = job.sink.write(job.stage(b) for i in (0, 1) for b in job.splits.read(i))
        assert len(receipt.ranges) == 1
        yield receipt


class Breaking(Drawing):
    """Breaks after two receipts."""

    def drawn(self, job: MapJob, receipts: Iterator[Receipt]) -> Iterator[Receipt]:
        yield next(receipts)
        yield next(receipts)
        raise OSError("the network is gone")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_images(tmp_path, COUNT)


def run(folder: Path, executor: LocalExecutor, *, events: list[Event] | None = None, **changes: Any) -> RunResult:
    steps: list[dict[str, Any]] = [
        {"stage": "encode"},
        {"stage": "traverse", "coordinates": [0], "strengths": [0, 1], "unit": "latent"},
        {"stage": "sample", "method": "gaussian", "covariance": "diagonal", "count": 3},
        {"stage": "render", "to": str(folder / "out")} | changes,
    ]
    job = parse_job(job_data(folder, folder / "store", steps=steps))
    return run_job(job, report=(events if events is not None else []).append, executor=executor)


def ids(folder: Path) -> list[str]:
    return [i for b in Store.open(str(folder / "store")).renders("shapes").scan(["id"]) for i in b["id"].to_pylist()]


def whole(folder: Path) -> None:
    """One row a strip and one a draw, each with its file."""
    found = ids(folder)
    assert len(found) == len(set(found)) == COUNT + 3
    assert len(list((folder / "out").rglob("*.png"))) == COUNT + 3


def test_what_no_worker_returned_is_drawn_again(folder: Path) -> None:
    events: list[Event] = []
    counts = run(folder, Losing(rounds=1), events=events).steps["render"]
    assert (counts["codes"], counts["already"], counts["failed"]) == (COUNT * FRAMES + 3, 0, 0)
    whole(folder)
    assert any("came back from no worker" in e.message for e in events if isinstance(e, Notice))


def test_codes_that_stay_away_fail_the_run_and_the_next_run_draws_them(folder: Path) -> None:
    with pytest.raises(AccountingError, match="came back from no worker"):
        run(folder, Losing(rounds=99))
    lost = COUNT + 3 - len(ids(folder))
    assert 0 < lost < COUNT
    events: list[Event] = []
    counts = run(folder, Drawing(), events=events).steps["render"]
    whole(folder)
    assert 0 < counts["codes"] < COUNT * FRAMES + 3
    assert counts["codes"] + counts["already"] == COUNT * FRAMES + 3
    started = next(e for e in events if isinstance(e, StepStarted) and e.step == "render")
    assert (started.total, started.already) == (counts["codes"], counts["already"])


def test_splits_that_ran_twice_in_another_cut_are_counted_once(folder: Path) -> None:
    counts = run(folder, Repeating()).steps["render"]
    assert counts["codes"] == COUNT * FRAMES + 3
    whole(folder)


def test_what_was_drawn_before_an_error_is_kept(folder: Path) -> None:
    with pytest.raises(OSError, match="network"):
        run(folder, Breaking())
    kept = len(ids(folder))
    assert kept > 0
    counts = run(folder, Drawing()).steps["render"]
    assert counts["already"] == kept * FRAMES
    whole(folder)


@pytest.mark.parametrize("layout", ["image", "grid", "shards"])
def test_nothing_is_drawn_twice_and_a_run_with_nothing_to_draw_maps_nothing(folder: Path, layout: str) -> None:
    assert run(folder, Drawing(), layout=layout).steps["render"]["already"] == 0
    again = Drawing()
    counts = run(folder, again, layout=layout).steps["render"]
    assert (counts["codes"], counts["already"], again.maps) == (0, COUNT * FRAMES + 3, 0)
    make_images(folder, 1, start=COUNT)  # one more image
    more = run(folder, Drawing(), layout=layout).steps["render"]
    assert more["codes"] + more["already"] == (COUNT + 1) * FRAMES + 3
    if layout == "image":
        assert more["codes"] <= FRAMES + 3  # the draws' Gaussian moves with the image
