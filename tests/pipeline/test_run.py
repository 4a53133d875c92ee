"""Runs on the local executor with the exact codec: what changes, what stays, what is counted."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest

from pipeline.codec import CodecRef
from pipeline.executors.local import LocalExecutor
from pipeline.readers import list_failures
from pipeline.run import RunResult, run_job
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import JobError, LeaseHeld, LeaseLost, TooManyFailures
from schemas.events import Event
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from tests.jobs import image_id, job_data, make_images, picture, rows_of, spoil


def run(folder: Path, *, events: list[Event] | None = None, retry: bool = False, **changes: Any) -> RunResult:
    job = parse_job(job_data(folder, folder / "store", **changes))
    report = events.append if events is not None else lambda event: None
    return run_job(job, report=report, executor=LocalExecutor(LocalSpec()), retry_failures=retry)


def write_png(path: Path, index: int) -> None:
    import cv2

    ok, data = cv2.imencode(".png", picture(index)[..., ::-1])
    assert ok
    path.write_bytes(data.tobytes())


def test_one_file_in_three_is_broken_and_the_run_finishes(tmp_path: Path) -> None:
    make_images(tmp_path, 60)
    broken = spoil(tmp_path, 3)
    counts = run(tmp_path).steps["encode"]
    assert (counts["listed"], counts["in_latents"], counts["in_failures"]) == (60, 60 - broken, broken)
    failures = rows_of(tmp_path / "store", "failures")
    assert set(failures["error"].to_pylist()) == {"zero_bytes", "not_an_image", "truncated"}
    for row in failures.to_pylist():
        assert row["uri"] in row["message"] and row["uri"].endswith(row["id"])


def test_new_and_changed_images_alone_are_encoded_and_replace_their_rows(tmp_path: Path) -> None:
    make_images(tmp_path, 30)
    run(tmp_path)
    before = {r["id"]: r for r in rows_of(tmp_path / "store").to_pylist()}
    make_images(tmp_path, 5, start=30)
    write_png(tmp_path / "images" / image_id(3), 999)
    counts = run(tmp_path).steps["encode"]
    assert (counts["encoded"], counts["in_latents"], counts["already"]) == (6, 35, 29)
    after = {r["id"]: r for r in rows_of(tmp_path / "store").to_pylist()}
    assert len(after) == 35
    changed = {i for i in before if before[i]["latent"] != after[i]["latent"]}
    assert changed == {image_id(3)}
    assert before[image_id(3)]["content_hash"] != after[image_id(3)]["content_hash"]


def test_failures_are_left_alone_until_they_are_asked_for(tmp_path: Path) -> None:
    make_images(tmp_path, 12)
    path = tmp_path / "images" / image_id(4)
    good, stamp = path.read_bytes(), path.stat()
    path.write_bytes(good[: len(good) // 2])
    first = run(tmp_path).steps["encode"]
    assert (first["in_latents"], first["in_failures"]) == (11, 1)
    assert run(tmp_path).steps["encode"]["encoded"] == 0
    again = run(tmp_path, retry=True).steps["encode"]
    assert (again["encoded"], again["in_failures"]) == (0, 1)
    assert rows_of(tmp_path / "store", "failures").num_rows == 1
    path.write_bytes(good)
    healed = run(tmp_path).steps["encode"]  # another version of the file: tried without being asked
    assert (healed["encoded"], healed["in_latents"], healed["in_failures"]) == (1, 12, 0)
    assert stamp.st_size == path.stat().st_size


def test_an_image_that_turns_bad_leaves_latents(tmp_path: Path) -> None:
    make_images(tmp_path, 8)
    run(tmp_path)
    (tmp_path / "images" / image_id(2)).write_bytes(b"not an image any more")
    counts = run(tmp_path).steps["encode"]
    assert (counts["in_latents"], counts["in_failures"]) == (7, 1)
    assert image_id(2) not in rows_of(tmp_path / "store")["id"].to_pylist()


def test_removed_images_are_counted_and_kept(tmp_path: Path) -> None:
    make_images(tmp_path, 8)
    run(tmp_path)
    (tmp_path / "images" / image_id(0)).unlink()
    counts = run(tmp_path).steps["encode"]
    assert (counts["listed"], counts["in_latents"], counts["no_longer_listed"]) == (7, 7, 1)


@pytest.mark.parametrize(("allowed", "stops"), [(3, True), (0.05, True), (0.5, False), (20, False), (None, False)])
def test_max_failures(tmp_path: Path, allowed: float | None, stops: bool) -> None:
    make_images(tmp_path, 20)
    spoil(tmp_path, 4)
    if stops:
        with pytest.raises(TooManyFailures, match="5 of 20 images failed"):
            run(tmp_path, max_failures=allowed)
    else:
        run(tmp_path, max_failures=allowed)
    kept = rows_of(tmp_path / "store").num_rows + rows_of(tmp_path / "store", "failures").num_rows
    assert kept == 20, "what workers finished is kept, also by a run that stops"


def test_an_unreadable_label_is_a_failure_row(tmp_path: Path) -> None:
    make_images(tmp_path, 6)
    labels = tmp_path / "labels.csv"
    labels.write_text(
        labels.read_text().replace(f"{image_id(1)},", f"{image_id(1)},perhaps,").replace(",true,", ",true,")
    )
    rows = [line.split(",") for line in labels.read_text().splitlines()]
    rows = [r[:2] + r[-2:] if len(r) > 4 else r for r in rows]
    labels.write_text("\n".join(",".join(r) for r in rows) + "\n")
    types = {"bright": "bool", "round": "bool"}
    source = {"images": f"{tmp_path}/images/**/*.png", "labels": {"uri": str(labels), "types": types}}
    counts = run(tmp_path, source=source).steps["encode"]
    assert counts["in_failures"] == 1
    (failure,) = rows_of(tmp_path / "store", "failures").to_pylist()
    assert (failure["id"], failure["error"]) == (image_id(1), "unreadable_label")
    assert "perhaps" in failure["message"]


def test_labels_are_typed_and_where_reaches_them(tmp_path: Path) -> None:
    make_images(tmp_path, 40)
    steps = [
        {"stage": "encode"},
        {"stage": "traverse", "coordinates": [1], "where": "labels.bright = true", "limit": 5},
    ]
    run(tmp_path, steps=[*steps, {"stage": "render", "to": str(tmp_path / "out"), "layout": "image"}])
    rows = {r["id"]: r["labels"] for r in rows_of(tmp_path / "store").to_pylist()}
    assert all(isinstance(r["bright"], bool) and isinstance(r["shade"], float) for r in rows.values())
    renders = Store.open(str(tmp_path / "store")).renders("shapes")
    parents = {r["parents"][0] for b in renders.scan(["parents"]) for r in b.to_pylist()}
    assert len(parents) == 5 and all(rows[p]["bright"] for p in parents)


def test_a_direction_of_another_codec_is_refused_with_both_names(tmp_path: Path) -> None:
    make_images(tmp_path, 40)
    run(tmp_path, steps=[{"stage": "encode"}, {"stage": "fit", "attributes": ["bright"]}])
    other = {"family": "linear", "dim": 4, "preprocess": {"size": 16}}
    steps = [{"stage": "encode"}, {"stage": "traverse", "directions": ["bright"]}, {"stage": "render", "to": "x"}]
    with pytest.raises(JobError) as caught:
        run(tmp_path, codec=other, steps=steps)
    one, two = (
        CodecRef.resolve(parse_job(job_data(tmp_path, "x", **c)).codec).fingerprint for c in ({}, {"codec": other})
    )
    assert one[:16] in str(caught.value) and two[:16] in str(caught.value)


def test_hostile_ids_cannot_leave_the_target(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    make_images(tmp_path, 3)
    pictures = [p.read_bytes() for p in sorted((tmp_path / "images").rglob("*.png"))]
    ids = ["../../escaped", "/etc/absolute", "a/../../../b"]
    pq.write_table(pa.table({"id": ids, "image": pictures}), tmp_path / "rows.parquet")
    source = {"images": str(tmp_path / "rows.parquet"), "id_column": "id"}
    target = tmp_path / "deep" / "target"
    steps = [{"stage": "encode"}, {"stage": "traverse", "coordinates": [0]}, {"stage": "render", "to": str(target)}]
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    run(tmp_path, source=source, steps=steps)
    new = {p for p in tmp_path.rglob("*") if p.is_file()} - before
    outside = [p for p in new if target not in p.parents and (tmp_path / "store") not in p.parents]
    assert not outside
    assert len([p for p in new if target in p.parents]) == 3


def test_two_runs_in_one_process_do_not_share_a_dataset(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    store = Store.open(str(tmp_path / "store"))
    with store.lease("shapes", run_id="other-run"), pytest.raises(LeaseHeld, match="other-run"):
        run(tmp_path)
    assert run(tmp_path).steps["encode"]["encoded"] == 4


def test_readers_see_the_dataset_only_when_it_is_whole(tmp_path: Path) -> None:
    make_images(tmp_path, 10)
    store = Store.open(str(tmp_path / "store"))
    run(tmp_path)
    first = store.current("shapes")
    assert first is not None
    make_images(tmp_path, 5, start=10)
    seen: list[int] = []

    def look(event: Event) -> None:
        entry = store.current("shapes")
        assert entry is not None
        if event.event == "progress":
            seen.append(store.table(entry.table).count_rows(version=entry.version))

    job = parse_job(job_data(tmp_path, tmp_path / "store"))
    run_job(job, report=look, executor=LocalExecutor(LocalSpec()))
    assert seen and set(seen) == {10}
    now = store.current("shapes")
    assert now is not None and store.table(now.table).count_rows(version=now.version) == 15


def test_run_records_say_what_was_done(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    result = run(tmp_path)
    (row,) = [r for b in Store.open(str(tmp_path / "store")).runs().scan() for r in b.to_pylist()]
    assert (row["run_id"], row["state"], row["dataset"]) == (result.run_id, "done", "shapes")
    assert '"in_latents": 4' in row["summary"]
    assert not list((tmp_path / "store" / "_work").glob("*/*")), "work files go when the run ends"


def test_latents_are_those_of_the_codec(tmp_path: Path) -> None:
    """Truth, not agreement: z = A(x − ½) computed here from the file's own pixels."""
    import torch

    from schemas.codec import LinearCodec, Preprocess
    from stages.codecs.factory import open_codec

    make_images(tmp_path, 5, size=16)
    run(tmp_path)
    codec = open_codec(LinearCodec(dim=8, preprocess=Preprocess(size=(16, 16))))
    for i, row in enumerate(sorted(rows_of(tmp_path / "store").to_pylist(), key=lambda r: r["id"][2:])):
        expected = codec.encode(torch.from_numpy(picture(i, 16)[None])).mean[0].numpy()
        np.testing.assert_array_equal(np.array(row["latent"], np.float32), expected)


