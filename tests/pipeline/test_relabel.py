"""A changed label file is taken up for images that are encoded already, and nothing else changes."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from pipeline.context import Context
from pipeline.executors.local import LocalExecutor
from pipeline.plan import make_plan
from pipeline.run import RunResult, run_job
from pipeline.steps import encode as encoding
from pipeline.store import column_values, columns
from pipeline.store.store import Store
from schemas.errors import AccountingError, StoreError
from schemas.events import Event, Notice, Progress, StepStarted
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import Job, parse_job
from tests.jobs import LABELS, image_id, job_data, make_images, rows_of

TYPED = {"bright": "bool", "round": "bool", "shade": "float"}


def job(folder: Path, **changes: Any) -> Job:
    source = {"images": f"{folder}/images/**/*.png", "labels": {"uri": f"{folder}/labels.csv", "types": TYPED}}
    return parse_job(job_data(folder, folder / "store", source=source, **changes))


def run(folder: Path, *, events: list[Event] | None = None, **changes: Any) -> RunResult:
    report = events.append if events is not None else lambda event: None
    return run_job(job(folder, **changes), report=report, executor=LocalExecutor(LocalSpec()))


def edit(folder: Path, change: Callable[[dict[str, str]], dict[str, str] | None]) -> None:
    """Rewrites the label file row by row; None leaves the row out."""
    path = folder / "labels.csv"
    with path.open(newline="") as file:
        rows = [changed for row in csv.DictReader(file) if (changed := change(row)) is not None]
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, ["id", *LABELS])
        out.writeheader()
        out.writerows(rows)


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in rows_of(folder / "store").to_pylist()}


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    """40 images in several fragments."""
    make_images(tmp_path, 40)
    run(tmp_path, steps=[{"stage": "encode", "batch_size": 4, "commit_rows": 8}])
    return tmp_path


FLIPPED = {image_id(n) for n in (3, 17, 18, 39)}


def flip(row: dict[str, str]) -> dict[str, str]:
    return row | {"bright": "false" if row["bright"] == "true" else "true"} if row["id"] in FLIPPED else row


def test_labels_change_and_nothing_else(encoded: Path) -> None:
    before = stored(encoded)
    edit(encoded, flip)
    plan = make_plan(job(encoded))
    assert (plan.steps[0].todo, plan.steps[0].note) == (0, "4 with new labels")
    events: list[Event] = []
    counts = run(encoded, events=events).steps["encode"]
    assert (counts["relabelled"], counts["encoded"], counts["in_latents"]) == (4, 0, 40)
    notes = [e.note for e in events if isinstance(e, Progress)]
    assert notes == ["writing new labels of 4 images", "new labels of 4 images written"]
    assert isinstance(events[0], StepStarted)  # a display knows the step before it hears of it
    after = stored(encoded)
    assert {i for i in after if after[i]["labels"] != before[i]["labels"]} == FLIPPED
    for i in before:
        assert after[i] | {"labels": 0} == before[i] | {"labels": 0}
        if i in FLIPPED:
            assert after[i]["labels"] == before[i]["labels"] | {"bright": not before[i]["labels"]["bright"]}


def test_the_same_command_again_writes_nothing(encoded: Path) -> None:
    edit(encoded, flip)
    run(encoded)
    store = Store.open(str(encoded / "store"))
    entry = store.current("shapes")
    assert entry is not None and entry.version == store.table(entry.table).version
    assert run(encoded).steps["encode"]["relabelled"] == 0
    assert store.current("shapes") == entry and make_plan(job(encoded)).steps[0].note == ""


def test_new_rows_are_encoded_in_the_same_run(encoded: Path) -> None:
    make_images(encoded, 5, start=40)
    edit(encoded, flip)
    counts = run(encoded).steps["encode"]
    assert (counts["relabelled"], counts["encoded"], counts["in_latents"]) == (4, 5, 45)


def test_a_row_that_left_the_file_leaves_nulls(encoded: Path) -> None:
    edit(encoded, lambda row: None if row["id"] == image_id(5) else row)
    assert run(encoded).steps["encode"]["relabelled"] == 1
    assert set(stored(encoded)[image_id(5)]["labels"].values()) == {None}
    assert run(encoded).steps["encode"]["relabelled"] == 0


def test_labels_that_cannot_be_read_leave_the_old_ones(encoded: Path) -> None:
    before = stored(encoded)
    edit(encoded, lambda row: row | {"shade": "dark"} if row["id"] == image_id(5) else flip(row))
    events: list[Event] = []
    counts = run(encoded, events=events).steps["encode"]
    assert (counts["relabelled"], counts["in_latents"], counts["in_failures"]) == (4, 40, 0)
    assert stored(encoded)[image_id(5)] == before[image_id(5)]
    assert any("1 encoded images keep theirs" in e.message for e in events if isinstance(e, Notice))


def test_an_image_that_failed_for_its_label_is_done_once_the_label_is_mended(tmp_path: Path) -> None:
    """A broken picture beside it stays failed: only what the new labels may change is tried again."""
    make_images(tmp_path, 12)
    (tmp_path / "images" / image_id(7)).write_bytes(b"no picture")
    bad = {image_id(3), image_id(5), image_id(7), image_id(8)}
    edit(tmp_path, lambda row: row | {"shade": "dark"} if row["id"] in bad else row)
    assert run(tmp_path).steps["encode"]["in_failures"] == 4
    assert make_plan(job(tmp_path)).steps[0].todo == 0, "nothing was mended yet"

    still = {image_id(8)}
    edit(tmp_path, lambda row: row | {"shade": "0.5"} if row["id"] in bad - still else row)
    step = make_plan(job(tmp_path)).steps[0]
    assert (step.todo, step.note) == (3, "1 failed before, 3 whose labels can be read now")
    counts = run(tmp_path).steps["encode"]
    assert (counts["encoded"], counts["in_latents"], counts["in_failures"]) == (2, 10, 2)
    assert stored(tmp_path)[image_id(3)]["labels"]["shade"] == 0.5
    failed = {row["id"]: row["error"] for row in rows_of(tmp_path / "store", "failures").to_pylist()}
    assert failed == {image_id(7): "not_an_image", image_id(8): "unreadable_label"}

    edit(tmp_path, lambda row: None if row["id"] in still else row)
    assert run(tmp_path).steps["encode"]["in_latents"] == 11, "an image without a label row has none to misread"
    assert make_plan(job(tmp_path)).steps[0].todo == 0


def test_an_old_reader_sees_the_old_labels_and_a_new_one_the_new(encoded: Path) -> None:
    store = Store.open(str(encoded / "store"))
    entry = store.current("shapes")
    assert entry is not None
    bright = store.table(entry.table).count_rows("labels.bright = true", version=entry.version)
    edit(encoded, lambda row: row | {"bright": "true"})
    run(encoded)
    assert store.table(entry.table).count_rows("labels.bright = true", version=entry.version) == bright < 40
    now = store.current("shapes")
    assert now is not None and store.table(now.table).count_rows("labels.bright = true", version=now.version) == 40


def test_a_death_before_the_commit_is_made_good(encoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stored(encoded)
    edit(encoded, flip)

    def die(*_: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(columns, "persist", die)
        with pytest.raises(KeyboardInterrupt):
            run(encoded)
    assert stored(encoded) == before
    data = next((encoded / "store").glob("*.latents.*.lance")) / "data"
    left = len(list(data.iterdir()))
    assert run(encoded).steps["encode"]["relabelled"] == 4
    assert {i for i, row in stored(encoded).items() if row["labels"] != before[i]["labels"]} == FLIPPED
    assert len(list(data.iterdir())) == left, "what the dead run wrote was cleaned"


def test_rows_that_another_client_moves_meanwhile_are_not_forgotten(
    encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(encoded)
    edit(encoded, flip)
    real = encoding.relabel

    def late(ctx: Context, *args: Any, **options: Any) -> int:
        lance.dataset(ctx.latents.uri).optimize.compact_files()
        return real(ctx, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(encoding, "relabel", late)
        with pytest.raises(StoreError, match="run the same command again"):
            run(encoded)
    assert stored(encoded) == before
    assert run(encoded).steps["encode"]["relabelled"] == 4
    assert {i for i, row in stored(encoded).items() if row["labels"] != before[i]["labels"]} == FLIPPED


def test_the_books_do_not_balance_while_labels_are_old(encoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels written and counted as done that the table does not hold, whatever dropped them."""
    edit(encoded, flip)
    monkeypatch.setattr(columns, "commit_operation", lambda dataset, operation, named: int(dataset.version))
    with pytest.raises(AccountingError, match="4 encoded images still have other labels"):
        run(encoded)


