"""The statistic: streamed in any chunks and merged in any tree it is the statistic of all rows, also far from zero."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.moments import GroupMoments, Moments
from stages.stage import PrecisionLost

SHAPES = st.tuples(st.integers(1, 120), st.integers(1, 5), st.integers(0, 3), st.integers(0, 2**32 - 1))
OFFSETS = st.sampled_from([0.0, 1.0, 1e3, -1e6, 1e6])


def exact(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scatter in extended precision."""
    wide = x.astype(np.longdouble)
    mean = wide.mean(0)
    centred = wide - mean
    return mean, centred.T @ centred


def rows(n: int, width: int, offset: float, *, ordered: bool, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, width)) * np.logspace(-2, 2, width) + offset
    return np.sort(x, axis=0) if ordered else x


def pieces(x: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    cuts = np.sort(rng.integers(0, len(x) + 1, int(rng.integers(0, 8))))
    return np.split(x, cuts)


def merged_in_any_tree(parts: list, rng: np.random.Generator):
    """Merges random pairs until one is left; some merges in place, some not."""
    while len(parts) > 1:
        rng.shuffle(parts)
        a, b = parts.pop(), parts.pop()
        if rng.random() < 0.5:
            a.absorb(b)
            parts.append(a)
        else:
            parts.append(a.merged(b))
    return parts[0]


def close(found: np.ndarray, expected: np.ndarray, spread: np.ndarray) -> None:
    """Equal to 1e-10 of the spread of the data."""
    assert (np.abs(found - expected) <= 1e-10 * spread + 1e-300).all()


@given(shape=SHAPES, offset=OFFSETS, ordered=st.booleans(), full=st.booleans())
@settings(max_examples=150)
def test_streamed_equals_batch(shape: tuple[int, int, int, int], offset: float, ordered: bool, full: bool) -> None:
    n, d, labels, seed = shape
    x = rows(n, d + labels, offset, ordered=ordered, seed=seed)
    rng = np.random.default_rng(seed)
    parts = [Moments.of(p[:, :d], y=p[:, d:], full=full) for p in pieces(x, rng)]
    found = merged_in_any_tree(parts, rng)
    mean, scatter = exact(x)
    spread = np.sqrt(np.outer(np.diagonal(scatter), np.diagonal(scatter)))
    deviation = np.sqrt(np.diagonal(scatter)) + np.abs(mean) * 1e-5
    assert found.n == n
    close(found.z_mean, mean[:d], deviation[:d])
    close(found.y_mean, mean[d:], deviation[d:])
    close(found.zy, scatter[:d, d:], spread[:d, d:])
    close(found.yy, scatter[d:, d:], spread[d:, d:])
    close(
        found.zz,
        scatter[:d, :d] if full else np.diagonal(scatter)[:d],
        spread[:d, :d] if full else np.diagonal(scatter)[:d],
    )


def test_one_row_at_a_time_a_million_away() -> None:
    x = rows(3000, 4, 1e6, ordered=True, seed=1)
    found = Moments.empty(4, full=True)
    for row in x:
        found.absorb(Moments.of(row[None], full=True))
    _, scatter = exact(x)
    np.testing.assert_allclose(found.zz, scatter.astype(float), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_latents_are_taken_exactly(dtype: type) -> None:
    x = rows(500, 6, 3.0, ordered=False, seed=2).astype(dtype)
    np.testing.assert_array_equal(Moments.of(x, full=True).zz, Moments.of(x.astype(np.float64), full=True).zz)


def test_merging_changes_neither_side_and_takes_read_only_memory() -> None:
    x = rows(60, 3, 5.0, ordered=False, seed=3)
    a, b = Moments.of(x[:20], y=x[:20, :1], full=True), Moments.of(x[20:], y=x[20:, :1], full=True)
    for part in (a, b):
        for array in (part.origin, part.offset, part.zz, part.zy, part.yy):
            array.flags.writeable = False
    before = a.zz.copy()
    both = a.merged(b)
    np.testing.assert_array_equal(a.zz, before)
    np.testing.assert_allclose(both.zz, b.merged(a).zz, rtol=1e-13)


def test_no_rows_change_nothing() -> None:
    some, none = Moments.of(rows(9, 2, 1.0, ordered=False, seed=4), full=False), Moments.empty(2, full=False)
    for both in (some.merged(none), none.merged(some), some.merged(Moments.of(np.empty((0, 2)), full=False))):
        assert both.n == 9
        np.testing.assert_allclose(both.z_mean, some.z_mean, rtol=1e-15)
        np.testing.assert_allclose(both.z_variance, some.z_variance, rtol=1e-15)
    assert none.z_variance.tolist() == [0, 0]


def test_variance_is_numpys() -> None:
    x = rows(40, 3, 2.0, ordered=False, seed=5)
    for full in (True, False):
        np.testing.assert_allclose(Moments.of(x, full=full).z_variance, x.var(0, ddof=1), rtol=1e-12)


def test_latents_only_forgets_the_labels() -> None:
    x = rows(30, 5, 2.0, ordered=False, seed=6)
    alone = Moments.of(x[:, :3], y=x[:, 3:], full=True).latents_only().merged(Moments.of(x[:4, :3], full=True))
    np.testing.assert_allclose(alone.zz, Moments.of(np.vstack([x[:, :3], x[:4, :3]]), full=True).zz, rtol=1e-12)


@given(shape=SHAPES, offset=OFFSETS, ordered=st.booleans())
@settings(max_examples=100)
def test_groups_streamed_equal_batch(shape: tuple[int, int, int, int], offset: float, ordered: bool) -> None:
    n, d, groups, seed = shape
    rng = np.random.default_rng(seed)
    x = rows(n, d, offset, ordered=ordered, seed=seed)
    member = rng.random((n, groups)) < 0.4
    both = np.hstack([x, member])
    parts = [GroupMoments.of(p[:, :d], p[:, d:] > 0) for p in pieces(both, rng)]
    found = merged_in_any_tree(parts, rng)
    everything = np.diagonal(exact(x)[1])
    for g in range(groups):
        inside = x[member[:, g]]
        assert found.n[g] == len(inside)
        if len(inside):
            mean, scatter = exact(inside)
            close(found.mean[g], mean, np.sqrt(everything) + np.abs(mean) * 1e-5)
            close(found.scatter[g], np.diagonal(scatter), everything)
        one = found.pick(g)
        assert one.n.tolist() == [found.n[g]]
        np.testing.assert_array_equal(one.mean[0], found.mean[g])


@given(shape=SHAPES, offset=OFFSETS, full=st.booleans())
@settings(max_examples=60)
def test_what_was_added_can_be_taken_out(shape: tuple[int, int, int, int], offset: float, full: bool) -> None:
    n, d, labels, seed = shape
    x = rows(2 * n + 2, d + labels, offset, ordered=False, seed=seed)
    kept, gone = x[: n + 2], x[n + 2 :]
    whole = Moments.of(x[:, :d], y=x[:, d:], full=full)
    found, growth = whole.without(Moments.of(gone[:, :d], y=gone[:, d:], full=full))
    mean, scatter = exact(kept)
    spread = np.sqrt(np.outer(np.diagonal(scatter), np.diagonal(scatter)))
    assert (found.n, growth >= 1) == (len(kept), True)
    close(np.append(found.z_mean, found.y_mean), mean, growth * (np.sqrt(np.diagonal(scatter)) + np.abs(mean) * 1e-5))
    close(found.zy, scatter[:d, d:], growth * spread[:d, d:])
    close(found.yy, scatter[d:, d:], growth * spread[d:, d:])
    close(
        found.zz if full else np.diag(found.zz), scatter[:d, :d] * (1 if full else np.eye(d)), growth * spread[:d, :d]
    )


def test_taking_out_says_when_it_cannot_be_exact() -> None:
    x = rows(40, 3, 2.0, ordered=False, seed=7)
    x[:20, 1] = 5.0  # constant in what stays
    whole, part = Moments.of(x, full=True), Moments.of(x[20:], full=True)
    with contextlib.suppress(PrecisionLost):
        assert whole.without(part)[1] > 1e12
    with pytest.raises(PrecisionLost):
        part.without(whole)
    nothing, growth = part.without(part)
    assert (nothing.n, growth) == (0, 1.0) and not nothing.zz.any()
    same, growth = part.without(Moments.empty(3, full=True))
    assert growth == 1 and same is not part
    np.testing.assert_array_equal(same.zz, part.zz)


def test_groups_can_be_taken_out() -> None:
    rng = np.random.default_rng(8)
    x, member = rng.standard_normal((60, 3)) + 1e3, rng.random((60, 4)) < 0.5
    member[:30, 2] = False  # group 2 goes altogether
    found, growth = GroupMoments.of(x, member).without(GroupMoments.of(x[30:], member[30:]))
    left = GroupMoments.of(x[:30], member[:30])
    np.testing.assert_array_equal(found.n, left.n)
    np.testing.assert_allclose(found.mean[found.n > 0], left.mean[left.n > 0], rtol=1e-13)
    np.testing.assert_allclose(found.scatter, left.scatter, rtol=1e-10)
    assert growth < 10 and not found.scatter[2].any()
    with pytest.raises(PrecisionLost):
        left.without(GroupMoments.of(x, member))