def test_source_and_store_in_memory(tmp_path: Path) -> None:
    """`memory://` is this process's own: good for tests and notebooks, with the local executor."""
    from pipeline import artifacts

    make_images(tmp_path, 6)
    for path in (tmp_path / "images").rglob("*.png"):
        artifacts.write_bytes(f"memory://run-test/images/{path.name}", path.read_bytes())
    source = {"images": "memory://run-test/images/*.png"}
    job = parse_job(job_data(tmp_path, "memory://run-test-store", source=source))
    for encoded in (6, 0):
        result = run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec()))
        assert result.steps["encode"]["encoded"] == encoded
        assert result.steps["encode"]["in_latents"] == 6


def test_a_commit_between_the_plan_and_the_fence_is_seen(tmp_path: Path) -> None:
    """An earlier holder, whose lease ran out, gets its last commit in after this run has counted: no row comes twice."""
    make_images(tmp_path, 12)
    run(tmp_path)
    store = Store.open(str(tmp_path / "store"))
    entry = store.current("shapes")
    assert entry is not None
    table = store.table(entry.table)
    rows = pa.Table.from_batches(table.scan(version=entry.version))
    with store.lease("shapes", run_id="zombie") as old:
        table.fence(old.token)
        late = table.write(rows.slice(0, 5).to_batches())
        table.delete_ids(rows["id"].to_pylist()[:5], token=old.token, properties={"run": "zombie", "attempt": "1"})

    def commit_late(event: Event) -> None:
        # The first event comes after the plan has listed and counted, and before this run has fenced the table.
        if event.event == "notice":
            table.commit(late, token=old.token, properties={"run": "zombie", "attempt": "2"})

    labels = tmp_path / "labels.csv"
    labels.write_text(labels.read_text() + "no/such-image.png,true,true,0.5\n")  # so that there is a notice
    job = parse_job(job_data(tmp_path, tmp_path / "store"))
    counts = run_job(job, report=commit_late, executor=LocalExecutor(LocalSpec())).steps["encode"]
    assert (counts["in_latents"], counts["encoded"]) == (12, 0)
    assert rows_of(tmp_path / "store")["id"].to_pylist() == sorted(image_id(i) for i in range(12))


