"""Labels: formats, types, joining by id with one rule a file, counts, and what cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3 import s3_server

from pipeline.sources.label_values import Guess, typed
from pipeline.sources.labels import LabelIndex
from pipeline.sources.spilled import BLOCK_ROWS, Spilled
from schemas.errors import JobError, SourceError
from schemas.source import FilesSource, LabelsSpec


def batch(*ids: str, **columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": pa.array(ids, pa.string()), **columns})


def opened(path: Path | str, **options: Any) -> LabelIndex:
    return LabelIndex.open(LabelsSpec(uri=str(path), **options))


def joined(index: LabelIndex, *ids: str) -> list[dict[str, Any]]:
    labels, errors = index.join(batch(*ids))
    assert labels.type == index.type and errors.type == pa.string() and len(labels) == len(errors) == len(ids)
    assert labels.null_count == 0
    return labels.to_pylist()


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


ROWS = [
    {"image_id": "1.jpg", "smiling": True, "age": 31, "score": 0.5, "kind": "cat"},
    {"image_id": "2.jpg", "smiling": False, "age": None, "score": 2.0, "kind": None},
]
TYPES = {"smiling": "bool", "age": "int", "score": "float", "kind": "category"}
EXPECTED = [{k: v for k, v in sorted(row.items()) if k != "image_id"} for row in ROWS]


def save(folder: Path, kind: str) -> Path:
    path = folder / f"labels.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(r) for r in ROWS) + "\n\n")
    else:
        separator = "\t" if kind == "tsv" else ","
        words = [["" if v is None else str(v) for v in r.values()] for r in ROWS]
        path.write_text("\n".join(separator.join(line) for line in [list(ROWS[0]), *words]) + "\n")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_formats_say_the_same(tmp_path: Path, kind: str) -> None:
    index = opened(save(tmp_path, kind))
    assert index.types == TYPES
    assert joined(index, "2.jpg", "3.jpg", "1.jpg") == [EXPECTED[1], dict.fromkeys(sorted(TYPES)), EXPECTED[0]]
    assert (index.matched, index.images_unmatched, index.labels_unmatched) == (2, 1, 0)


def celeba(*rows: str, count: int | None = None) -> str:
    return f"{len(rows) if count is None else count}\n5_o_Clock_Shadow Smiling Young \n" + "".join(
        r + "\n" for r in rows
    )


def test_celeba_by_content(tmp_path: Path) -> None:
    path = written(tmp_path / "list_attr_celeba.txt", celeba("000001.jpg -1  1  1", "000002.jpg  0 -1  1 "))
    index = opened(path)
    assert index.types == {"5_o_Clock_Shadow": "bool", "Smiling": "bool", "Young": "bool"}
    assert joined(index, "000001.jpg", "img/000002.jpg") == [
        {"5_o_Clock_Shadow": False, "Smiling": True, "Young": True},
        {"5_o_Clock_Shadow": None, "Smiling": False, "Young": True},
    ]
    assert opened(path, columns=("Young",)).types == {"Young": "bool"}


def test_celeba_values_that_are_none_of_three(tmp_path: Path) -> None:
    path = written(tmp_path / "attr.txt", celeba("1.jpg -1  1  7", "2.jpg 1 1 1"))
    labels, errors = opened(path).join(batch("1.jpg", "2.jpg"))
    assert errors.to_pylist() == [f"{path}: image 1.jpg: Young = '7' is not of type bool", None]
    assert labels.to_pylist()[0] == {"5_o_Clock_Shadow": False, "Smiling": True, "Young": None}


@pytest.mark.parametrize(
    "text,said",
    [
        (celeba("1.jpg -1 1"), "line 3 has 3 values, not 4"),
        (celeba("1.jpg -1 1 1", count=2), "line 1 promises 2 rows, there are 1"),
        ("2\n", "the file is empty|not a CelebA"),
    ],
)
def test_broken_celeba(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        opened(written(tmp_path / "attr.txt", text), format="celeba")


def test_other_endings_are_sniffed(tmp_path: Path) -> None:
    assert opened(written(tmp_path / "a.txt", "id\tx\n1\t2\n")).types == {"x": "int"}
    assert opened(written(tmp_path / "b.txt", "id,x\n1,2\n")).types == {"x": "int"}
    assert opened(written(tmp_path / "c.txt", '{"id": "1", "x": true}\n')).types == {"x": "bool"}
    with pytest.raises(JobError, match="separated by commas"):
        opened(written(tmp_path / "d.csv", "id;x\n1;2\n"))


def test_csv_details(tmp_path: Path) -> None:
    """A byte order mark, quotes, commas and line breaks in values, spaces around names."""
    path = written(tmp_path / "l.csv", '\ufeffid, caption ,n\n"a,1.jpg","two\nlines, ""quoted""",1\n./b.jpg,,\n')
    assert joined(opened(path), "a,1.jpg", "b.jpg") == [
        {"caption": 'two\nlines, "quoted"', "n": 1},
        {"caption": None, "n": None},
    ]


