"""A fit's statistic as bytes: comes back bit for bit, and holds nothing that could run."""

import numpy as np
import pytest

from stages.attributes import Column
from stages.directions.cells import CellPass
from stages.directions.kept import freeze, thaw
from stages.directions.regression import Regression
from stages.directions.row_sets import RowSetPass
from stages.stage import ReduceStage
from tests.labelled import batch_of, faces

COLUMNS = tuple(Column(name, name, "bool") for name in ("smiling", "glasses", "young"))


@pytest.mark.parametrize(
    "stage",
    [
        CellPass(COLUMNS, ("glasses", "young"), 8, 0.2),
        Regression(COLUMNS, (0, 2), 8, 0.2, True),
        RowSetPass(COLUMNS, 8, 0.2, 3),
    ],
    ids=lambda stage: type(stage).__name__,
)
def test_statistics_come_back(stage: ReduceStage) -> None:
    state = stage.add(stage.start(), batch_of(*faces(200)))
    data = freeze(state)
    again = thaw(data)
    assert type(again) is type(state) and freeze(again) == data
    # What comes back can be added to and taken from.
    more = stage.add(again, batch_of(*faces(50, seed=1)))
    assert freeze(more) == freeze(stage.add(thaw(data), batch_of(*faces(50, seed=1))))


def test_other_values_are_refused() -> None:
    with pytest.raises(TypeError, match="no part of a fit"):
        freeze({"x": object()})
    with pytest.raises(ValueError, match=r"allow_pickle|Object arrays"):
        freeze(np.array([object()]))
