"""The error tree is public: its names, its parents and its exit codes are pinned here."""

import inspect
import pickle

import pytest

from schemas import errors
from schemas.errors import FailureCode, JobError, LatentmillError, Problem

TREE = {
    "LatentmillError": ("Exception", 1),
    "JobError": ("LatentmillError", 2),
    "UnsafeWeights": ("JobError", 2),
    "SpaceMismatch": ("JobError", 2),
    "SourceError": ("LatentmillError", 2),
    "TransientReadError": ("LatentmillError", 1),
    "StoreError": ("LatentmillError", 1),
    "LeaseHeld": ("StoreError", 1),
    "LeaseLost": ("StoreError", 1),
    "AccountingError": ("StoreError", 1),
    "TrainingError": ("LatentmillError", 1),
    "TooManyFailures": ("LatentmillError", 3),
}
CODES = (
    "zero_bytes not_an_image unsupported truncated corrupt too_large vanished changed unreadable unreadable_label "
    "non_finite codec_error"
)


def test_public_names() -> None:
    defined = [n for n, v in vars(errors).items() if inspect.isclass(v) and v.__module__ == "schemas.errors"]
    assert sorted(defined) == sorted([*TREE, "FailureCode", "Problem", "RowFailure"])


def test_tree_and_exit_codes() -> None:
    found = {n: (getattr(errors, n).__base__.__name__, getattr(errors, n).exit_code) for n in TREE}
    assert found == TREE


def test_failure_codes_are_a_closed_set() -> None:
    assert [str(code) for code in FailureCode] == CODES.split()


def test_a_problem_reads_as_field_value_reason_fix() -> None:
    assert str(Problem("a.b", 3, "too small.", "use 4")) == "a.b = 3: too small. Fix: use 4"
    assert str(Problem("a.b", None, "missing.")) == "a.b: missing."


def test_a_job_error_shows_every_problem() -> None:
    error = JobError([Problem("a", 1, "bad."), Problem("b", 2, "worse.")])
    assert str(error) == "a = 1: bad.\nb = 2: worse."
    assert JobError.one("a", 1, "bad.").problems == error.problems[:1]


@pytest.mark.parametrize("name", sorted(TREE))
def test_errors_cross_process_boundaries(name: str) -> None:
    kind: type[LatentmillError] = getattr(errors, name)
    error = kind.one("a", 1, "bad.", "mend it") if issubclass(kind, JobError) else kind("what happened")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and str(copy) == str(error) and copy.args == error.args
