"""Types of label values: inferred over all of them, and held against what was declared.

bool: true, false, yes, no in any case; int; float; else category. An empty value is null. Numbers with leading zeros are
names (`007`), so they make a category. Declared types read more: a declared bool also takes 1, 0 and −1, a declared int takes `3.0`.
NaN is no value and becomes null.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.source import LabelType
from schemas.tables import ARROW_LABEL, labels_type

_INT = r"^[+-]?(0|[1-9]\d{0,17})$"
_FLOAT = r"^[+-]?((0|[1-9]\d{0,17})(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
_DECLARED_INT = r"^[+-]?\d{1,18}(\.0*)?$"
_DECLARED_FLOAT = r"^[+-]?((\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|inf|infinity)$"
_TRUE = pa.array(["true", "yes"])
_FALSE = pa.array(["false", "no"])
_DECLARED_TRUE = pa.array(["true", "yes", "1", "1.0"])
_DECLARED_FALSE = pa.array(["false", "no", "0", "-1", "0.0", "-1.0"])


class Guess:
    """What type all values of a column share. Add every value, in any order and batches; then ask `type`."""

    def __init__(self) -> None:
        self._can = {"bool": True, "int": True, "float": True}
        self._values = 0

    def add(self, values: pa.StringArray) -> None:
        told = plain(values).drop_null()
        told = told.filter(pc.not_equal(pc.utf8_lower(told), "nan"))
        self._values += len(told)
        for name, test in (("bool", _is_bool), ("int", _is_int), ("float", _is_float)):
            self._can[name] = self._can[name] and bool(pc.all(test(told), min_count=0).as_py())

    @property
    def type(self) -> LabelType:
        for name in ("bool", "int", "float"):
            if self._values and self._can[name]:
                return name
        return "category"


def _is_bool(values: pa.StringArray) -> pa.BooleanArray:
    return pc.is_in(pc.utf8_lower(values), pa.concat_arrays([_TRUE, _FALSE]))


def _is_int(values: pa.StringArray) -> pa.BooleanArray:
    return pc.match_substring_regex(values, _INT)


def _is_float(values: pa.StringArray) -> pa.BooleanArray:
    return pc.match_substring_regex(values, _FLOAT)


def plain(values: pa.StringArray) -> pa.StringArray:
    """Values without the space around them; empty ones are null."""
    trimmed = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def natural_type(kind: pa.DataType) -> LabelType | None:
    """The label type of a typed (Parquet) column; None for bytes, times, lists and structs, which are no labels."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "int"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "float"
    return "category" if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind) else None


def typed(values: pa.Array, kind: LabelType) -> tuple[pa.Array, pa.BooleanArray]:
    """Values as `kind`, null where they are empty or do not fit, and which of them do not fit."""
    if values.type == ARROW_LABEL[kind] and kind in ("bool", "int"):
        return values, pc.and_(pc.is_null(values), False)
    if kind == "float" and (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        numbers = pc.cast(values, pa.float64(), safe=False)
        return pc.if_else(pc.is_nan(numbers), None, numbers), pc.and_(pc.is_null(values), False)
    told = plain(pc.cast(values, pa.string()))
    result = _read(told, kind)
    missing = pc.equal(pc.utf8_lower(told), "nan") if kind != "category" else pc.equal(told, "")
    unfit = pc.and_(pc.is_valid(told), pc.and_(pc.is_null(result), pc.invert(pc.fill_null(missing, False))))
    return result, unfit


def _read(told: pa.StringArray, kind: LabelType) -> pa.Array:
    """Text as `kind`; null where it is not one."""
    if kind == "category":
        return told
    low = pc.utf8_lower(told)
    if kind == "bool":
        yes, no = pc.is_in(low, _DECLARED_TRUE), pc.is_in(low, _DECLARED_FALSE)
        return pc.if_else(pc.or_(yes, no), yes, pa.scalar(None, pa.bool_()))
    pattern = _DECLARED_INT if kind == "int" else _DECLARED_FLOAT
    number = pc.if_else(pc.match_substring_regex(low, pattern), low, pa.scalar(None, pa.string()))
    number = pc.utf8_ltrim(number, "+")
    if kind == "int":
        number = pc.replace_substring_regex(number, r"\.0*$", "")
    return pc.cast(number, ARROW_LABEL[kind])


def label_struct(
    columns: Mapping[str, pa.Array], types: Mapping[str, LabelType], *, where: str, ids: pa.StringArray
) -> tuple[pa.StructArray, pa.StringArray]:
    """Labels of one batch as a typed struct, and for each row what did not fit: file, row, column and value, else null."""
    struct = labels_type(types)
    problems: dict[int, list[str]] = {}
    arrays = []
    for field in struct:
        values, unfit = typed(columns[field.name], types[field.name])
        arrays.append(pc.cast(values, field.type))
        for row in pc.indices_nonzero(unfit).to_pylist():
            value = columns[field.name][row].as_py()
            problems.setdefault(row, []).append(
                f"{where}: image {ids[row].as_py()}: {field.name} = {value!r} is not of type {types[field.name]}"
            )
    said = [None] * len(ids) if problems else None
    for row, texts in problems.items():
        assert said is not None
        said[row] = "; ".join(texts)  # type: ignore[call-overload]
    errors = pa.nulls(len(ids), pa.string()) if said is None else pa.array(said, pa.string())
    return pa.StructArray.from_arrays(arrays, fields=list(struct)), errors


def as_text(value: Any) -> str | None:
    """A JSON value as a label file would write it; objects and lists as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def text_columns(objects: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, pa.StringArray]:
    """JSON objects as text columns; a key that an object lacks is null."""
    rows = list(objects)
    return {name: pa.array([as_text(row.get(name)) for row in rows], pa.string()) for name in names}