def test_beside_a_computed_column(encoded: Path) -> None:
    import pyarrow as pa

    from schemas.tables import computed_field

    store = Store.open(str(encoded / "store"))
    entry = store.current("shapes")
    assert entry is not None
    table = store.table(entry.table)
    field = computed_field("anomaly", pa.float32(), by="diagnose")
    constant = column_values.Computed(
        (field,), ("id",), lambda b: pa.record_batch({"anomaly": pa.array([1.5] * len(b))})
    )
    with store.lease("shapes", run_id="score") as lease:
        table.fence(lease.token)
        table.put_columns(constant, token=lease.token, properties={})
    make_images(encoded, 3, start=40)
    edit(encoded, flip)
    counts = run(encoded).steps["encode"]
    assert (counts["relabelled"], counts["encoded"]) == (4, 3)
    scores = [row["anomaly"] for row in stored(encoded).values()]
    assert sorted(scores, key=str) == [1.5] * 40 + [None] * 3


def test_hashes_of_rows_tell_values_and_nulls_apart() -> None:
    import pyarrow as pa

    from stages.row_hash import hash_structs

    kind = pa.struct([("a", pa.bool_()), ("b", pa.float64()), ("c", pa.string()), ("d", pa.int64())])
    values = [{"a": a, "b": b, "c": c, "d": d} for a in (True, False, None) for b in (0.0, 1.5, None)
              for c in ("", "x", "y", None) for d in (0, -1, None)]  # fmt: skip
    hashes = hash_structs(pa.array(values, kind))
    assert len(np.unique(hashes)) == len(values) and hashes.all()
    nothing = {"a": None, "b": None, "c": None, "d": None}
    same = hash_structs(pa.array([None, nothing, {"b": -0.0}, {"b": 0.0}], kind))
    assert same[0] == same[1] and same[2] == same[3] != same[0]
    assert (hash_structs(pa.array(values, kind).slice(7)) == hashes[7:]).all()
