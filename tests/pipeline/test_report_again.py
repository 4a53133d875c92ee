"""The page drawn again is the run's own page: the same pictures and notices, whatever another run is half through with."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.executors.base import MapJob, Receipt
from pipeline.executors.local import LocalExecutor
from pipeline.report_again import report_again
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.errors import StoreError
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import Job, parse_job
from tests.jobs import job_data, make_images, rows_of

CODE_SETS: list[dict[str, Any]] = [
    {"stage": "traverse", "coordinates": [0], "strengths": [-1, 0, 1], "limit": 2},
    {"stage": "interpolate", "pairs": "random", "count": 2, "frames": 3},
    {"stage": "edit", "changes": [{"coordinate": 0, "strength": 2}], "limit": 3},
    {"stage": "analogy", "count": 2},
    {"stage": "walk", "frames": 3, "limit": 2},
    {"stage": "sample", "method": "gaussian", "covariance": "diagonal", "count": 3},
]


class Stopping(LocalExecutor):
    """Stops an encode after its first receipt, which is committed by then."""

    def map(self, job: MapJob) -> Iterator[Receipt]:
        yield next(super().map(job))
        raise OSError("the power is gone")


def executor() -> LocalExecutor:
    return LocalExecutor(LocalSpec())


def job_of(folder: Path, **changes: Any) -> Job:
    # `few` has one class only, which it says in a notice.
    fit = {"stage": "fit", "name": "few", "attributes": ["bright"], "where": "labels.bright = true"}
    steps = [{"stage": "encode"}, fit, *CODE_SETS, {"stage": "report", "to": str(folder / "own.html"), "rows": 2}]
    return parse_job(job_data(folder, folder / "store", steps=steps, **changes))


def pictures(page: Path) -> list[str]:
    return re.findall(r"data:image/[^\"')]+", page.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = make_images(tmp_path, 24)
    run_job(job_of(folder), report=lambda event: None, executor=executor())
    return folder


def drawn_again(folder: Path, job: Job) -> Path:
    page = folder / "again.html"
    report_again(job, given="as given", to=str(page))
    return page


def test_every_code_set_and_every_notice_is_there_again(folder: Path) -> None:
    own, again = folder / "own.html", drawn_again(folder, job_of(folder))
    assert len(pictures(own)) > 2 * len(CODE_SETS)
    assert pictures(again) == pictures(own)
    said = re.findall(r'<ul class="notices">.*?</ul>', own.read_text(), re.S)
    assert "direction few.bright: single_class: all labelled rows are of one class" in str(said)
    assert re.findall(r'<ul class="notices">.*?</ul>', again.read_text(), re.S) == said


def test_a_half_finished_encode_is_not_shown(folder: Path) -> None:
    before = pictures(drawn_again(folder, job_of(folder)))
    make_images(folder, 40, start=24)
    with pytest.raises(OSError, match="power"):
        run_job(job_of(folder), report=lambda event: None, executor=Stopping(LocalSpec()))
    assert 24 < rows_of(folder / "store").num_rows < 64
    assert Store.open(str(folder / "store")).current("shapes") is not None
    assert pictures(drawn_again(folder, job_of(folder))) == before
    run_job(job_of(folder), report=lambda event: None, executor=executor())
    assert pictures(drawn_again(folder, job_of(folder))) == pictures(folder / "own.html") != before


def test_the_latents_of_a_codec_that_readers_do_not_see_are_not_shown(folder: Path) -> None:
    other = job_of(folder, codec={"family": "linear", "dim": 5, "preprocess": {"size": 16}})
    with pytest.raises(StoreError, match=r"Readers of shapes see those of codec .* run the job to its end"):
        drawn_again(folder, other)


def test_directions_of_the_run_come_first(tmp_path: Path) -> None:
    make_images(tmp_path, 24)
    for name in ("zeta", "alpha"):
        steps = [{"stage": "encode"}, {"stage": "fit", "name": name, "attributes": ["bright"], "holdout": 0}]
        steps.append({"stage": "report", "to": str(tmp_path / f"{name}.html")})
        run_job(parse_job(job_data(tmp_path, tmp_path / "store", steps=steps)), report=lambda event: None)
    again = [{"stage": "encode"}, {"stage": "fit", "name": "zeta", "attributes": ["bright"], "holdout": 0}]
    again.append({"stage": "report", "to": str(tmp_path / "last.html")})
    run_job(parse_job(job_data(tmp_path, tmp_path / "store", steps=again)), report=lambda event: None)
    for page, order in (
        ("alpha.html", ["alpha.bright", "zeta.bright"]),
        ("last.html", ["zeta.bright", "alpha.bright"]),
    ):
        text = (tmp_path / page).read_text()
        assert sorted(order, key=lambda name: text.index(f">{name}<")) == order
