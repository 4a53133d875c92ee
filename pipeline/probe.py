"""`latentmill probe`: shows what a stored direction does to some images, and records what a person makes of it.

A verdict is a row of the directions table of its own, with estimator `manual`: `keep` and `rename` hold the direction under
a new name, `reject` holds the reason and no vector, so that no step can use it. What was probed stays as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline import artifacts
from pipeline.checks.machine import refuse_place
from pipeline.codec import CodecRef
from pipeline.readers import DatasetView, open_dataset
from pipeline.thumbnails import picture_of
from schemas.base import checked_name
from schemas.errors import JobError, SpaceMismatch
from schemas.job import did_you_mean
from schemas.steps import TraverseStep, Unit
from schemas.tables import directions_schema
from stages.code_sets.axes import Direction
from stages.code_sets.parents import parents_batch
from stages.code_sets.traverse import Traverse
from stages.codecs.factory import open_codec
from stages.decode import Decode
from stages.directions.direction import FitStatus
from stages.layout import grid, strength_labels
from stages.pictures import encode
from stages.render_plan import Code, codes_of
from stages.report.data import Picture, Strip, StripTable
from stages.report.probe import probe_page

Said = Literal["keep", "reject", "rename"]
MANUAL = "manual"
EVIDENCE = ("separation", "separation_low", "separation_high", "auc", "auc_low", "auc_high")
"""Figures of the fit's own attribute: they say nothing of a concept with another name."""
NUMBERS = ("vector", "raw_norm", "standard_error", "intercept", "mean", "sigma", *EVIDENCE)
FORMATS = ("png", "html")


