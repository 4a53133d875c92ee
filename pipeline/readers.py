"""Readers of a store: which dataset is meant, and what its tables tell. Readers go through the catalog (design §4)."""

import json
from dataclasses import dataclass, field
from typing import Any

from pipeline.measurements import FIGURE, resampled_fits
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.codec import CodecSpec, LatentSpec
from schemas.errors import JobError, StoreError
from schemas.job import did_you_mean
from schemas.tables import latent_spec


@dataclass(frozen=True)
class DatasetView:
    """A dataset as its readers see it: one latents table at one version, whatever is being written meanwhile."""

    store: Store
    name: str
    fingerprint: str
    table: Table
    version: int

    @property
    def latent(self) -> LatentSpec:
        return latent_spec(self.table.schema.field("latent"))

    def codec_spec(self) -> CodecSpec:
        """The codec that made the latents, from the table's own metadata."""
        from pydantic import TypeAdapter

        adapter: TypeAdapter[CodecSpec] = TypeAdapter(CodecSpec)
        return adapter.validate_json(self.table.schema.metadata[b"codec"])

    def source(self) -> "Source | None":
        """Where the pictures were read from, as the newest run that encoded them says; None when no run is kept."""
        where = f"dataset = '{self.name}' AND fingerprint = '{self.fingerprint}'"
        runs = _rows(self.store.runs(), ["started_at", "job_resolved"], where=where)
        for run in sorted(runs, key=lambda row: row["started_at"], reverse=True):
            job = json.loads(run["job_resolved"])
            if any(step["stage"] == "encode" for step in job["steps"]):
                return Source(job["source"]["images"], job["source"]["storage_options"])
        return None


@dataclass(frozen=True)
class Source:
    """A source's URL and its fsspec options, which may hold secrets and stay out of its repr."""

    images: str
    options: dict[str, Any] = field(repr=False)


def open_dataset(uri: str, options: dict[str, str], dataset: str | None) -> DatasetView:
    """The named dataset, or the only one. Raises StoreError or JobError with the names there are."""
    store = Store.open(uri, options=options, create=False)
    name = one_dataset(store, dataset)
    entry = store.current(name)
    if entry is None:
        raise StoreError(
            f"dataset {name} in {store.uri} has no finished encoding yet; finish it with `latentmill run`."
        )
    return DatasetView(store, name, entry.fingerprint, store.table(entry.table), entry.version)


def one_dataset(store: Store, dataset: str | None) -> str:
    """`dataset` if the store knows it, or the only one it holds."""
    started = {row["dataset"] for row in _rows(store.runs(), ["dataset"], where=None)}
    known: list[str] = sorted({*store.datasets(), *started})
    if dataset is None and len(known) == 1:
        return known[0]
    if dataset is None:
        fix = f"choose one: {', '.join(known)}" if known else "run a job with an `encode` step first"
        raise JobError.one("--dataset", None, f"{store.uri} holds {len(known)} datasets.", fix)
    if dataset not in known:
        raise JobError.one("--dataset", dataset, f"{store.uri} has no such dataset.", did_you_mean(dataset, known))
    return dataset


def list_failures(
    uri: str, options: dict[str, str], dataset: str | None, *, where: str | None, limit: int
) -> list[dict[str, Any]]:
    """Failure rows of the dataset's newest run, finished or not: they are there before readers see any latents."""
    store = Store.open(uri, options=options, create=False)
    name = one_dataset(store, dataset)
    runs = _rows(store.runs(), ["fingerprint", "started_at"], where=f"dataset = '{name}' AND fingerprint IS NOT NULL")
    if not runs:
        return []
    newest = max(runs, key=lambda row: row["started_at"])
    columns = ["id", "error", "message", "uri", "run_id", "at"]
    return _rows(store.failures(name, newest["fingerprint"]), columns, where=where, limit=limit)


def list_directions(uri: str, options: dict[str, str], dataset: str | None) -> list[dict[str, Any]]:
    """Directions of the dataset's present codec, without their vectors; with their angles to the truth where those were measured."""
    view = open_dataset(uri, options, dataset)
    columns = [
        "name",
        "estimator",
        "status",
        "message",
        "n",
        "n_positive",
        "n_negative",
        "separation",
        "separation_low",
    ]
    columns += ["separation_high", "auc", "auc_low", "auc_high", "sigma", "run_id"]
    where = f"dataset = '{view.name}' AND fingerprint = '{view.fingerprint}'"
    resampled = resampled_fits(view.store, where)
    rows = sorted(_rows(view.store.directions(), columns, where=where), key=lambda row: str(row["name"]))
    for row in rows:
        angle = resampled.get((row["run_id"], row["name"]), {}).get("angle", {})
        row |= {f"angle{part}": angle.get(key) for part, key in FIGURE.items() if part != "_message"}
    return rows


def list_measurements(
    uri: str, options: dict[str, str], dataset: str | None, *, where: str | None
) -> list[dict[str, Any]]:
    """What the newest run that measured anything found on the dataset's present codec, one row a number."""
    view = open_dataset(uri, options, dataset)
    mine = f"dataset = '{view.name}' AND fingerprint = '{view.fingerprint}'"
    table = view.store.measurements()
    newest = max(_rows(table, ["run_id", "at"], where=mine), key=lambda row: row["at"], default=None)
    if newest is None:
        return []
    columns = ["step", "metric", "subject", "target", "value", "low", "high", "n", "unit", "threshold", "status"]
    asked = f" AND {table.clause(where)}" if where else ""
    return _rows(table, [*columns, "message"], where=f"{mine} AND run_id = '{newest['run_id']}'{asked}")


def list_runs(uri: str, options: dict[str, str], dataset: str | None, *, limit: int) -> list[dict[str, Any]]:
    """Runs of the store or of one dataset, newest first. One that says it runs and holds no lease has `died`."""
    store = Store.open(uri, options=options, create=False)
    columns = ["run_id", "dataset", "state", "fingerprint", "started_at", "ended_at", "message", "summary"]
    where = f"dataset = '{one_dataset(store, dataset)}'" if dataset else None
    rows = sorted(_rows(store.runs(), columns, where=where), key=lambda row: row["started_at"], reverse=True)
    for row in rows:
        row["summary"] = json.loads(row["summary"])
        if row["state"] == "running" and store.holder(row["dataset"]) != row["run_id"]:
            row["state"] = "died"
    return rows[:limit]


def _rows(table: Table, columns: list[str], *, where: str | None, limit: int | None = None) -> list[dict[str, Any]]:
    if not table.exists():
        return []
    return [row for batch in table.scan(columns, where=where, limit=limit) for row in batch.to_pylist()]
