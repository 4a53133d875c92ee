"""Coordinates set to quantiles of the data: NumPy's while all rows are kept, within the stated rank error beyond; any split the same."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import pyarrow as pa
import pytest

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import EditStep, TraverseStep
from schemas.steps.edits import Change
from stages.code_sets.edit import Edit
from stages.code_sets.parents import parents_batch
from stages.code_sets.quantiles import CoordinateQuantiles, CoordinateSample
from stages.code_sets.traverse import Traverse
from stages.columns import matrix_of
from stages.layout import strength_labels
from stages.report.data import Strip, StripTable
from stages.report.strips import strips

D = 4
SPEC = LatentSpec(shape=(D,), space="z")
SHARES = (0.05, 0.5, 0.95)


def latents(n: int, *, seed: int = 0) -> np.ndarray:
    """Skewed, so that a formula for Gaussians would show."""
    return np.random.default_rng(seed).exponential(size=(n, D)).astype(np.float32) ** 2


def batch_of(z: np.ndarray, *, name: str = "img", start: int = 0) -> pa.RecordBatch:
    column = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), D)
    ids = pa.array([f"{name}{i}" for i in range(start, start + len(z))])
    return pa.RecordBatch.from_arrays([ids, column], ["id", "latent"])


def found(batches: Sequence[pa.RecordBatch], stage: CoordinateSample) -> CoordinateQuantiles:
    states = [stage.add(stage.start(), batch) for batch in batches]
    return CoordinateQuantiles.of(reduce(stage.merge, states, stage.start()), stage.coordinates)


def test_they_are_numpys_while_all_rows_are_kept():
    z = latents(500)
    z[7, 0] = np.nan  # leaves as a row, whichever coordinate is asked
    quantiles = found([batch_of(z)], CoordinateSample((3, 1)))
    assert quantiles.rank_error == 0
    good = np.delete(z, 7, axis=0).astype(np.float64)
    for j in (1, 3):
        np.testing.assert_array_equal(quantiles.at(j, SHARES), np.quantile(good[:, j], SHARES))


@pytest.mark.parametrize("capacity", [100, 10_000])
def test_any_split_and_any_order_gives_the_same(capacity):
    z, stage = latents(3000), CoordinateSample((0, 2), capacity)
    whole = found([batch_of(z)], stage)
    pieces = [batch_of(z[i:j], start=i) for i, j in ((2100, 3000), (0, 7), (7, 2100))]
    parts = found(pieces, stage)
    np.testing.assert_array_equal(whole.values, parts.values)
    assert whole.rank_error == parts.rank_error


def test_of_more_rows_the_rank_is_right_within_the_stated_error():
    n, capacity, runs = 20_000, 1000, 40
    z = latents(n)
    stage = CoordinateSample((0, 1, 2, 3), capacity)
    ranks = []
    for run in range(runs):
        quantiles = found([batch_of(z, name=f"run{run}-")], stage)
        assert quantiles.rank_error == pytest.approx(np.sqrt(np.log(200) / 2000))
        ranks.append([(z[:, j, None] <= quantiles.at(j, SHARES)).mean(axis=0) for j in range(D)])
    off = np.array(ranks) - SHARES
    assert np.abs(off).max() < quantiles.rank_error
    # The bound holds for any share, the worst being a half: there, a draw's own spread is √(q(1 − q)/n · (1 − n/N)).
    spread = np.abs(off[:, 0]).mean(axis=0) * np.sqrt(np.pi / 2)
    expected = np.sqrt(np.array(SHARES) * (1 - np.array(SHARES)) / capacity * (1 - capacity / n))
    np.testing.assert_allclose(spread, expected, rtol=0.4)


def test_traverse_and_edit_set_the_coordinate_to_the_value_and_nothing_else():
    z = latents(200)
    quantiles = found([batch_of(z)], CoordinateSample((2, 0)))
    few = parents_batch(range(3), [["a"], ["b"], ["c"]], [batch_of(z[:3]).column("latent")])
    step = TraverseStep(coordinates=(2,), strengths=SHARES, unit="quantile", mode="set_coordinate")
    walk = Traverse(step, [], SPEC, coordinates=quantiles)(few)
    expected = np.repeat(z[:3, None], 3, axis=1)
    expected[:, :, 2] = np.quantile(z[:, 2].astype(float), SHARES)
    np.testing.assert_array_equal(matrix_of(walk.column("latent")).reshape(3, 3, D), expected)
    said = json.loads(walk.column("operation")[0].as_py())
    assert (said["unit"], said["rank_error"]) == ("quantile", 0)
    assert said["values"] == np.quantile(z[:, 2].astype(float), SHARES).tolist()
    changes = (Change(coordinate=2, strength=0.9), Change(coordinate=0, strength=0.2))
    edit = EditStep(changes=changes, unit="quantile", mode="set_coordinate", parts=(1,))
    made = matrix_of(Edit(edit, [], SPEC, coordinates=quantiles)(few).column("latent"))
    expected = z[:3].copy()
    expected[:, 2], expected[:, 0] = np.quantile(z[:, 2], 0.9), np.quantile(z[:, 0], 0.2)
    np.testing.assert_allclose(made, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("j", "share", "rows", "said"),
    [(9, 0.5, 5, "0 to 3"), (0, 0.5, 0, "no latents"), (0, 0.01, 3000, r"strengths = 0\.01.* ±0\.16 only")],
)
def test_what_the_data_cannot_tell_is_refused(j, share, rows, said):
    quantiles = found([batch_of(latents(rows))], CoordinateSample((0,), 100))
    step = TraverseStep(coordinates=(j,), strengths=(share,), unit="quantile", mode="set_coordinate")
    with pytest.raises(JobError, match=said):
        Traverse(step, [], SPEC, coordinates=quantiles)


def test_the_report_names_quantiles_and_how_far_they_may_be_off():
    table = StripTable(
        "traverse",
        "coordinate 3",
        "places",
        "set_coordinate",
        "quantile",
        (0.05, 0.5),
        (Strip(("a",), (None,) * 2),),
        {"unit": "quantile", "rank_error": 0.0063},
    )
    page = str(strips(table))
    assert "quantile .05" in page and "set, in quantiles of the data" in page and "±0.63 % of the rows" in page
    assert "sample" not in str(strips(replace(table, operation={"rank_error": 0.0})))
    assert strength_labels([0.05, 0.5], "quantile") == ["q0.05", "q0.5"]
