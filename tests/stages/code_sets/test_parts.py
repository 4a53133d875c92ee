"""Parts of a latent: each is a path of its own, what is not chosen stays, and the axis is declared or refused."""

import numpy as np
import pytest

from schemas.codec import LatentSpec
from schemas.errors import JobError
from stages.code_sets.interpolation import lerp, slerp
from stages.code_sets.parts import parts_of
from stages.code_sets.path import Path

SPATIAL = LatentSpec(shape=(3, 4, 6), space="z")
LAYERED = LatentSpec(shape=(5, 8), space="w", axes=("layer", "feature"))
TOKENS = LatentSpec(shape=(6, 4), space="z", axes=("token", "feature"))
T = np.linspace(0, 1, 5)


def ends(spec: LatentSpec, seed: int = 0, n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.random.default_rng(seed).standard_normal((2, n, spec.dim))
    return a, b


def path_of(spec: LatentSpec, a: np.ndarray, b: np.ndarray, **chosen: object) -> Path:
    parts = parts_of(spec, **chosen)  # type: ignore[arg-type]
    keys = parts.cut(np.stack([a, b], axis=1))
    return parts.joined(slerp(keys[:, 0], keys[:, 1], T), a)


def shaped(values: np.ndarray, spec: LatentSpec) -> np.ndarray:
    return values.reshape(*values.shape[:-1], *spec.shape)


def test_the_whole_is_one_part() -> None:
    a, b = ends(SPATIAL)
    np.testing.assert_array_equal(path_of(SPATIAL, a, b).values, slerp(a, b, T).values)


@pytest.mark.parametrize(
    ("spec", "per", "cuts"),
    [
        (SPATIAL, "channel", [np.s_[c] for c in range(3)]),
        (SPATIAL, "token", [np.s_[:, y, x] for y in range(4) for x in range(6)]),
        (LAYERED, "layer", [np.s_[i] for i in range(5)]),
        (TOKENS, "token", [np.s_[i] for i in range(6)]),
    ],
)
def test_each_part_turns_alone(spec: LatentSpec, per: str, cuts: list) -> None:
    a, b = ends(spec, 1)
    found = shaped(path_of(spec, a, b, per=per).values, spec)
    for cut in cuts:
        one, other = (np.stack([shaped(x, spec)[i][cut].ravel() for i in range(2)]) for x in (a, b))
        alone = slerp(one, other, T).values
        for row in range(2):
            for frame in range(5):
                np.testing.assert_allclose(found[row, frame][cut].ravel(), alone[row, frame], rtol=1e-13)


def test_a_range_of_layers_moves_and_the_others_stay() -> None:
    a, b = ends(LAYERED, 2)
    found = shaped(path_of(LAYERED, a, b, layers=(1, 3)).values, LAYERED)
    first, last = shaped(a, LAYERED), shaped(b, LAYERED)
    for layer in (0, 3, 4):
        np.testing.assert_array_equal(found[:, :, layer], np.repeat(first[:, None, layer], 5, axis=1))
    np.testing.assert_array_equal(found[:, -1, 1:3], last[:, 1:3])
    expected = slerp(first[:, 1:3].reshape(2, -1), last[:, 1:3].reshape(2, -1), T).values
    np.testing.assert_array_equal(found[:, :, 1:3].reshape(2, 5, -1), expected)


def test_layers_on_their_own_within_a_range() -> None:
    a, b = ends(LAYERED, 3)
    found = shaped(path_of(LAYERED, a, b, layers=(1, 3), per="layer").values, LAYERED)
    first, last = shaped(a, LAYERED), shaped(b, LAYERED)
    np.testing.assert_array_equal(found[:, :, 2], slerp(first[:, 2], last[:, 2], T).values)
    np.testing.assert_array_equal(found[:, :, 3], np.repeat(first[:, None, 3], 5, axis=1))


@pytest.mark.parametrize("per", ["whole", "channel", "token"])
def test_a_mask_moves_its_region_alone(per: str) -> None:
    a, b = ends(SPATIAL, 4)
    mask = ((0, 1, 0), (0, 1, 1))  # stretched to 4×6: each number is 2×2 places
    found = shaped(path_of(SPATIAL, a, b, mask=mask, per=per).values, SPATIAL)
    inside = np.kron(np.array(mask), np.ones((2, 2))).astype(bool)
    first, last = shaped(a, SPATIAL), shaped(b, SPATIAL)
    np.testing.assert_array_equal(found[..., ~inside], np.repeat(first[..., ~inside][:, None], 5, axis=1))
    np.testing.assert_array_equal(found[:, -1][..., inside], last[..., inside])
    if per == "whole":
        alone = slerp(first[..., inside].reshape(2, -1), last[..., inside].reshape(2, -1), T).values
        np.testing.assert_allclose(found[..., inside].reshape(2, 5, -1), alone, rtol=1e-13)


def test_a_soft_mask_goes_part_of_the_way() -> None:
    a, b = ends(SPATIAL, 5)
    parts = parts_of(SPATIAL, mask=((0.25, 1.0),))
    keys = parts.cut(np.stack([a, b], axis=1))
    found = shaped(parts.joined(lerp(keys[:, 0], keys[:, 1], T), a).values, SPATIAL)
    first, last = shaped(a, SPATIAL), shaped(b, SPATIAL)
    np.testing.assert_allclose(found[:, -1, :, :, :3], (0.75 * first + 0.25 * last)[..., :3])
    np.testing.assert_array_equal(found[:, -1, :, :, 3:], last[..., 3:])


def test_one_bad_part_makes_its_row_bad_and_no_other() -> None:
    a, b = ends(SPATIAL, 6, n=4)
    place = shaped(np.arange(SPATIAL.dim), SPATIAL)
    b[1, place[2].ravel()] = -a[1, place[2].ravel()]
    a[2, place[0].ravel()] = 0
    a[3, place[1, 0, 0]] = np.nan
    path = path_of(SPATIAL, a, b, per="channel")
    assert path.status.tolist() == ["ok", "antipodal", "zero_norm", "nan_input"]
    assert np.isfinite(path.values[0]).all() and np.isnan(path.values[1:]).all()


@pytest.mark.parametrize(
    ("spec", "chosen", "said"),
    [
        (LatentSpec(shape=(8,), space="z"), {"per": "channel"}, "no channels"),
        (LatentSpec(shape=(5, 8), space="w"), {"per": "layer"}, "no layers"),
        (LatentSpec(shape=(5, 8), space="w"), {"layers": (0, 2)}, "no layers"),
        (LAYERED, {"layers": (3, 9)}, "there are 5 layers"),
        (LAYERED, {"layers": (2, 2)}, "holds no layers"),
        (LAYERED, {"mask": ((1.0,),)}, "no height and width"),
        (SPATIAL, {"mask": ((1.0,) * 5,)}, "does not divide"),
        (SPATIAL, {"mask": ((1.0, 1.0), (1.0,))}, "does not divide"),
        (SPATIAL, {"mask": ((0.0, 0.0),)}, "not all 0"),
        (SPATIAL, {"mask": ((2.0, 0.0),)}, "from 0 to 1"),
    ],
)
def test_what_the_latent_has_not_is_refused_with_a_fix(spec: LatentSpec, chosen: dict, said: str) -> None:
    with pytest.raises(JobError, match=said) as caught:
        parts_of(spec, **chosen)
    assert all(problem.fix for problem in caught.value.problems)
