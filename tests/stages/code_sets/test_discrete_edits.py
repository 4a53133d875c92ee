"""Discrete edits: indices are replaced, requantised and recounted, never averaged; what changed is told exactly."""

from itertools import permutations

import numpy as np
import pytest

from stages.code_sets.discrete_edits import (
    apportion,
    histogram_transfer,
    in_codebook,
    nearest_code_add,
    nearest_codes,
    replace_tokens,
)
from stages.code_sets.token_priors import TokenCounts, draw_sequences

K, C = 12, 3
BOOK = np.random.default_rng(0).standard_normal((K, C))
TOKENS = np.random.default_rng(1).integers(0, K, (5, 4, 6))


def test_replacement_takes_the_donors_tokens_under_the_mask_and_says_how_many_differ():
    donors = np.random.default_rng(2).integers(0, K, (5, 4, 6))
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    made = replace_tokens(TOKENS, donors, mask, codes=K)
    np.testing.assert_array_equal(made.tokens[:, mask], donors[:, mask])
    np.testing.assert_array_equal(made.tokens[:, ~mask], TOKENS[:, ~mask])
    np.testing.assert_allclose(made.changed, (donors != TOKENS)[:, mask].sum(1) / 24)
    one = replace_tokens(TOKENS, np.full((4, 6), 3), mask, codes=K)
    assert (one.tokens[:, mask] == 3).all() and one.usable.all()


def test_a_row_with_an_index_outside_the_codebook_is_left_alone_and_told():
    bad = TOKENS.copy()
    bad[2, 0, 0], bad[3, 1, 1] = K, -1
    expected = [True, True, False, False, True]
    assert in_codebook(bad, K).tolist() == expected
    for made in (
        replace_tokens(bad, np.zeros((4, 6), int), np.ones((4, 6), bool), codes=K),
        nearest_code_add(bad, np.ones(C), BOOK),
        histogram_transfer(bad, np.full(K, 1 / K), seeds=range(5)),
    ):
        assert made.usable.tolist() == expected
        np.testing.assert_array_equal(made.tokens[2:4], bad[2:4])
        assert (made.changed[2:4] == 0).all() and (made.changed[[0, 1, 4]] > 0).all()


def test_nearest_codes_are_those_of_all_distances_and_the_lower_of_two():
    vectors = np.random.default_rng(3).standard_normal((400, C)) * 2
    distances = ((vectors[:, None] - BOOK) ** 2).sum(2)
    np.testing.assert_array_equal(nearest_codes(vectors, BOOK), distances.argmin(1))
    assert nearest_codes(np.zeros((1, 1)), np.array([[1.0], [-1.0]])).tolist() == [0]
    far = nearest_codes(vectors + 1e6, BOOK + 1e6)  # distances know no origin
    np.testing.assert_array_equal(far, distances.argmin(1))


def test_adding_a_codes_difference_arrives_at_that_code_and_nothing_small_moves():
    still = nearest_code_add(TOKENS, np.zeros(C), BOOK)
    np.testing.assert_array_equal(still.tokens, TOKENS)
    assert (still.changed == 0).all()
    made = nearest_code_add(np.full((2, 4, 6), 5), BOOK[7] - BOOK[5], BOOK)
    assert (made.tokens == 7).all() and (made.changed == 1).all()
    mask = np.zeros((4, 6), bool)
    mask[0] = True
    part = nearest_code_add(np.full((2, 4, 6), 5), BOOK[7] - BOOK[5], BOOK, mask=mask)
    assert (part.tokens[:, 0] == 7).all() and (part.tokens[:, 1:] == 5).all() and (part.changed == 0.25).all()
    steps = np.zeros((4, 6, C))
    steps[3, 2] = BOOK[1] - BOOK[5]
    assert nearest_code_add(np.full((1, 4, 6), 5), steps, BOOK).tokens[0, 3, 2] == 1
    shares = [nearest_code_add(TOKENS, np.ones(C) * s, BOOK).changed.mean() for s in (0, 0.1, 0.5, 3)]
    assert shares == sorted(shares) and shares[-1] > 0.5


@pytest.mark.parametrize("codebook", [None, BOOK], ids=["drawn", "nearest"])
def test_histogram_transfer_reaches_the_histogram_with_the_fewest_changes(codebook):
    shares = np.random.default_rng(4).dirichlet(np.ones(K))
    wanted = apportion(shares, 24)
    made = histogram_transfer(TOKENS, shares, seeds=range(5), codebook=codebook)
    for before, after, changed in zip(TOKENS, made.tokens, made.changed, strict=True):
        np.testing.assert_array_equal(np.bincount(after.reshape(-1), minlength=K), wanted)
        fewest = np.maximum(np.bincount(before.reshape(-1), minlength=K) - wanted, 0).sum()
        assert changed == pytest.approx(fewest / 24)
    again = histogram_transfer(TOKENS[3:], shares, seeds=range(3, 5), codebook=codebook)
    np.testing.assert_array_equal(again.tokens, made.tokens[3:])
    own = histogram_transfer(made.tokens, shares, seeds=range(5, 10), codebook=codebook)
    np.testing.assert_array_equal(own.tokens, made.tokens, err_msg="a row that has the histogram stays as it is")


