"""One Lance table, as the rest of the pipeline sees it. Picklable: it is an address, opened afresh in every process.

Reads see one version from beginning to end. Writes of workers are invisible until the lease holder commits them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

from pipeline.store import clean, columns, commit, index, query, upsert
from pipeline.store.changes import Changes, changes_between, contents
from pipeline.store.column_values import ColumnValues
from pipeline.store.create import create
from pipeline.store.engine import asking
from pipeline.store.ref import TableRef, pinned
from pipeline.store.replace import key_of, rows_with
from pipeline.store.sample import sample_ids
from pipeline.store.splits import ADDRESS, ROW_ID, TableSplits, batch_rows_for, cut, row_bytes
from pipeline.store.where import checked
from schemas.errors import JobError
from schemas.job import did_you_mean
from schemas.steps import IndexStep
from schemas.tables import is_computed


@dataclass(frozen=True)
class Table:
    """A table of a store, which may not exist yet. Everything but `exists` and `create` raises StoreError when it does not."""

    ref: TableRef

    @property
    def name(self) -> str:
        return self.ref.name

    @property
    def uri(self) -> str:
        return self.ref.uri

    def exists(self) -> bool:
        """Whether the table is there. Raises StoreError when the store cannot be reached."""
        return self.ref.find() is not None

    def create(self, schema: pa.Schema) -> None:
        """Makes the table; if it is there, checks that its columns are these (StoreError names those that differ)."""
        create(self.ref, schema)

    @property
    def schema(self) -> pa.Schema:
        return self.ref.open().schema

    @property
    def version(self) -> int:
        """The newest version."""
        return int(self.ref.open().version)

    def count_rows(self, where: str | None = None, version: int | None = None) -> int:
        """Rows that meet `where`. Raises JobError for a filter this table does not understand."""
        dataset = self.ref.open(version)
        clause = checked(dataset, where)
        with asking(self.uri, "counting"):
            return int(dataset.count_rows(filter=clause))

    def clause(self, where: str | None, version: int | None = None, *, field: str = "where") -> str | None:
        """The filter in parentheses, ready to be joined with others. Raises JobError as `count_rows`; reads no rows."""
        return checked(self.ref.open(version), where, field=field)

    def scan(
        self,
        columns: Sequence[str] | None = None,
        *,
        where: str | None = None,
        version: int | None = None,
        batch_rows: int = 8192,
        limit: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows in storage order, in batches of at most `batch_rows` and 16 MiB. Memory does not grow with the table.

        A wrong filter or column raises JobError here, not at the first row.
        """
        dataset = self.ref.open(version)
        clause = checked(dataset, where)
        names = list(columns) if columns is not None else dataset.schema.names
        self._check_columns(dataset.schema, names)
        rows = batch_rows_for(row_bytes(dataset.schema, names), batch_rows)
        scanner = dataset.scanner(
            columns=names, filter=clause, batch_size=rows, strict_batch_size=True, batch_readahead=4, limit=limit
        )
        return self._batches(scanner)

    def splits(
        self, *, columns: Sequence[str], where: str | None = None, version: int | None = None, rows: int | None = None
    ) -> TableSplits:
        """The table in pieces of about `rows` rows for an executor, pinned to one version. `.rows` counts what they yield."""
        dataset = self.ref.open(version)
        clause = checked(dataset, where)
        self._check_columns(dataset.schema, columns)
        with asking(self.uri, "splitting"):
            return cut(self.ref, dataset, columns=columns, where=clause, rows=rows)

    def contents(self, version: int) -> str | None:
        """A fingerprint of the files and live rows of a version; None when it is no longer kept."""
        dataset = self.ref.find(version)
        return None if dataset is None else contents(dataset)

    def changes(self, *, since: int, version: int, columns: Sequence[str], where: str | None = None) -> Changes:
        """Rows that came and went from version `since` to `version`. Raises StoreError when either is no longer kept."""
        clause = checked(self.ref.open(version), where)
        return changes_between(self.ref, since, version, columns=columns, where=clause)

    def take(self, ids: Sequence[str], columns: Sequence[str], version: int | None = None) -> pa.Table:
        """The rows of `ids`, in their order (an id asked twice comes twice). Raises JobError naming ids that are missing."""
        dataset = self.ref.open(version)
        self._check_columns(dataset.schema, columns)
        key = key_of(dataset.schema)
        names = list(dict.fromkeys([key, *columns]))
        with asking(self.uri, "reading"):
            batches = list(rows_with(dataset, list(dict.fromkeys(ids)), names)) if ids else []
        found = pa.Table.from_batches(batches) if batches else dataset.schema.empty_table()
        place = {i: n for n, i in enumerate(found.column(key).to_pylist())}
        if missing := [i for i in ids if i not in place]:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise JobError.one(key, shown, f"not in table {self.name}.", "use ids as they were listed from the source")
        return found.select(list(columns)).take(pa.array([place[i] for i in ids], pa.int64()))

    def take_rows(self, rows: Sequence[int], columns: Sequence[str], version: int | None = None) -> pa.Table:
        """The rows with these row ids (column `_rowid` of `scan`), in their order, a row asked twice coming twice."""
        dataset = self.ref.open(version) if version is None else pinned(self.ref, version)
        wanted = ", ".join(map(str, dict.fromkeys(rows)))
        with asking(self.uri, "reading"):
            found = dataset.scanner(columns=[ROW_ID, *columns], filter=f"{ROW_ID} IN ({wanted})").to_table()
        place = {r: n for n, r in enumerate(found.column(ROW_ID).to_pylist())}
        return found.select(list(columns)).take(pa.array([place[r] for r in rows], pa.int64()))

    def sample_ids(self, count: int, *, salt: str, where: str | None = None, version: int | None = None) -> list[str]:
        """Up to `count` ids with the smallest hash: the same sample on every run, growing with `count`."""
        dataset = self.ref.open(version)
        return sample_ids(dataset, count, salt=salt, where=checked(dataset, where))

    def write(
        self, batches: Iterable[pa.RecordBatch], *, max_bytes_per_file: int = commit.MAX_BYTES_PER_FILE
    ) -> tuple[str, ...]:
        """Worker side: writes data files and returns their fragments as JSON. Nothing is visible yet. No rows → ()."""
        return commit.write(self.ref, batches, max_bytes_per_file=max_bytes_per_file)

    def fence(self, token: int) -> None:
        """Makes `token` the only one that may commit here. Whatever an older holder committed is visible afterwards."""
        commit.fence(self.ref, token)

    def commit(
        self, fragments: Sequence[str], *, token: int, properties: Mapping[str, str], replaces: Sequence[str] = ()
    ) -> int:
        """One atomic version: `fragments` come in, rows of the ids in `replaces` that were there before go out.

        `properties["attempt"]` makes it idempotent. Raises LeaseLost when the token is stale.
        """
        return commit.commit(self.ref, fragments, token=token, properties=properties, replaces=replaces)

    def delete_ids(self, ids: Sequence[str], *, token: int, properties: Mapping[str, str]) -> int:
        """Removes the rows of `ids` in one version; ids that are not there do not matter."""
        return commit.commit(self.ref, (), token=token, properties=properties, replaces=ids)

    def add_missing(self, schema: pa.Schema, *, token: int) -> None:
        """Adds the computed columns of `schema` that an older version's table lacks, null in its rows. Fence the table first."""
        columns.add_missing(self.ref, schema, token=token)

    def put_columns(
        self,
        values: ColumnValues,
        *,
        token: int,
        properties: Mapping[str, str],
        fold: columns.Fold = columns.one_by_one,
        version: int | None = None,
        rows: int | None = None,
    ) -> int:
        """Writes or replaces computed columns of rows that are there, in one atomic version; see `columns.put_columns`.

        `fold`: an executor's `reduce`, to compute on its workers. `version`: where the addresses of `values` were read.
        `rows`: how many rows have a value. Fence the table first.
        """
        return columns.put_columns(
            self.ref, values, token=token, properties=properties, fold=fold, version=version, rows=rows
        )

    def computed_at(self, version: int | None = None) -> list[str]:
        """Names of the columns that steps computed."""
        return [f.name for f in self.ref.open(version).schema if is_computed(f)]

    def listed(
        self, names: Sequence[str], *, where: str | None, order: str | None, limit: int, version: int | None = None
    ) -> pa.Table:
        """At most `limit` rows that meet `where`, by the column `order` (`-column`: greatest first), nulls last, ties by id.

        Of `names` those that the table has. Raises JobError for a filter or an order it does not understand.
        """
        dataset = self.ref.open(version)
        clause = checked(dataset, where)
        by = (order or key_of(dataset.schema)).removeprefix("-")
        self._check_columns(dataset.schema, [by], field="order")
        held = [n for n in names if n in dataset.schema.names]
        return query.ordered(dataset, held, where=clause, by=by, descending=(order or "").startswith("-"), limit=limit)

    def upsert(self, rows: pa.Table, *, only_if: str | None = None) -> int:
        """Insert or update by primary key, safe beside other writers. For small tables; makes the table when it is new.

        `only_if` over `source.…` and `target.…`: rows that are there are updated where it holds. Returns how many rows were written.
        """
        return upsert.upsert(self.ref, rows, only_if=only_if)

    def remove(self, where: str) -> int:
        """Takes out the rows that meet `where`, safe beside other writers. For small tables; returns how many those were."""
        clause = checked(self.ref.open(), where)
        assert clause is not None
        return upsert.remove(self.ref, clause)

    def clean_orphans(self, older_than: timedelta, *, token: int) -> clean.Cleaned:
        """Removes files that killed writers left; see `clean.clean_orphans` for when it is safe."""
        return clean.clean_orphans(self.ref, older_than, token=token)

    def compact(self, *, token: int, target_bytes: int = clean.TARGET_BYTES) -> int:
        """Merges small fragments towards `target_bytes`; returns how many went."""
        return clean.compact(self.ref, token=token, target_bytes=target_bytes)

    def trim_versions(self, *, keep: int, older_than: timedelta, token: int) -> clean.Cleaned:
        """Removes old versions but for the newest `keep` and the tagged ones."""
        return clean.trim_versions(self.ref, keep=keep, older_than=older_than, token=token)

    def build_vector_index(self, spec: IndexStep, *, token: int) -> index.IndexReport:
        """Builds or extends the vector index and the scalar indexes, and measures recall@10. Raises LeaseLost for a stale token."""
        return index.build_index(self.ref, spec, token=token)

    def indexed(self, version: int | None = None) -> bool:
        """Whether a vector index answers searches, and not a look at every row."""
        return query.settings_of(self.ref.open(version)).kind != "flat"

    def search(
        self,
        vector: query.Vector,
        *,
        k: int,
        where: str | None = None,
        version: int | None = None,
        exact: bool = False,
        metric: str | None = None,
        nprobes: int | None = None,
        refine: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The k nearest rows and their `_distance`, nearest first; rows newer than the index are found too.

        By the table's index as it was measured; `exact`, or a metric other than the index's, searches every row.
        """
        dataset = self.ref.open(version)
        settings = query.choose(dataset, exact=exact, metric=metric, nprobes=nprobes, refine=refine)
        return query.search(dataset, vector, k=k, settings=settings, where=checked(dataset, where), columns=columns)

    def _batches(self, scanner: Any) -> Iterator[pa.RecordBatch]:
        with asking(self.uri, "reading"):
            yield from scanner.to_batches()

    def _check_columns(self, schema: pa.Schema, columns: Iterable[str], *, field: str = "columns") -> None:
        known: dict[str, Any] = {f.name: f for f in schema}
        for name in columns:
            if name in (ROW_ID, ADDRESS):
                continue
            first, _, rest = name.partition(".")
            inside = [f.name for f in known[first].type] if first in known and rest else []
            if first not in known or (rest and rest.strip("`") not in inside):
                paths = [*known, *(f"{first}.{n}" for n in inside)]
                raise JobError.one(field, name, f"table {self.name} has no such column.", did_you_mean(name, paths))
