"""Filters that users write. Planned before anything is read, so a wrong one is a JobError that names it."""

import re
import uuid
from typing import Any

import pyarrow as pa

from pipeline.store.engine import MEMORY, EngineError, asking, brief, creating, is_io, lance, session
from schemas.errors import JobError
from schemas.job import did_you_mean

_SHOWN = 200
_UNKNOWN = re.compile(
    r"No field named ([^\s]+?)\.?(?:\s|,|$)|Field (\S+) not found in struct|Column (\S+) does not exist"
)


def quoted(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def checked(dataset: Any, where: str | None, *, field: str = "where") -> str | None:
    """The filter in parentheses, ready to be joined with others; None stays None.

    Raises JobError when it cannot be parsed, names an unknown column, or is not a condition.
    """
    if where is None:
        return None
    if not _is_closed(where):
        raise JobError.one(field, _shown(where), "not a filter: brackets or quotes are not closed.", "close them")
    try:
        dataset.scanner(filter=f"({where})").explain_plan()
    except EngineError as error:
        if is_io(error):
            with asking(dataset.uri, "reading"):
                raise
        raise JobError.one(field, _shown(where), *_reason(where, error, dataset.schema)) from error
    return f"({where})"


def checked_by_columns(columns: pa.Schema, where: str | None, *, field: str = "where") -> str | None:
    """The same for a table that is not there yet: an empty one of these columns is asked, in this process's memory."""
    if where is None:
        return None
    uri = f"{MEMORY}latentmill-filters-{uuid.uuid4().hex}"
    with creating():
        empty = lance.write_dataset(columns.empty_table(), uri, session=session())
    return checked(empty, where, field=field)


def both(first: str | None, second: str | None) -> str | None:
    """Both conditions; None stands for no condition."""
    return " AND ".join(clause for clause in (first, second) if clause) or None


def _is_closed(where: str) -> bool:
    """Whether the filter stays inside parentheses put around it: `a) OR (b` would not, and Lance does not mind."""
    bare = re.sub(r"""'(?:[^']|'')*'|"[^"]*"|`[^`]*`""", "", where)
    depths = [bare[: k + 1].count("(") - bare[: k + 1].count(")") for k, c in enumerate(bare) if c in "()"]
    return not re.search("['\"`;]", bare) and min(depths, default=0) >= 0 and (depths or [0])[-1] == 0


def _shown(where: str) -> str:
    return where if len(where) <= _SHOWN else where[:_SHOWN] + "…"


def _reason(where: str, error: BaseException, schema: pa.Schema) -> tuple[str, str]:
    labels = [f.name for f in schema.field("labels").type] if "labels" in schema.names else []
    if match := _UNKNOWN.search(str(error)):
        name = next(g for g in match.groups() if g).strip('"`')
        if name in labels:
            return f"`{name}` is a label.", f"write {label_path(name)}"
        known = [label_path(n) for n in labels] + [f.name for f in schema if f.name != "labels"]
        asked = label_path(name) if match[2] else name
        return f"the table has no column `{asked}`.", did_you_mean(asked, known)
    for name in labels:
        if not is_plain(name) and re.search(rf"labels\.{re.escape(name)}", where):
            return "this label's name needs quotes.", f"write {label_path(name)}"
    reason = brief(error).removeprefix("Invalid user input: ").replace("SELECT 1 FROM t WHERE ", "")
    return f"not a filter this table understands: {reason}.", "for example: labels.smiling = true AND width >= 64"


def is_plain(name: str) -> bool:
    """Whether a label can be named in SQL without quotes."""
    return name.isidentifier() and name.isascii()


def label_path(name: str) -> str:
    """How a label is written in a filter: `labels.smiling`, or ``labels.`5 o'clock` `` when it needs quotes."""
    return f"labels.{name}" if is_plain(name) else f"labels.`{name}`"
