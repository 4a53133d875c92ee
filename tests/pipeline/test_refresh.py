"""Refreshed fits: equal to a rebuild after any inserts, deletions, replacements and label edits, and they read what changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.context import Context
from pipeline.executors.local import LocalExecutor
from pipeline.steps.fit import fit_directions
from pipeline.store.lease import Lease
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import JobError
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from schemas.steps import FitStep
from stages.components.principal import Limits
from tests.jobs import job_data
from tests.pipeline.store_rows import DIM, add, batch, names, schema

NUMBERS = ("vector", "raw_norm", "standard_error", "intercept", "mean", "sigma", "separation", "auc", "n", "n_positive")


class Dataset:
    """A latents table that changes, and fits over it as a run would do them."""

    def __init__(self, folder: Path) -> None:
        data = job_data(folder, folder / "store", dataset="faces", steps=[{"stage": "encode"}])
        data["codec"] = {"family": "linear", "dim": DIM, "preprocess": {"size": 16}}
        self.job, self.store = parse_job(data), Store.open(str(folder / "store"))
        self.rng = np.random.default_rng(0)
        self.notices: list[str] = []
        self.table: Table = self._context(self.store.lease("faces", run_id="run")).latents
        self.table.create(schema())
        self.table.fence(1)

    def _context(self, lease: Lease) -> Context:
        return Context(
            job=self.job,
            store=self.store,
            lease=lease,
            run_id="run",
            report=lambda event: None,
            notices=self.notices if hasattr(self, "notices") else [],
            given_executor=LocalExecutor(LocalSpec(threads=1)),
        )

    def add(self, ids: list[str], *, replaces: bool = False) -> None:
        """Rows whose labels are drawn, some of them missing, and move the latents."""
        n = len(ids)
        drawn = {"smiling": self.rng.random(n) < 0.4, "age": self.rng.integers(0, 4, n) / 4.0}
        columns = {k: pa.array(v, mask=self.rng.random(n) < 0.1) for k, v in drawn.items()}
        columns["hair"] = pa.array(self.rng.choice(["r", "b", "g"], n).tolist())
        columns["5_o_Clock_Shadow"] = pa.array(self.rng.random(n) < 0.5)
        vectors = self.rng.normal(3, 1, (n, DIM)) + np.outer(drawn["smiling"] + drawn["age"], np.arange(DIM) / 4)
        rows = batch(ids, vectors=vectors)
        kind = schema().field("labels").type
        labels = pa.StructArray.from_arrays([columns[f.name] for f in kind], fields=list(kind))
        rows = rows.set_column(rows.schema.get_field_index("labels"), schema().field("labels"), labels)
        self.table.commit(self.table.write([rows]), token=1, properties={}, replaces=ids if replaces else [])

    def fit(self, **fields: Any) -> tuple[dict[str, dict[str, Any]], int | None]:
        asked = {"name": "fit", "attributes": ("smiling", "hair"), "estimator": "ols", "holdout": 0} | fields
        if asked["estimator"] == "ols":
            asked["attributes"] = (*asked["attributes"], "age")
        with self.store.lease("faces", run_id="run") as lease:
            counts = fit_directions(FitStep(**asked), self._context(lease))
        rows = [row for b in self.store.directions().scan() for row in b.to_pylist()]
        return {row["name"]: row for row in rows}, counts.get("read")

    def same_as_rebuilt(self, refreshed: dict[str, dict[str, Any]], **fields: Any) -> None:
        rebuilt, read = self.fit(refresh="off", **fields)
        assert read is None and rebuilt.keys() == refreshed.keys()
        for name, direction in refreshed.items():
            assert (direction["status"], direction["message"]) == (rebuilt[name]["status"], rebuilt[name]["message"])
            for field in NUMBERS:
                if rebuilt[name][field] is None:
                    assert direction[field] is None, field
                else:
                    np.testing.assert_allclose(direction[field], rebuilt[name][field], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    "fields",
    [
        {"estimator": "ols"},
        {"estimator": "ols", "holdout": 0.25},
        {"estimator": "mean_difference", "holdout": 0.25, "group": "id:0."},
        {"estimator": "balanced_mean_difference", "attributes": ("smiling",), "controls": ("hair", "5_o_Clock_Shadow")},
        {"estimator": "ridge", "holdout": 0.2, "l2": 1.0},
        {"estimator": "lda", "shrinkage": 0.1},
        {"estimator": "ols", "where": "labels.age > 0.1 OR labels.smiling"},
    ],
    ids=lambda f: "-".join(map(str, f.values())),
)
def test_refreshed_is_rebuilt(tmp_path: Path, fields: dict[str, Any]) -> None:
    data = Dataset(tmp_path)
    data.add(names(400))
    data.add(names(200, start=400))
    _, read = data.fit(refresh="auto", **fields)
    assert read and read % data.table.count_rows(fields.get("where")) == 0
    for turn in range(3):
        ids = sorted(i for b in data.table.scan(["id"]) for i in b.column("id").to_pylist())
        some = data.rng.choice(ids, 35, replace=False).tolist()
        data.add(some[:15], replaces=True)
        data.table.delete_ids(some[15:], token=1, properties={})
        data.add(names(12, prefix=f"new{turn}"))
        refreshed, read = data.fit(refresh="auto", **fields)
        # 35 rows went and 27 came; categories take a pass of their own.
        assert read is not None and 0 < read <= 2 * 62
        data.same_as_rebuilt(refreshed, **fields)
    assert not any("rebuilt" in said for said in data.notices)
    _, read = data.fit(refresh="auto", **fields)
    assert read == 0
    _, read = data.fit(refresh="rebuild", **fields)
    assert read and read >= data.table.count_rows(fields.get("where"))


@pytest.mark.parametrize("full", [4, 8], ids=["strips", "reassembled"])
def test_what_wide_latents_keep_is_refreshed_and_the_rest_is_read(
    tmp_path: Path, full: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.directions.fit.Limits", lambda: Limits(full=full, strips=8, block_values=60))
    test_refreshed_is_rebuilt(tmp_path, {"estimator": "ridge", "holdout": 0.2, "l2": 1.0})


def test_edited_labels_are_changes(tmp_path: Path) -> None:
    data = Dataset(tmp_path)
    data.add(names(300))
    data.add(names(100, start=300))
    before, _ = data.fit(refresh="auto")
    # An edit from outside, as any LanceDB client can make it.
    dataset = data.table.ref.open()
    found = dataset.to_table(filter="id IN ('img/00301.jpg', 'img/00302.jpg', 'img/00303.jpg')")
    at = found.schema.get_field_index("labels")
    flipped = [{**row, "smiling": not row["smiling"], "age": 0.5} for row in found.column("labels").to_pylist()]
    edited = found.set_column(at, found.schema.field(at), pa.array(flipped, found.schema.field(at).type))
    dataset.merge_insert("id").when_matched_update_all().execute(edited)
    refreshed, read = data.fit(refresh="auto")
    assert read is not None and 0 < read < 800
    assert not np.allclose(before["smiling"]["vector"], refreshed["smiling"]["vector"], atol=1e-6)
    data.same_as_rebuilt(refreshed)


def test_compaction_changes_nothing_but_is_noticed(tmp_path: Path) -> None:
    data = Dataset(tmp_path)
    for start in range(0, 200, 20):
        data.add(names(20, start=start))
    data.fit(refresh="auto")
    assert data.table.compact(token=1) > 0
    refreshed, _ = data.fit(refresh="auto")
    data.same_as_rebuilt(refreshed)
    assert any("rebuilt from all rows: 400 rows came or went" in said for said in data.notices)


def test_another_selection_or_fit_is_not_refreshed_from_this_one(tmp_path: Path) -> None:
    data = Dataset(tmp_path)
    data.add(names(300))
    data.fit(refresh="auto")
    for fields in ({"where": "labels.hair = 'r'"}, {"holdout": 0.3}, {"group": "id:/"}):
        refreshed, read = data.fit(refresh="auto", **fields)
        assert read and read >= data.table.count_rows(fields.get("where"))
        data.same_as_rebuilt(refreshed, **fields)


def test_a_version_that_is_gone_leads_to_a_rebuild(tmp_path: Path) -> None:
    from datetime import timedelta

    data = Dataset(tmp_path)
    data.add(names(200))
    data.fit(refresh="auto")
    data.add(names(20, prefix="more"))
    data.table.trim_versions(keep=1, older_than=timedelta(0), token=1)
    refreshed, read = data.fit(refresh="auto")
    assert read and read >= 220 and any("is no longer kept" in said for said in data.notices)
    data.same_as_rebuilt(refreshed)


def test_precision_that_would_be_lost_leads_to_a_rebuild(tmp_path: Path) -> None:
    data = Dataset(tmp_path)
    vectors = data.rng.normal(0, 1, (60, DIM))
    vectors[:5] *= 1e5  # outliers, gone later: what is left is 1e-10 of the sum of squares
    add(data.table, names(60), vectors=vectors)
    data.fit(refresh="auto")
    data.table.delete_ids(names(5), token=1, properties={})
    refreshed, read = data.fit(refresh="auto")
    assert any("too much precision would be lost" in said for said in data.notices)
    assert read and read >= 55
    data.same_as_rebuilt(refreshed)


def test_what_cannot_be_refreshed_is_refused() -> None:
    from stages.directions.checks import check_fit

    for fields, said in (({"estimator": "logistic"}, "no statistic to keep"), ({"limit": 5}, "a limit chooses")):
        problems = check_fit(FitStep(name="fit", refresh="auto", **fields), {"smiling": "bool"}, ["smiling"])
        assert [p.field for p in problems] == ["fit.refresh"] and said in problems[0].reason
    with pytest.raises(JobError):
        parse_job({"steps": [{"stage": "fit", "refresh": "sometimes"}]})


def test_batches_of_changes_are_those_of_the_versions(tmp_path: Path) -> None:
    data = Dataset(tmp_path)
    data.add(names(50))
    old = data.table.version
    data.add(names(4), replaces=True)
    data.table.delete_ids(names(3, start=40), token=1, properties={})
    new = data.table.version
    found = data.table.changes(since=old, version=new, columns=["id", "latent"])
    came, went = (
        [row for i in range(len(part)) for b in part.read(i) for row in b.to_pylist()]
        for part in (found.added, found.removed)
    )
    assert {r["id"] for r in came} == set(names(4))
    assert {r["id"] for r in went} == {*names(4), *names(3, start=40)}
    assert all(a["latent"] != b["latent"] for a in came for b in went if a["id"] == b["id"])
    assert (found.rows, len(batch(names(2)))) == (11, 2)
