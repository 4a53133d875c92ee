"""The ledger against a plain dictionary: every standing, every count, in any split into batches."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ledger import Ledger, Status

IDS = st.integers(0, 30).map(lambda i: f"folder/image-{i}.jpg")
ROWS = st.dictionaries(IDS, st.sampled_from(["v1", "v2"]), max_size=30)


def batches(rows: dict[str, str], size: int) -> list[pa.RecordBatch]:
    items = list(rows.items())
    cuts = [items[i : i + size] for i in range(0, len(items), size)]
    return [pa.RecordBatch.from_pydict({"id": [i for i, _ in c], "source_version": [v for _, v in c]}) for c in cuts]


def standing(listed: dict[str, str], latents: dict[str, str], failures: dict[str, str]) -> list[Status]:
    def one(i: str, version: str) -> Status:
        if latents.get(i) == version:
            return Status.DONE
        if failures.get(i) == version:
            return Status.FAILED
        if i in latents:
            return Status.CHANGED
        return Status.CHANGED_FAILED if i in failures else Status.NEW

    return [one(i, v) for i, v in listed.items()]


@given(ROWS, ROWS, ROWS, st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_equals_a_dictionary(
    listed: dict[str, str], latents: dict[str, str], failures: dict[str, str], size: int
) -> None:
    with Ledger() as ledger:
        for batch in batches(listed, size):
            ledger.list_batch(batch)
        ledger.add_table("latents", iter(batches(latents, size)))
        ledger.add_table("failures", iter(batches(failures, size)))
        tally = ledger.reconcile()
    expected = standing(listed, latents, failures)
    assert [Status(s) for s in tally.status] == expected
    assert tally.counts == {s: expected.count(s) for s in Status}
    assert tally.unlisted == len(latents.keys() - listed.keys())
    assert tally.unlisted_failures == len(failures.keys() - listed.keys())
    both = [i for i, k in enumerate(listed) if k in latents and k in failures]
    assert sorted(tally.stale_failures + tally.stale_latents) == both
    assert all(expected[i] == Status.FAILED for i in tally.stale_latents)
    assert not tally.doubled and not tally.duplicates


def test_duplicates_are_named_and_doubled_rows_are_counted() -> None:
    rows = {f"{i}": "v" for i in range(100)}
    with Ledger() as ledger:
        for batch in [*batches(rows, 30), *batches({"7": "v", "50": "w"}, 5)]:
            ledger.list_batch(batch)
        ledger.add_table("latents", iter([*batches({"1": "v"}, 1), *batches({"1": "v"}, 1)]))
        tally = ledger.reconcile()
    assert tally.duplicates == [100, 101]
    assert tally.doubled == 1


def test_spilling_changes_nothing() -> None:
    rows = {f"{i:05d}": f"v{i % 3}" for i in range(5000)}
    held = dict.fromkeys(list(rows)[::2], "v1")

    def tally(spill_bytes: int) -> list[int]:
        with Ledger(spill_bytes=spill_bytes) as ledger:
            for batch in batches(rows, 512):
                ledger.list_batch(batch)
            ledger.add_table("latents", iter(batches(held, 999)))
            return ledger.reconcile().status.tolist()

    in_memory = tally(2**24)
    assert tally(1000) == in_memory
    assert np.bincount(in_memory)[Status.DONE] == sum(rows[k] == "v1" for k in held)