def expire(store: Store) -> None:
    """Ends the dataset's lease by the clock, as a pause of its holder would: the next run takes it over."""
    store.table("leases").ref.open().update({"expires": "timestamp '2000-01-01 00:00:00'"}, where="dataset = 'shapes'")


def test_work_files_go_with_their_run_and_no_other(tmp_path: Path) -> None:
    """A run loses its lease half-way; its heir is at work when it ends."""
    make_images(tmp_path, 60)
    store = Store.open(str(tmp_path / "store"))
    work = tmp_path / "store" / "_work" / "shapes"
    (work / "left-by-a-dead-run").mkdir(parents=True)
    (work / "left-by-a-dead-run" / "000-encode.arrow").write_bytes(b"x")
    seen: list[set[str]] = []

    with ExitStack() as held:

        def take_over(event: Event) -> None:
            if event.event == "progress" and not seen:
                seen.append({p.name for p in work.iterdir()})
                expire(store)
                heir = held.enter_context(store.lease("shapes", run_id="heir"))
                for path in (tmp_path / "store").glob("*.latents.*.lance"):
                    store.table(path.name.removesuffix(".lance")).fence(heir.token)
                (work / "heir").mkdir()
                (work / "heir" / "000-encode.arrow").write_bytes(b"x")

        steps = [{"stage": "encode", "batch_size": 4, "commit_rows": 4, "commit_seconds": 0.1}]
        job = parse_job(job_data(tmp_path, tmp_path / "store", steps=steps))
        with pytest.raises(LeaseLost):
            run_job(job, report=take_over, executor=LocalExecutor(LocalSpec()))
        assert len(seen[0]) == 1 and seen[0] != {"left-by-a-dead-run"}, "cleared when the run began"
        assert [p.relative_to(work) for p in work.rglob("*.arrow")] == [Path("heir/000-encode.arrow")]
    run(tmp_path)
    assert not list(work.iterdir())


