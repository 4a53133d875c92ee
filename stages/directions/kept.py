"""The statistic of a fit as bytes, to be kept beside its directions: JSON for the shape, one array after another for the numbers.

A closed set of types, so nothing that is read can run code. Numbers come back bit for bit.
"""

import io
import json
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from stages.attributes import LabelCounts
from stages.directions.cells import CellTable
from stages.directions.regression import Regressed
from stages.directions.row_sets import RowSets
from stages.moments import GroupMoments, Moments

_TYPES = {kind.__name__: kind for kind in (Moments, GroupMoments, LabelCounts, CellTable, Regressed, RowSets)}


def freeze(state: Any) -> bytes:
    """Raises TypeError for a value of another type than those a fit's statistics are made of."""
    arrays: list[np.ndarray] = []
    shape = json.dumps(_plain(state, arrays)).encode()
    file = io.BytesIO()
    file.write(len(shape).to_bytes(8, "little") + shape)
    for array in arrays:
        np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def thaw(data: bytes) -> Any:
    """The state that `freeze` was given. Raises ValueError for other bytes."""
    file = io.BytesIO(data)
    shape = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return _built(shape, file)


def _plain(value: Any, arrays: list[np.ndarray]) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.ndarray():
            arrays.append(value)
            return {"array": len(arrays)}
        case tuple() | list():
            return {type(value).__name__: [_plain(v, arrays) for v in value]}
        case dict():
            return {"dict": [[_plain(k, arrays), _plain(v, arrays)] for k, v in value.items()]}
        case _ if is_dataclass(value) and type(value).__name__ in _TYPES:
            return {
                "of": type(value).__name__,
                "fields": [_plain(getattr(value, f.name), arrays) for f in fields(value)],
            }
        case _:
            raise TypeError(f"a {type(value).__name__} is no part of a fit's statistic")


def _built(shape: Any, file: io.BytesIO) -> Any:
    match shape:
        case {"array": _}:
            return np.lib.format.read_array(file, allow_pickle=False)  # in the order they were written
        case {"tuple": items}:
            return tuple(_built(item, file) for item in items)
        case {"list": items}:
            return [_built(item, file) for item in items]
        case {"dict": items}:
            return {_built(k, file): _built(v, file) for k, v in items}
        case {"of": name, "fields": values}:
            return _TYPES[name](*(_built(value, file) for value in values))
        case _:
            return shape
