"""Groups of rows: by a label or by what is before a separator; a row without one stands alone."""

import numpy as np
import pyarrow as pa
import pytest

from schemas.steps import FitStep
from stages.directions.checks import check_fit
from stages.grouping import group_hashes
from tests.labelled import batch_of


def batch() -> pa.RecordBatch:
    ids = ["a/b/1.jpg", "a/b/2.jpg", "a/c/1.jpg", "alone.jpg", "other.jpg"]
    labels = {"person": pa.array(["x", "x", "y", None, None]), "film": pa.array([1, 1, 2, 1, None])}
    return batch_of(np.zeros((5, 2), np.float32), labels, ids=ids)


@pytest.mark.parametrize(
    ("group", "expected"),
    [("id:/", "00123"), ("id:b/", "00123"), ("person", "00123"), ("film", "00102"), ("id:.jpg", "01234")],
)
def test_groups(group: str, expected: str) -> None:
    _, found = np.unique(group_hashes(batch(), group), return_inverse=True)
    _, wanted = np.unique(list(expected), return_inverse=True)
    assert (found[:, None] == found).tolist() == (wanted[:, None] == wanted).tolist()
    np.testing.assert_array_equal(group_hashes(batch().slice(1, 3), group), group_hashes(batch(), group)[1:4])


@pytest.mark.parametrize(
    ("group", "said"), [("persn", "did you mean"), ("id:", "no separator"), ("age", "this is float")]
)
def test_a_group_that_cannot_be_is_refused(group: str, said: str) -> None:
    step = FitStep(name="fit", group=group)
    problems = check_fit(step, {"smiling": "bool", "person": "category", "age": "float"}, ["smiling"])
    assert [p.field for p in problems] == ["fit.group"] and said in str(problems[0])