@dataclass(frozen=True)
class Probe:
    """Which direction is looked at: at these strengths, on `rows` images chosen by a hash of the id."""

    store: str
    options: dict[str, str]
    dataset: str | None
    direction: str
    strengths: tuple[float, ...] = (-3.0, -1.5, 0.0, 1.5, 3.0)
    unit: Unit = "sigma"
    rows: int = 6
    where: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What a person says. `name`: of the kept direction; needed to rename, `manual.<direction>` otherwise."""

    said: Said
    name: str | None = None
    note: str = ""
    by: str = ""


def write_sheet(asked: Probe, to: str) -> list[str]:
    """Writes the strips as one picture (`.png`) or page (`.html`); returns the images' ids.

    Raises JobError for a direction that is not there or holds no vector, and a codec that cannot decode.
    """
    kind = to.rsplit(".", 1)[-1].lower()
    if kind not in FORMATS:
        raise JobError.one("--to", to, "a sheet is a picture or a page.", "end it with .png or .html")
    refuse_place("--to", to)
    view = open_dataset(asked.store, asked.options, asked.dataset)
    row = _stored(view, asked.direction)
    ids = view.table.sample_ids(asked.rows, salt="probe", where=asked.where, version=view.version)
    if not ids:
        raise JobError.one("--where", asked.where, "no row is left.", "loosen the filter")
    strips = _decoded(view, asked, row, ids)
    data = _picture(asked, strips) if kind == "png" else _page(view, asked, row, strips)
    artifacts.write_bytes(to, data)
    return ids


def record_verdict(asked: Probe, verdict: Verdict) -> dict[str, Any]:
    """Stores the verdict; returns its name, status and message. Raises JobError for a name that is taken or missing."""
    view = open_dataset(asked.store, asked.options, asked.dataset)
    row = _stored(view, asked.direction)
    name = _name(view, asked.direction, verdict)
    now = datetime.now(UTC)
    kept = verdict.said != "reject"
    new = row | {
        "key": f"{view.name}:{view.fingerprint}:{name}",
        "name": name,
        "attribute": name if verdict.said == "rename" else row["attribute"],
        "attributes": [asked.direction],
        "estimator": MANUAL,
        "status": str(FitStatus.OK if kept else FitStatus.REJECTED),
        "message": _message(asked.direction, verdict),
        "run_id": f"probe-{now:%Y%m%dT%H%M%S}",
        "at": now,
    }
    gone = () if verdict.said == "keep" else EVIDENCE if kept else NUMBERS
    new |= dict.fromkeys(gone)
    view.store.directions().upsert(pa.Table.from_pylist([new], directions_schema()))
    return {key: new[key] for key in ("name", "status", "message")}


def _message(direction: str, verdict: Verdict) -> str:
    done = {"keep": "kept", "reject": "rejected", "rename": "renamed"}[verdict.said]
    by = f" by {verdict.by}" if verdict.by else ""
    note = f": {verdict.note}" if verdict.note else ""
    return f"{direction} {done}{by}{note}"


def _name(view: DatasetView, direction: str, verdict: Verdict) -> str:
    if verdict.said == "rename" and verdict.name is None:
        raise JobError.one("--as", None, "a new name is missing.", "add --as NAME")
    if verdict.name is None:
        return f"{MANUAL}.{direction}"
    try:
        name = checked_name(verdict.name)
    except ValueError as error:
        raise JobError.one("--as", verdict.name, f"{error}.", "choose another") from None
    taken = {row["name"]: row["estimator"] for row in _rows(view, ["name", "estimator"])}
    if taken.get(name, MANUAL) != MANUAL:
        raise JobError.one("--as", name, f"is a direction of estimator {taken[name]}.", "choose another name")
    return name


def _stored(view: DatasetView, direction: str) -> dict[str, Any]:
    """The direction's row. What is measured on the dataset's present codec alone counts."""
    found = {row["name"]: row for row in _rows(view, None) if row["name"] == direction}
    if not found:
        names = [row["name"] for row in _rows(view, ["name"])]
        raise JobError.one("direction", direction, "no such direction.", did_you_mean(direction, names))
    row = found[direction]
    if row["status"] != FitStatus.OK:
        raise JobError.one("direction", direction, f"ended as `{row['status']}`.", "see `latentmill directions`")
    return row


def _rows(view: DatasetView, columns: list[str] | None) -> list[dict[str, Any]]:
    table = view.store.directions()
    mine = f"dataset = '{view.name}' AND fingerprint = '{view.fingerprint}'"
    wanted = columns or directions_schema().names
    return [row for batch in table.scan(wanted, where=mine) for row in batch.to_pylist()] if table.exists() else []


# ----------------------------------------------------------------------------------------------- pictures


def _decoded(view: DatasetView, asked: Probe, row: dict[str, Any], ids: Sequence[str]) -> list[list[Code]]:
    spec = view.codec_spec()
    codec = CodecRef.resolve(spec)
    if codec.fingerprint != view.fingerprint:
        reason = (
            f"the table was made by codec {view.fingerprint[:16]}, the weights there now are {codec.fingerprint[:16]}."
        )
        raise SpaceMismatch.one("probe", asked.direction, reason, "put the old weights back, or encode again")
    weights = codec.load()
    opened = open_codec(spec, weights, device="cpu")
    if "decode" not in opened.can:
        raise JobError.one(
            "codec.family", spec.family, "this codec cannot decode.", "probe directions of another codec"
        )
    direction = Direction(asked.direction, np.array(row["vector"]), float(row["sigma"]), np.array(row["mean"]))
    step = TraverseStep(name="probe", directions=(asked.direction,), strengths=asked.strengths, unit=asked.unit)
    latents = view.table.take(ids, ["latent"], version=view.version).column("latent").combine_chunks()
    decode = Decode(spec, weights=weights)
    decode.open("cpu")
    parents = parents_batch(range(len(ids)), [[i] for i in ids], [latents])
    codes = list(codes_of(decode(Traverse(step, [direction], view.latent)(parents)), opened.picture))
    frames = len(asked.strengths)
    return [codes[at : at + frames] for at in range(0, len(codes), frames)]


def _picture(asked: Probe, strips: Sequence[Sequence[Code]]) -> bytes:
    shapes = [code.pixels.shape for strip in strips for code in strip if code.pixels is not None]
    if not shapes:
        raise JobError.one("direction", asked.direction, "none of its codes could be decoded.", "try smaller strengths")
    size = shapes[0][:2]
    rows = [[code.pixels for code in strip] for strip in strips]
    return encode(grid(rows, size, labels=strength_labels(asked.strengths, asked.unit)), "png")


def _page(view: DatasetView, asked: Probe, row: dict[str, Any], strips: Sequence[Sequence[Code]]) -> bytes:
    spec = view.codec_spec()
    uris = view.table.take([strip[0].parents[0] for strip in strips], ["uri"], version=view.version).column("uri")
    table = StripTable(
        kind="traverse",
        title=asked.direction,
        step="probe",
        mode="add",
        unit=asked.unit,
        strengths=asked.strengths,
        strips=tuple(
            Strip(
                strip[0].parents,
                tuple(None if code.pixels is None else Picture.of(code.pixels) for code in strip),
                (picture_of(uri, None, spec.preprocess),),
                ", ".join(sorted({flag for code in strip for flag in code.flags})),
            )
            for strip, uri in zip(strips, uris.to_pylist(), strict=True)
        ),
    )
    return probe_page(table, dataset=view.name, fingerprint=view.fingerprint, evidence=row).encode()