def test_with_a_codebook_the_transfer_is_the_cheapest_of_all():
    tokens = np.array([[0, 0, 1, 2, 2]])
    wanted = np.array([0, 0, 0, 1, 1, 3]) / 5
    made = histogram_transfer(tokens, wanted, seeds=[0], codebook=BOOK)
    cost = ((BOOK[made.tokens[0]] - BOOK[tokens[0]]) ** 2).sum()
    every = min(((BOOK[list(p)] - BOOK[tokens[0]]) ** 2).sum() for p in permutations([3, 4, 5, 5, 5]))
    assert cost == pytest.approx(every)


def test_apportioning_gives_whole_numbers_that_sum_up():
    assert apportion(np.array([0.5, 0.3, 0.2]), 10).tolist() == [5, 3, 2]
    assert apportion(np.full(3, 1 / 3), 10).tolist() == [4, 3, 3]
    for bad in ([0.5, 0.6], [1.5, -0.5], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="sum to 1"):
            apportion(np.array(bad), 4)


def chain(n: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of a chain that never repeats a token twice in a row, and its transition matrix."""
    rng = np.random.default_rng(5)
    move = rng.dirichlet(np.ones(4), 4)
    np.fill_diagonal(move, 0)
    move /= move.sum(1, keepdims=True)
    rows = np.zeros((n, length), np.int64)
    rows[:, 0] = rng.choice(4, n, p=[0.7, 0.3, 0, 0])
    for at in range(1, length):
        rows[:, at] = [rng.choice(4, p=move[k]) for k in rows[:, at - 1]]
    return rows, move


def counted(rows: np.ndarray, *, bigram: bool, parts: int = 1) -> TokenCounts:
    states = []
    for part in np.array_split(rows, parts):
        state = TokenCounts.empty(4, bigram=bigram)
        state.add(part)
        states.append(state)
    while len(states) > 1:
        states = [states[0].merged(states[-1]), *states[1:-1]]
    return states[0]


def test_counts_are_the_same_on_any_split_and_leave_bad_rows_out():
    rows, _ = chain(60, 9)
    whole, split = counted(rows, bigram=True), counted(rows[::-1], bigram=True, parts=7)
    for name in ("single", "first", "pairs"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(split, name))
    assert whole.single.sum() == 540 and whole.pairs.sum() == 480 and whole.first.sum() == 60
    rows[3, 2] = 9
    assert counted(rows, bigram=True).bad_rows == 1 and counted(rows, bigram=True).single.sum() == 531


def test_sequences_follow_the_prior_they_are_drawn_from():
    rows, move = chain(1500, 12)
    counts = counted(rows, bigram=True)
    drawn = draw_sequences(counts, [f"draw {i}" for i in range(1500)], 12, step="s", seed=0, smoothing=0)
    made = counted(drawn, bigram=True)
    np.testing.assert_allclose(made.pairs / made.pairs.sum(1, keepdims=True), move, atol=0.03)
    np.testing.assert_allclose(made.first / 1500, [0.7, 0.3, 0, 0], atol=0.04)
    assert (np.diff(drawn, axis=1) != 0).all(), "what never followed is never drawn"
    single = draw_sequences(counted(rows, bigram=False), [f"draw {i}" for i in range(1500)], 12, step="s", seed=0)
    np.testing.assert_allclose(
        np.bincount(single.reshape(-1)) / single.size, counts.single / counts.single.sum(), atol=0.015
    )
    assert (np.diff(single, axis=1) == 0).any()


def test_a_sequence_depends_on_its_name_alone_and_cold_ones_repeat_the_likeliest():
    counts = counted(chain(200, 9)[0], bigram=True)
    names = [f"draw {i}" for i in range(20)]
    whole = draw_sequences(counts, names, 9, step="s", seed=0)
    np.testing.assert_array_equal(draw_sequences(counts, names[13:], 9, step="s", seed=0), whole[13:])
    assert not np.array_equal(draw_sequences(counts, names, 9, step="s", seed=1), whole)
    cold = draw_sequences(counts, names, 9, step="s", seed=0, temperature=0.001)
    assert (cold == cold[0]).all() and cold[0, 0] == counts.first.argmax()


def test_smoothing_makes_everything_possible_and_nothing_counted_is_refused():
    empty = TokenCounts.empty(4, bigram=True)
    with pytest.raises(ValueError, match="no token was counted"):
        draw_sequences(empty, ["a"], 3, step="s", seed=0, smoothing=0)
    assert set(draw_sequences(empty, [f"{i}" for i in range(50)], 3, step="s", seed=0).reshape(-1)) == {0, 1, 2, 3}
    with pytest.raises(ValueError, match="temperature"):
        draw_sequences(empty, ["a"], 3, step="s", seed=0, temperature=0)
    with pytest.raises(ValueError, match="bigrams end at"):
        TokenCounts.empty(10_000, bigram=True)
    dead_end = TokenCounts.empty(2, bigram=True)
    dead_end.add(np.array([[0, 1]]))
    assert draw_sequences(dead_end, [f"{i}" for i in range(9)], 4, step="s", seed=0, smoothing=0).shape == (9, 4)