@pytest.mark.parametrize("late", [False, True])
def test_what_a_run_finds_after_it_lost_its_lease_is_not_stored(
    tmp_path: Path, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heir has fitted on more images. `late`: the takeover comes after the run's last look at its lease."""
    make_images(tmp_path, 40)
    encode, fit = {"stage": "encode"}, {"stage": "fit", "attributes": ["bright"], "estimator": "mean_difference"}
    run(tmp_path, steps=[encode])
    store = Store.open(str(tmp_path / "store"))
    heirs: list[str] = []

    def take_over() -> None:
        if not heirs:
            heirs.append("")
            expire(store)
            make_images(tmp_path, 20, start=40)
            heirs[0] = run(tmp_path, steps=[encode, fit]).run_id

    def report(event: Event) -> None:
        if not late and event.event == "step_started":
            take_over()

    real = Table.upsert

    def upsert(self: Table, rows: pa.Table, **options: Any) -> int:
        if late and "dataset_version" in rows.schema.names and "estimator" in rows.schema.names:
            take_over()
        return real(self, rows, **options)

    monkeypatch.setattr(Table, "upsert", upsert)
    job = parse_job(job_data(tmp_path, tmp_path / "store", steps=[fit]))
    with pytest.raises(LeaseLost):
        run_job(job, report=report, executor=LocalExecutor(LocalSpec()))
    (held,) = [r for b in store.directions().scan(["run_id", "n"]) for r in b.to_pylist()]
    assert held == {"run_id": heirs[0], "n": 60}
    states = {r["run_id"]: r["state"] for b in store.runs().scan(["run_id", "state"]) for r in b.to_pylist()}
    assert sorted(states.values()) == ["done", "done", "failed"] and states[heirs[0]] == "done"


def test_directions_of_latents_that_are_gone_are_replaced(tmp_path: Path) -> None:
    """Versions begin again when the table is made anew: they say nothing about the age of a direction then."""
    make_images(tmp_path, 40)
    encode, fit = {"stage": "encode", "batch_size": 4, "commit_rows": 4}, {"stage": "fit", "attributes": ["bright"]}
    run(tmp_path, steps=[encode, fit])
    for path in (tmp_path / "store").glob("*.latents.*.lance"):
        shutil.rmtree(path)
    second = run(tmp_path, steps=[{"stage": "encode"}, fit | {"refresh": "rebuild"}]).run_id
    directions = Store.open(str(tmp_path / "store")).directions()
    assert [r["run_id"] for b in directions.scan(["run_id"]) for r in b.to_pylist()] == [second]


def test_a_step_does_not_begin_without_the_lease(tmp_path: Path) -> None:
    make_images(tmp_path, 12)
    store = Store.open(str(tmp_path / "store"))
    begun: list[str] = []

    def report(event: Event) -> None:
        if event.event == "step_started":
            begun.append(event.stage)
        if event.event == "step_finished":
            expire(store)
            with store.lease("shapes", run_id="heir"):
                pass

    fit = {"stage": "fit", "attributes": ["bright"]}
    job = parse_job(job_data(tmp_path, tmp_path / "store", steps=[{"stage": "encode"}, fit]))
    with pytest.raises(LeaseLost, match="another run took it over"):
        run_job(job, report=report, executor=LocalExecutor(LocalSpec()))
    assert begun == ["encode"]


def test_deleted_pictures_are_rendered_again(tmp_path: Path) -> None:
    make_images(tmp_path, 6)
    steps = [{"stage": "encode"}, {"stage": "traverse", "coordinates": [0], "strengths": [0, 1]}]
    steps.append({"stage": "render", "to": str(tmp_path / "out")})
    assert run(tmp_path, steps=steps).steps["render"]["codes"] == 12
    assert run(tmp_path, steps=steps).steps["render"]["codes"] == 0
    sorted((tmp_path / "out").rglob("*.png"))[2].unlink()
    assert run(tmp_path, steps=steps).steps["render"]["codes"] == 2
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6


def test_failures_are_listed_also_after_a_run_that_stopped(tmp_path: Path) -> None:
    make_images(tmp_path, 12)
    spoil(tmp_path, 3)
    with pytest.raises(TooManyFailures):
        run(tmp_path, max_failures=1)
    found = list_failures(str(tmp_path / "store"), {}, None, where=None, limit=50)
    assert len(found) == 4


def test_compacted_tables_hold_the_same_rows_in_fewer_fragments(tmp_path: Path) -> None:
    make_images(tmp_path, 40)
    many = [{"stage": "encode", "batch_size": 4, "commit_rows": 5}]
    upkeep = {"stage": "compact", "keep_versions": 1, "keep_hours": 0}
    first = run(tmp_path, steps=many).steps["encode"]
    before = rows_of(tmp_path / "store")
    make_images(tmp_path, 10, start=40)
    again = run(tmp_path, steps=[*many, upkeep])
    after = rows_of(tmp_path / "store")
    assert first["commits"] > 1 and again.steps["compact"]["fragments"] > 1 and again.steps["compact"]["versions"] > 0
    assert after.num_rows == 50
    kept = after.filter(pa.compute.is_in(after.column("id"), before.column("id")))
    assert kept.select(["id", "latent", "content_hash"]).equals(before.select(["id", "latent", "content_hash"]))
    (table,) = (tmp_path / "store").glob("*.latents.*.lance")
    assert len(lance.dataset(str(table)).get_fragments()) == 1
    assert run(tmp_path, steps=[*many, upkeep]).steps["compact"]["fragments"] == 0


def test_a_bootstrap_leaves_the_angle_with_the_measurements(tmp_path: Path) -> None:
    folder = make_images(tmp_path, 60)
    fit = {"stage": "fit", "attributes": ["bright"], "bootstrap": 40, "group": "id:/"}
    run(folder, steps=[{"stage": "encode"}, fit])
    store = Store.open(str(tmp_path / "store"))
    found = {row["metric"]: row for b in store.measurements().scan() for row in b.to_pylist()}
    assert found.keys() == {"angle", "stability"}
    assert found["angle"]["subject"] == "bright" and found["angle"]["unit"] == "°"
