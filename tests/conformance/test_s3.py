"""The whole way on S3, over HTTP, against a server that refuses every so many requests with 503: source, store, renders."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pipeline import artifacts
from pipeline.executors.base import Executor
from pipeline.gallery import write_gallery
from pipeline.query import Query, run_query
from pipeline.run import RunResult, run_job
from pipeline.store.store import Store
from schemas.job import parse_job
from tests.jobs import image_id, job_data, make_images, spoil
from tests.s3 import S3, s3_server

pytestmark = pytest.mark.slow

COUNT = 80


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_images(tmp_path_factory.mktemp("s3"), COUNT)
    spoil(folder, 8)
    return folder


@pytest.fixture
def s3(pictures: Path) -> Iterator[S3]:
    with s3_server() as server:
        server.client.create_bucket(Bucket="faces")
        files = [p for p in pictures.rglob("*") if p.is_file()]
        server.put({f"faces/{p.relative_to(pictures)}": p.read_bytes() for p in files})
        server.fail_every = 11
        yield server


def run(s3: S3, executor: Executor, **changes: Any) -> RunResult:
    steps = [
        {"stage": "encode", "batch_size": 16},
        {"stage": "index", "kind": "flat"},
        {"stage": "fit", "attributes": ["bright"]},
        {"stage": "traverse", "directions": ["bright"], "strengths": [-1, 0, 1], "limit": 6},
        {"stage": "render", "to": "s3://faces/renders", "layout": "strip", "storage_options": s3.fsspec},
    ]
    data = job_data(Path("unused"), "s3://faces/store", steps=steps, store_options=s3.store, **changes)
    data["source"] = {
        "images": "s3://faces/images/**/*.png",
        "labels": "s3://faces/labels.csv",
        "storage_options": s3.fsspec,
    }
    return run_job(parse_job(data), report=lambda event: None, executor=executor)


def check(s3: S3, result: RunResult) -> None:
    broken = len(range(0, COUNT, 8))
    counts = result.steps["encode"]
    assert (counts["listed"], counts["in_latents"], counts["in_failures"]) == (COUNT, COUNT - broken, broken)
    assert s3.refused > 0, "no request was refused: the test shows nothing"
    store = Store.open("s3://faces/store", options=s3.store, create=False)
    entry = store.current("shapes")
    assert entry is not None
    latents = [i for b in store.table(entry.table).scan(["id"]) for i in b.column("id").to_pylist()]
    failures = [i for b in store.failures("shapes", entry.fingerprint).scan(["id"]) for i in b.column("id").to_pylist()]
    assert sorted(latents + failures) == sorted(image_id(i) for i in range(COUNT))
    strips = artifacts.retrying(
        "s3://faces/renders/render/traverse", s3.fsspec, lambda fs, path: fs.ls(path, detail=False)
    )
    assert len(strips) == 6
    found = run_query(Query("s3://faces/store", s3.store, "shapes", image_id=latents[0], k=3))
    assert len(found.rows) == 3


def gallery(s3: S3) -> None:
    """The page of a query by picture: both are read at the store's endpoint, which nothing but its options names."""
    asked = Query("s3://faces/store", s3.store, "shapes", image=f"s3://faces/images/{image_id(1)}", k=3)
    with TemporaryDirectory() as folder:
        page = Path(folder) / "hits.html"
        write_gallery(run_query(asked), page)
        assert page.read_text().count("data:image/") == 4


def held(s3: S3) -> dict[str, bool]:
    """What readers see of the label `bright`."""
    store = Store.open("s3://faces/store", options=s3.store, create=False)
    entry = store.current("shapes")
    assert entry is not None
    rows = store.table(entry.table).scan(["id", "labels"], version=entry.version)
    return {r["id"]: r["labels"]["bright"] for b in rows for r in b.to_pylist()}


def test_local_executor(s3: S3, local: Executor) -> None:
    check(s3, run(s3, local))
    gallery(s3)
    again = run(s3, local)
    assert again.steps["encode"]["encoded"] == 0
    assert again.steps["render"]["codes"] == 0


def test_new_labels(s3: S3, local: Executor) -> None:
    run(s3, local)
    client, s3.refused = s3.client, 0
    lines = client.get_object(Bucket="faces", Key="labels.csv")["Body"].read().decode().splitlines()
    flipped = {"true": "false", "false": "true"}
    changed = [i for i in (image_id(n) for n in (3, 4, 5, 61, 62)) if i in held(s3)]
    for at, text in enumerate(lines):
        row = text.split(",")
        if row[0] in changed:
            lines[at] = ",".join([row[0], flipped[row[1]], *row[2:]])
    s3.put({"faces/labels.csv": "\n".join(lines).encode()})
    before = held(s3)
    counts = run(s3, local).steps["encode"]
    assert (counts["relabelled"], counts["encoded"]) == (len(changed), 0) and s3.refused > 0
    after = held(s3)
    assert {i for i in after if after[i] != before[i]} == set(changed) and after.keys() == before.keys()
    assert len(changed) > 2


def test_ray_executor(s3: S3, ray_executor: Callable[..., Executor]) -> None:
    check(s3, run(s3, ray_executor(workers=1)))