# --- types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values,kind",
    [
        (["true", "False", "YES", "no", ""], "bool"),
        (["1", "-2", "+3", "0"], "int"),
        (["1", "0"], "int"),
        (["1", "2.5", "1e-3", ".5"], "float"),
        (["1", "nan"], "int"),
        (["1.5", "NaN", ""], "float"),
        (["007", "008"], "category"),
        (["true", "1"], "category"),
        (["1", "two"], "category"),
        (["123456789012345678901"], "category"),
        (["", ""], "category"),
        (["inf"], "category"),
    ],
)
def test_inferred_types(tmp_path: Path, values: list[str], kind: str) -> None:
    rows = "".join(f"{i}.jpg,{v}\n" for i, v in enumerate(values))
    assert opened(written(tmp_path / "l.csv", "id,x\n" + rows)).types == {"x": kind}


def test_inference_sees_the_last_row(tmp_path: Path) -> None:
    rows = "".join(f"{i}.jpg,{i}\n" for i in range(20_000))
    assert opened(written(tmp_path / "l.csv", f"id,x\n{rows}")).types == {"x": "int"}
    assert opened(written(tmp_path / "l.csv", f"id,x\n{rows}last.jpg,x\n")).types == {"x": "category"}


@given(
    st.lists(
        st.one_of(
            st.text(max_size=6), st.integers().map(str), st.floats().map(str), st.sampled_from(["true", "No", ""])
        )
    )
)
@settings(max_examples=200)
def test_what_is_inferred_always_fits(values: list[str]) -> None:
    column = pa.array(values, pa.string())
    guess = Guess()
    guess.add(column.slice(0, len(values) // 2))
    guess.add(column.slice(len(values) // 2))
    _, unfit = typed(column, guess.type)
    assert not any(unfit.to_pylist())


def test_declared_types_and_what_does_not_fit(tmp_path: Path) -> None:
    path = written(tmp_path / "l.csv", "id,smiling,age,zip\na.jpg,1,3.0,00123\nb.jpg,maybe,old,5\nc.jpg,-1,,\n")
    index = opened(path, types={"smiling": "bool", "age": "int", "zip": "category"})
    labels, errors = index.join(batch("a.jpg", "b.jpg", "c.jpg"))
    assert labels.to_pylist() == [
        {"age": 3, "smiling": True, "zip": "00123"},
        {"age": None, "smiling": None, "zip": "5"},
        {"age": None, "smiling": False, "zip": None},
    ]
    assert errors.to_pylist() == [
        None,
        f"{path}: image b.jpg: age = 'old' is not of type int; {path}: image b.jpg: smiling = 'maybe' is not of type bool",
        None,
    ]


def test_declared_types_of_typed_files(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2, 3], "x": [1.0, 2.5, None], "y": pa.array([1, 0, 7], pa.int8())})
    pq.write_table(table, tmp_path / "l.parquet")
    index = opened(tmp_path / "l.parquet", types={"x": "int", "y": "bool"})
    labels, errors = index.join(batch("1", "2", "3"))
    assert labels.to_pylist() == [{"x": 1, "y": True}, {"x": None, "y": False}, {"x": None, "y": None}]
    assert [e and e.rsplit(": ", 1)[1] for e in errors.to_pylist()] == [
        None,
        "x = 2.5 is not of type int",
        "y = 7 is not of type bool",
    ]


def test_columns_that_are_no_labels_are_left_out(tmp_path: Path) -> None:
    table = pa.table({"id": ["1"], "image": pa.array([b"x"]), "box": [[1, 2]], "ok": [True]})
    pq.write_table(table, tmp_path / "l.parquet")
    assert opened(tmp_path / "l.parquet").types == {"ok": "bool"}


# --- joining -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels,images,matches",
    [
        (
            ["a/1.jpg", "2.jpg"],
            ["a/1.jpg", "2.jpg", "b/2.jpg"],
            ["a/1.jpg", "2.jpg", None],
        ),  # exact: label ids have folders
        (["1.jpg", "2.jpg"], ["x/1.jpg", "y/z/2.jpg", "3.jpg"], ["1.jpg", "2.jpg", None]),  # by last part
        (["1", "2"], ["1.jpg", "x/2.PNG", "3.jpg"], ["1", "2", None]),  # without suffix
        (["a/1", "b/1"], ["a/1.jpg", "b/1.png", "c/1.jpg"], ["a/1", "b/1", None]),  # path without suffix
        (["1.2", "1.3"], ["1.2.jpg", "1.3"], ["1.2", "1.3"]),  # only image suffixes are suffixes
        (["img/1.jpg", "img/2.jpg"], ["1.jpg", "2.jpg"], ["img/1.jpg", "img/2.jpg"]),  # the image has no folder
        (["x/1.jpg", "y/1.jpg"], ["1.jpg", "x/1.jpg"], [None, "x/1.jpg"]),  # which last part is meant is unclear
        (["f.parquet#0", "f.parquet#1"], ["sub/f.parquet#1"], ["f.parquet#1"]),
    ],
)
def test_how_ids_are_compared(tmp_path: Path, labels: list[str], images: list[str], matches: list[str | None]) -> None:
    path = written(tmp_path / "l.csv", "id,me\n" + "".join(f"{i},is {i}\n" for i in labels))
    for order in (images, images[::-1]):
        index = opened(path)
        got = {image: joined(index, image)[0]["me"] for image in order}
        assert got == {image: match and f"is {match}" for image, match in zip(images, matches, strict=True)}
        assert index.matched == sum(m is not None for m in matches)
        assert index.labels_unmatched == len(labels) - index.matched


@pytest.mark.parametrize("together", [True, False])
def test_a_label_that_fits_two_images_is_refused(tmp_path: Path, together: bool) -> None:
    index = opened(written(tmp_path / "l.csv", "id,x\n1.jpg,5\n2.jpg,6\n"))
    with pytest.raises(
        JobError,
        match=r"source.labels.uri = .*l\.csv.*label of `1.jpg` fits several images, `[ab]/1.jpg`.*Fix: write whole",
    ):
        if together:
            index.join(batch("a/1.jpg", "b/1.jpg", "b/2.jpg"))
        index.join(batch("a/1.jpg"))
        index.join(batch("b/1.jpg"))


def test_two_images_that_differ_in_suffix_only_are_refused_for_bare_labels(tmp_path: Path) -> None:
    index = opened(written(tmp_path / "l.csv", "id,x\n1,5\n"))
    with pytest.raises(JobError, match="fits several images"):
        index.join(batch("1.jpg", "1.png"))


def test_joining_an_image_again_is_no_ambiguity(tmp_path: Path) -> None:
    index = opened(written(tmp_path / "l.csv", "id,x\n1.jpg,5\n"))
    assert joined(index, "a/1.jpg") == joined(index, "a/1.jpg") == [{"x": 5}]


def test_many_rows_over_blocks_in_any_order(tmp_path: Path) -> None:
    count = 2 * BLOCK_ROWS + 5
    table = pa.table({"id": [f"{i:07d}.jpg" for i in range(count)], "n": np.arange(count)})
    pq.write_table(table.take(np.random.default_rng(0).permutation(count)), tmp_path / "l.parquet")
    index = opened(tmp_path / "l.parquet")
    chosen = np.random.default_rng(1).choice(count, 3000, replace=False)
    images = [f"{i:07d}.jpg" if i % 5 else f"none{i}" for i in chosen]
    assert [row["n"] for row in joined(index, *images)] == [int(i) if i % 5 else None for i in chosen]
    assert index.labels_unmatched == count - index.matched


def test_spilled_rows_take_like_a_table() -> None:
    schema = pa.schema([("n", pa.int64()), ("s", pa.struct([("x", pa.int64())]))])
    table = pa.table({"n": range(BLOCK_ROWS + 10), "s": [{"x": i} for i in range(BLOCK_ROWS + 10)]}, schema=schema)
    spilled = Spilled(iter(table.to_batches(max_chunksize=1000)), schema)
    rows = np.array([BLOCK_ROWS + 3, -1, 0, BLOCK_ROWS - 1, -1, 0])
    got = spilled.take(rows)
    assert got.column("n").to_pylist() == [None if r < 0 else r for r in rows.tolist()]
    assert got.column("s").to_pylist() == [{"x": None if r < 0 else r} for r in rows.tolist()]
    assert spilled.take(np.array([], np.int64)).num_rows == 0
    assert sum(b.num_rows for b in spilled.batches()) == BLOCK_ROWS + 10
    assert Spilled(iter(()), schema).take(np.array([-1])).to_pylist() == [{"n": None, "s": {"x": None}}]


def test_folder_names(tmp_path: Path) -> None:
    source = FilesSource(images=f"{tmp_path}/cats/**/*.jpg")
    index = LabelIndex.open(LabelsSpec(format="folder"), source=source)
    assert index.types == {"folder": "category"}
    assert [r["folder"] for r in joined(index, "a/1.jpg", "a/b/2.jpg", "3.jpg")] == ["a", "b", "cats"]
    assert (index.matched, index.images_unmatched, index.labels_unmatched) == (3, 0, 0)


def test_labels_beside_those_of_the_listing(tmp_path: Path) -> None:
    path = written(tmp_path / "l.csv", "id,age\n1,x\n2,4\n")
    index = LabelIndex.open(LabelsSpec(uri=str(path), types={"age": "int"}), beside={"smiling": "bool"})
    own = pa.array([{"smiling": True}, {"smiling": None}])
    labels, errors = index.join(batch("1", "2", labels=own, label_error=pa.array([None, "own problem"], pa.string())))
    assert labels.to_pylist() == [{"age": None, "smiling": True}, {"age": 4, "smiling": None}]
    assert errors.to_pylist() == [f"{path}: image 1: age = 'x' is not of type int", "own problem"]
    with pytest.raises(JobError, match=r"'age'.*the source itself carries"):
        LabelIndex.open(LabelsSpec(uri=str(path)), beside={"age": "int"})


def test_label_files_in_a_bucket_use_the_sources_options(tmp_path: Path) -> None:
    with s3_server(fail_every=6) as s3:
        s3.put({"bucket/labels.csv": b"id,x\n1.jpg,5\n", "bucket/l.parquet": save(tmp_path, "parquet").read_bytes()})
        source = FilesSource(images="s3://bucket/faces", storage_options=s3.fsspec)
        index = LabelIndex.open(LabelsSpec(uri="s3://bucket/labels.csv"), source=source)
        assert joined(index, "1.jpg") == [{"x": 5}]
        assert LabelIndex.open(LabelsSpec(uri="s3://bucket/l.parquet"), source=source).types == TYPES
        local = LabelIndex.open(LabelsSpec(uri=str(save(tmp_path, "csv"))), source=source)
        assert local.types == TYPES


# --- what cannot be used -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options,field,said",
    [
        ({"id_column": "imge_id"}, "source.labels.id_column = 'imge_id'", "did you mean `image_id`"),
        ({"columns": ("smilng",)}, "source.labels.columns = 'smilng'", "did you mean `smiling`"),
        ({"columns": ("image_id",)}, "source.labels.columns = 'image_id'", "this is the id column"),
        ({"types": {"agee": "int"}}, "source.labels.types.agee", "did you mean `age`"),
        (
            {"columns": ("age",), "types": {"kind": "category"}},
            "source.labels.types.kind",
            "no label column of this name is kept",
        ),
    ],
)
def test_wrong_columns_name_the_field_and_the_nearest(
    tmp_path: Path, options: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(JobError) as error:
        opened(save(tmp_path, "csv"), **options)
    assert field in str(error.value) and said in str(error.value)


def test_all_wrong_columns_at_once(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        opened(save(tmp_path, "csv"), id_column="x", columns=("y", "z"))
    assert [p.value for p in error.value.problems] == ["x", "y", "z"]


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "l.csv", "id,x\n1.jpg,5\n2.jpg,6\n1.jpg,7\n")
    with pytest.raises(JobError, match=r"l\.csv.*the image id `1.jpg` has several label rows.*Fix"):
        opened(path)


@pytest.mark.parametrize(
    "name,text,said",
    [
        ("l.csv", "", r"the file is empty"),
        ("l.csv", "id,x\n", r"no rows in it"),
        ("l.csv", "id,x\n1.jpg\n", r"Expected 2 columns, got 1"),
        ("l.csv", "id,x,x\n1,2,3\n", r"two columns are called 'x'"),
        ("l.csv", "id,x\n1.jpg,2\n,3\n", r"row 2 has no id"),
        ("l.csv", "id\n1.jpg\n", r"no column besides the id"),
        ("l.jsonl", '{"id": "1"}\n{broken\n', r"line 2 is not JSON"),
        ("l.jsonl", "[1]\n", r"line 1 is not a JSON object"),
        ("l.jsonl", "\n", r"the file is empty"),
        ("l.parquet", "no parquet", r"l\.parquet: "),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises((SourceError, JobError), match=said) as error:
        opened(written(tmp_path / name, text))
    assert name in str(error.value)


def test_text_must_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes("id,x\n1.jpg,é\n".encode("latin-1"))
    (tmp_path / "attr.txt").write_bytes(celeba("é.jpg 1 1 1").encode("latin-1"))
    for name in ("l.csv", "attr.txt"):
        with pytest.raises(SourceError, match=rf"{name}: .*UTF-8"):
            opened(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    for name in ("none.csv", "none.txt", "none.parquet", "none.jsonl"):
        with pytest.raises(SourceError, match=rf"{name}.*Fix: "):
            opened(tmp_path / name)
