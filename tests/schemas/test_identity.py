"""Identity: one canonical form, a fingerprint that refuses what it cannot serialise, seeds that depend on the row alone."""

import hashlib
import json
import math
import string
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import Spec
from schemas.identity import canonical_json, fingerprint, fraction_of, row_seed

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(string.ascii_letters, max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


class Colour(StrEnum):
    RED = "red"


class Point(Spec):
    x: int = 1
    y: tuple[float, ...] = (0.5,)


def shuffled(value: object) -> object:
    """The same value with every mapping built in the opposite order."""
    if isinstance(value, dict):
        return {k: shuffled(v) for k, v in reversed(value.items())}
    return [shuffled(v) for v in value] if isinstance(value, list) else value


def test_canonical_json_is_this_very_text() -> None:
    value = {"b": [1, 2.5, True, None], "a": {"é": "ü"}, "c": Colour.RED, "p": Point()}
    assert canonical_json(value).decode() == '{"a":{"é":"ü"},"b":[1,2.5,true,null],"c":"red","p":{"x":1,"y":[0.5]}}'


def test_fingerprint_is_sha256_of_the_canonical_text() -> None:
    assert fingerprint({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


@given(PLAIN)
def test_order_of_keys_does_not_matter(value: object) -> None:
    assert canonical_json(value) == canonical_json(shuffled(value))


@given(PLAIN)
def test_canonical_json_survives_a_round_trip(value: object) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(PLAIN, PLAIN)
def test_values_that_json_tells_apart_have_different_fingerprints(a: object, b: object) -> None:
    as_json = [json.dumps(v, sort_keys=True) for v in (a, b)]
    if as_json[0] == as_json[1]:
        assert fingerprint(a) == fingerprint(b)
    elif json.loads(as_json[0]) != json.loads(as_json[1]):
        assert fingerprint(a) != fingerprint(b)


def test_a_whole_float_is_the_integer_it_equals() -> None:
    assert fingerprint({"strength": 3.0}) == fingerprint({"strength": 3})
    assert fingerprint(0.1) != fingerprint(0.1 + 1e-16 + 1e-17)


def test_tuples_are_lists_and_booleans_are_not_numbers() -> None:
    assert fingerprint((1, 2)) == fingerprint([1, 2])
    assert fingerprint([True]) != fingerprint([1])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_without_a_canonical_form_raise(value: float) -> None:
    with pytest.raises(ValueError, match=r"\$\.a\[1\] is (nan|inf|-inf)"):
        fingerprint({"a": [0, value]})


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), 1j, range(3), print])
def test_other_types_raise_and_name_the_place(value: object) -> None:
    with pytest.raises(TypeError, match=r"\$\.codec\.weights is a \w+: it has no canonical form"):
        fingerprint({"codec": {"weights": value}})


@pytest.mark.parametrize("key", [1, None, True, ("a",)])
def test_keys_that_are_not_text_raise(key: object) -> None:
    with pytest.raises(TypeError, match="only strings can be keys"):
        fingerprint({"a": {key: 1}})


def test_seeds_are_pinned() -> None:
    # A stored sample, split or walk must be drawn again by a later version: these numbers may never change.
    assert row_seed("a.jpg", "sample") == 13579976021550735526
    assert row_seed("a.jpg", "sample", 1) == 11066289616207660263
    assert fraction_of("a.jpg", "holdout") == 0.3849499009203011


def test_seeds_do_not_run_together() -> None:
    assert row_seed("ab", "c") != row_seed("a", "bc")
    assert row_seed("a|1:b", "c") != row_seed("a", "b|1:c")
    assert row_seed("a", "b", 11) != row_seed("a", "b1", 1)


@given(st.text(max_size=20), st.text(max_size=10), st.integers(0, 2**40))
def test_a_seed_fits_64_bits(row: str, step: str, draw: int) -> None:
    assert 0 <= row_seed(row, step, draw) < 2**64


def test_fractions_are_uniform() -> None:
    drawn = sorted(fraction_of(f"{i}.jpg", "holdout") for i in range(4000))
    distance = max(abs(value - (i + 0.5) / 4000) for i, value in enumerate(drawn))
    assert drawn[0] >= 0 and drawn[-1] < 1
    assert distance < 1.63 / math.sqrt(4000)  # Kolmogorov–Smirnov, 1 %
    split = {i for i in range(4000) if fraction_of(f"{i}.jpg", "holdout") < 0.2}
    other = {i for i in range(4000) if fraction_of(f"{i}.jpg", "other") < 0.2}
    assert abs(len(split & other) / 4000 - 0.04) < 0.015  # two salts split independently
