"""Rows listed by a filter and in an order, computed columns with them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from store_rows import FINGERPRINT, add, batch, names

from pipeline.gallery import write_gallery
from pipeline.query import Query, QueryResult, run_query
from pipeline.show import show_query
from pipeline.store.column_values import Computed
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.tables import computed_field


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """30 rows; the score is the row's number, for the first 25 of them."""
    store = Store.open(str(tmp_path_factory.mktemp("rows") / "store"))
    with store.lease("faces", run_id="run") as lease:
        table = store.latents("faces", FINGERPRINT)
        table.create(batch([]).schema)
        table.fence(lease.token)
        add(table, names(25), token=lease.token)
        fields = (computed_field("anomaly", pa.float32(), by="diagnose"),)
        table.put_columns(Computed(fields, ("id",), _number), token=lease.token, properties={})
        add(table, names(5, start=25), token=lease.token)
        store.swap("faces", FINGERPRINT, table.name, table.version, "run", token=lease.token)
    return store.uri


def _number(rows: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch({"anomaly": pc.cast(pc.utf8_slice_codeunits(rows.column("id"), 4, 9), pa.float32())})


def ask(uri: str, **asked: object) -> list[dict[str, object]]:
    return run_query(Query(uri, {}, None, **asked)).rows  # type: ignore[arg-type]


def test_a_computed_column_filters_orders_and_shows(uri: str) -> None:
    rows = ask(uri, where="anomaly > 12 AND labels.smiling = true", order="-anomaly", k=3)
    assert [r["anomaly"] for r in rows] == [24, 22, 20]
    assert [r["id"] for r in rows] == [names(1, start=n)[0] for n in (24, 22, 20)]
    assert all("distance" not in r and r["labels"]["smiling"] for r in rows)  # type: ignore[index]
    assert [r["anomaly"] for r in ask(uri, order="anomaly", k=4)] == [0, 1, 2, 3]
    assert [r["id"] for r in ask(uri, where="anomaly > 20", k=2)] == names(2, start=21), "by id when no order is asked"


def test_rows_without_a_value_come_last(uri: str) -> None:
    for order in ("anomaly", "-anomaly"):
        rows = ask(uri, order=order, k=30)
        assert [r["anomaly"] for r in rows[25:]] == [None] * 5 and None not in [r["anomaly"] for r in rows[:25]]


def test_neighbours_show_it_too(uri: str) -> None:
    rows = ask(uri, image_id=names(1)[0], k=4, where="anomaly < 10")
    assert len(rows) == 4 and all(r["anomaly"] < 10 and r["distance"] > 0 for r in rows)  # type: ignore[operator]


def test_questions_that_cannot_be_asked(uri: str) -> None:
    with pytest.raises(JobError, match="--where FILTER or --order"):
        ask(uri)
    with pytest.raises(JobError, match="nearest first"):
        ask(uri, image_id=names(1)[0], order="anomaly")
    with pytest.raises(JobError, match=r"order = 'anomly'.*did you mean `anomaly`"):
        ask(uri, order="anomly")
    with pytest.raises(JobError, match="no column"):
        ask(uri, where="anomly > 3")


def test_a_terminal_shows_the_scores_that_were_asked_by_and_what_an_image_has() -> None:
    computed = ("typicality", "anomaly", "map_umap_1", "map_umap_2")
    labels = {"smiling": True, "old": False, "hat": None, "age": 31.25, "who": "ann"}
    rows = [{"id": "a", "uri": "x", **dict.fromkeys(computed, 0.5), "labels": labels}]

    def shown(**asked: str) -> dict[str, object]:
        (row,) = QueryResult(Query("s", {}, None, **asked), "d", "f", 1, rows, None, computed).table_rows()  # type: ignore[arg-type]
        return row

    assert shown(image_id="b") == {"id": "a", "anomaly": 0.5, "labels": "smiling, age=31.25, who=ann"}
    assert list(shown(where="typicality > 3 AND width > 2")) == ["id", "typicality", "labels"]
    assert list(shown(order="-map_umap_2", where="anomaly > 3")) == ["id", "anomaly", "map_umap_2", "labels"]


def test_shown_as_a_table_and_as_a_gallery(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_query(Query(uri, {}, None, where="anomaly > 20", order="-anomaly"))
    show_query(result, as_json=False)
    assert capsys.readouterr().out.split()[:3] == ["id", "anomaly", "labels"]
    write_gallery(result, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "4 rows" in page and "by -anomaly" in page
