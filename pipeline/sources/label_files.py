"""Label files as streams of columns: CSV, TSV, Parquet, JSON lines, and CelebA's attribute list.

Text formats give every column as text, to be typed by all of its values; Parquet gives its own types; CelebA gives booleans
(1 true, −1 false, 0 unknown). Which is which is told by the name's ending, and for other endings by the first lines.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from pipeline.artifacts import Options, open_read
from pipeline.faults import explained, faults
from pipeline.sources.base import BATCH_ROWS
from pipeline.sources.label_values import natural_type, text_columns
from schemas.errors import SourceError
from schemas.source import LabelsSpec, LabelType

_ENDINGS = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_HEADER_BYTES = 4 * 2**20
BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class LabelFile:
    """`names`: every column, in the file's order. `types`: of the columns whose type the format itself tells.

    `batches(columns)` streams those columns, as text or as what `types` says; each call reads the file anew.
    """

    uri: str
    names: tuple[str, ...]
    batches: Callable[[Iterable[str]], Iterator[pa.RecordBatch]]
    types: dict[str, LabelType] = field(default_factory=dict)


def open_label_file(spec: LabelsSpec, options: Options) -> LabelFile:
    """Opens a label file and reads its header. Raises SourceError when it is missing, empty or not of its format."""
    uri = str(spec.uri)
    with reading(uri):
        kind = spec.format if spec.format != "auto" else _kind(uri, options)
        match kind:
            case "parquet":
                return _parquet(uri, options)
            case "jsonl":
                return _json_lines(uri, options)
            case "celeba":
                return _celeba(uri, options)
            case _:
                return _separated(uri, options, "\t" if kind == "tsv" else ",")


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turns what can go wrong in a file of columns into a SourceError that names it."""
    try:
        yield
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(
            f"{uri}: {error}. Fix: mend the file; text must be UTF-8, with as many values in every row."
        ) from error
    except faults() as error:
        raise explained(uri, error) from error


def _kind(uri: str, options: Options) -> str:
    for ending, kind in _ENDINGS.items():
        if uri.lower().endswith(ending):
            return kind
    with open_read(uri, options) as file:
        first, second = file.readline(_HEADER_BYTES), file.readline(_HEADER_BYTES)
    if first.strip().isdigit() and len(second.split()) > 0:
        return "celeba"
    if first.lstrip().startswith(b"{"):
        return "jsonl"
    return "tsv" if b"\t" in first else "csv"


# --- CSV and TSV ---------------------------------------------------------------------------------------------------


