"""Numbers beside a direction, against their formulas written out once more: errors over cells, intervals of a separation."""

import numpy as np
import pyarrow as pa
import pytest

from stages.directions.cells import ClassPairs
from stages.directions.closed_forms import difference_of_means
from stages.directions.row_sets import parts_of
from stages.directions.scoring import separation_of
from stages.moments import GroupMoments
from stages.row_hash import hash_ids
from stages.rows import Block


def test_the_error_of_a_balanced_direction_weighs_each_cell_by_its_share_squared() -> None:
    """Var = Σ_c π_c² σ²(1/n₊,c + 1/n₋,c), σ² of a class pooled over cells; cells of very different sizes and means."""
    rng = np.random.default_rng(0)
    cells = [[rng.normal(c, 1 + c, (n, 3)) for n in sizes] for c, sizes in enumerate([(40, 10), (5, 200)])]
    groups = []
    for side in (0, 1):
        z = np.concatenate([cell[side] for cell in cells])
        member = np.repeat(np.eye(2, dtype=bool), [len(cell[side]) for cell in cells], axis=0)
        groups.append(GroupMoments.of(z, member))
    found = difference_of_means(ClassPairs(*groups))
    share = np.array([50, 205]) / 255
    variance = np.zeros(3)
    for side in (0, 1):
        rows = [cell[side] for cell in cells]
        pooled = sum(((z - z.mean(0)) ** 2).sum(0) for z in rows) / (sum(map(len, rows)) - 2)
        variance += pooled * sum(s**2 / len(z) for s, z in zip(share, rows, strict=True))
    assert found.standard_error is not None and found.coefficients is not None
    np.testing.assert_allclose(found.standard_error, np.sqrt(variance), rtol=1e-12)
    means = sum(s * (p.mean(0) - q.mean(0)) for s, (p, q) in zip(share, cells, strict=True))
    np.testing.assert_allclose(found.coefficients, means, rtol=1e-10)


def test_the_interval_of_a_separation_is_hedges_and_olkins() -> None:
    """var δ = (n + m)/(nm) + δ²/2(n + m): the second part is most of it where classes lie far apart."""
    n, m, apart = 30, 50, 6.0
    rng = np.random.default_rng(1)
    a, b = rng.normal(apart, 1, n), rng.normal(0, 1, m)
    found = separation_of([n, a.sum(), a @ a], [m, b.sum(), b @ b], confidence=0.95)
    pooled = ((n - 1) * a.var(ddof=1) + (m - 1) * b.var(ddof=1)) / (n + m - 2)
    delta = (a.mean() - b.mean()) / pooled**0.5
    reach = 1.959963985 * np.sqrt((n + m) / (n * m) + delta**2 / (2 * (n + m)))
    assert found == pytest.approx((delta, delta - reach, delta + reach), rel=1e-6)


def test_folds_keep_rows_that_belong_together_together() -> None:
    n = 400
    ids, groups = pa.array([f"r{i}" for i in range(n)]), hash_ids(pa.array([f"g{i // 20}" for i in range(n)]))
    nothing = np.zeros((n, 0))
    labels = pa.StructArray.from_arrays([pa.nulls(n)], names=["label"])
    block = Block(ids, np.zeros((n, 2), np.float32), labels, nothing, nothing.astype(bool), 0.0, 0, groups)
    parts = parts_of(block, 5).reshape(20, 20)
    assert (parts == parts[:, :1]).all() and len(np.unique(parts)) > 2