def _separated(uri: str, options: Options, separator: str) -> LabelFile:
    with open_read(uri, options) as file:
        header = file.readline(_HEADER_BYTES).decode("utf-8-sig")
    names = tuple(name.strip() for name in next(csv.reader([header], delimiter=separator), []))
    if not any(names):
        raise SourceError(f"{uri}: the file is empty. Fix: begin with a line of column names.")
    if repeated := sorted({n for n in names if names.count(n) > 1}):
        raise SourceError(f"{uri}: two columns are called {repeated[0]!r}. Fix: give every column its own name.")

    def batches(columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
        with reading(uri), open_read(uri, options) as file:
            yield from csv_batches(file, names, separator, list(columns))

    return LabelFile(uri, names, batches)


def csv_batches(file: BinaryIO, names: tuple[str, ...], separator: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a separated file as text, after its header line."""
    reader = pcsv.open_csv(
        file,
        read_options=pcsv.ReadOptions(column_names=list(names), skip_rows=1, block_size=4 * BLOCK_BYTES),
        parse_options=pcsv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=pcsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=columns,
            strings_can_be_null=True,
            null_values=[""],
        ),
    )
    for batch in reader:
        yield from (batch.slice(start, BATCH_ROWS) for start in range(0, batch.num_rows, BATCH_ROWS))


# --- Parquet -------------------------------------------------------------------------------------------------------


def _parquet(uri: str, options: Options) -> LabelFile:
    with open_read(uri, options) as file:
        schema = pq.ParquetFile(file).schema_arrow

    def batches(columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
        with reading(uri), open_read(uri, options) as file:
            yield from pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=list(columns))

    types = {f.name: kind for f in schema if (kind := natural_type(f.type))}
    return LabelFile(uri, tuple(types), batches, types)


# --- JSON lines ----------------------------------------------------------------------------------------------------


def _json_lines(uri: str, options: Options) -> LabelFile:
    names: dict[str, None] = {}  # in order of first appearance
    for rows in _objects(uri, options):
        for row in rows:
            names.update(dict.fromkeys(row))
    if not names:
        raise SourceError(f"{uri}: the file is empty. Fix: write one JSON object a line.")

    def batches(columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
        wanted = list(columns)
        for rows in _objects(uri, options):
            yield pa.RecordBatch.from_pydict(text_columns(rows, wanted))

    return LabelFile(uri, tuple(names), batches)


def _objects(uri: str, options: Options) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for number, line in _lines(uri, options):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SourceError(
                f"{uri}: line {number} is not JSON ({error}). Fix: write one JSON object a line."
            ) from error
        if not isinstance(row, dict):
            raise SourceError(f"{uri}: line {number} is not a JSON object. Fix: write one JSON object a line.")
        rows.append(row)
        if len(rows) == BATCH_ROWS:
            yield rows
            rows = []
    if rows:
        yield rows


def _lines(uri: str, options: Options) -> Iterator[tuple[int, str]]:
    with reading(uri), open_read(uri, options) as file:
        for number, line in enumerate(file, 1):
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")


# --- CelebA --------------------------------------------------------------------------------------------------------


def _celeba(uri: str, options: Options) -> LabelFile:
    lines = _lines(uri, options)
    count = next(lines, (1, ""))[1].strip()
    attributes = next(lines, (2, ""))[1].split()
    lines.close()  # type: ignore[attr-defined]
    if not count.isdigit() or not attributes:
        raise SourceError(
            f"{uri}: not a CelebA attribute file. Fix: line 1 is the number of rows, line 2 the attributes' names."
        )
    names = ("image_id", *attributes)

    def batches(columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
        wanted, total, number = list(columns), 0, 3
        with reading(uri), open_read(uri, options) as file:
            file.readline()
            file.readline()
            while lines := file.readlines(BLOCK_BYTES):
                batch = _celeba_batch(lines, names, uri, number)
                number += len(lines)
                total += batch.num_rows
                yield batch.select(wanted)
        if total != int(count):
            raise SourceError(f"{uri}: line 1 promises {count} rows, there are {total}. Fix: download the whole file.")

    return LabelFile(uri, names, batches, dict.fromkeys(attributes, "bool"))


def _celeba_batch(lines: list[bytes], names: tuple[str, ...], uri: str, number: int) -> pa.RecordBatch:
    """Lines as columns of text, 0 as null. CelebA pads with spaces; squeezed to one, they are what Arrow's reader can split."""
    block = b"".join(lines).replace(b"\t", b" ").replace(b"\r", b"")
    while b"  " in block:
        block = block.replace(b"  ", b" ")
    block = block.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")
    if not block.strip():
        return pa.RecordBatch.from_pydict({name: pa.array([], pa.string()) for name in names})
    try:
        table = pcsv.read_csv(
            pa.BufferReader(block),
            read_options=pcsv.ReadOptions(column_names=list(names), use_threads=False),
            parse_options=pcsv.ParseOptions(delimiter=" ", quote_char=False),
            convert_options=pcsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        ).combine_chunks()
    except pa.ArrowInvalid:
        short = [(i, len(line.split())) for i, line in enumerate(lines) if len(line.split()) not in (0, len(names))]
        if not short:
            raise
        raise SourceError(
            f"{uri}: line {number + short[0][0]} has {short[0][1]} values, not {len(names)} (a name and {len(names) - 1} attributes). "
            "Fix: mend the line."
        ) from None
    zero, nothing = pa.scalar("0"), pa.scalar(None, pa.string())
    columns = [table.column(n).combine_chunks() for n in names]
    return pa.RecordBatch.from_arrays(
        [columns[0], *(pc.if_else(pc.equal(c, zero), nothing, c) for c in columns[1:])], names=list(names)
    )
