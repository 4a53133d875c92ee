"""Interpolate: pairs become strips; a pair without a path keeps its place and its reason. Pairing by hash."""

import numpy as np
import pyarrow as pa
import pytest

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import InterpolateStep
from schemas.tables import codes_schema
from stages.code_sets.interpolate import Interpolate, method_of
from stages.code_sets.interpolation import slerp
from stages.code_sets.pairing import explicit_pairs, nearest_pairs, random_pairs
from stages.code_sets.parents import parents_batch, parents_schema
from stages.columns import column_of, matrix_of

VAE = LatentSpec(shape=(8,), space="z")
GAN = LatentSpec(shape=(8,), space="z", prior="standard_normal", centred_shell=True)


def latents(n: int, seed: int, d: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def pairs(a: np.ndarray, b: np.ndarray, spec: LatentSpec = VAE, *, start: int = 0, valid_b=None) -> pa.RecordBatch:
    schema = parents_schema(spec, 2)
    seq = range(start, start + len(a))
    ends = [column_of(a, schema.field("latent_0")), column_of(b, schema.field("latent_1"), valid=valid_b)]
    return parents_batch(seq, [[f"a{i}", f"b{i}"] for i in seq], ends)


def codes(batch: pa.RecordBatch, frames: int) -> np.ndarray:
    return matrix_of(batch.column("latent")).reshape(-1, frames, batch.column("latent").type.list_size)


@pytest.mark.parametrize(("spec", "method"), [(VAE, "lerp"), (GAN, "slerp")])
def test_auto_follows_the_declared_space(spec, method):
    assert method_of(InterpolateStep(), spec) == method
    batch = Interpolate(InterpolateStep(), spec)(pairs(latents(3, 0), latents(3, 1), spec))
    assert set(batch.column("title").to_pylist()) == {method}


def test_the_batch_is_the_contracts_and_runs_from_end_to_end():
    a, b = latents(3, 2), latents(3, 3)
    batch = Interpolate(InterpolateStep(frames=5, name="between"), VAE, first_seq=40)(pairs(a, b))
    assert batch.schema.equals(codes_schema(VAE), check_metadata=True)
    assert batch.column("seq").to_pylist() == list(range(40, 55))
    assert batch.column("strength").to_pylist() == [0, 0.25, 0.5, 0.75, 1] * 3
    assert batch.column("parents").to_pylist()[5] == ["a1", "b1"]
    np.testing.assert_array_equal(codes(batch, 5)[:, 0], a)
    np.testing.assert_array_equal(codes(batch, 5)[:, -1], b)
    np.testing.assert_allclose(codes(batch, 5)[:, 2], (a + b) / 2, rtol=1e-6)


def test_pairs_without_a_path_keep_their_places_and_reasons():
    a, b = latents(5, 4), latents(5, 5)
    b[1] = -a[1]
    a[2] = 0
    b[3, 0] = np.inf
    valid = np.array([True, True, True, True, False])
    batch = Interpolate(InterpolateStep(method="slerp", frames=3), VAE)(pairs(a, b, valid_b=valid))
    assert batch.num_rows == 15
    flags = batch.column("flags").to_pylist()[::3]
    assert flags == [[], ["antipodal"], ["zero_norm"], ["nan_input"], ["missing"]]
    assert batch.column("latent").is_valid().to_pylist() == [True] * 3 + [False] * 12


def test_a_missing_first_latent_is_said_too():
    a, b = latents(1, 6), latents(1, 7)
    schema = parents_schema(VAE, 2)
    batch = pairs(a, b)
    null = column_of(a, schema.field("latent_0"), valid=np.array([False]))
    out = Interpolate(InterpolateStep(frames=2), VAE)(batch.set_column(2, schema.field("latent_0"), null))
    assert out.column("flags").to_pylist() == [["missing"]] * 2


def test_seeded_axis_goes_round_the_same_way_whichever_end_is_first():
    a = latents(4, 8)
    step = InterpolateStep(method="slerp", antipodal="seeded_axis", frames=5)
    there = pairs(a, -a)
    turned = [ids[::-1] for ids in there.column("ids").to_pylist()]
    back = parents_batch(there.column("seq"), turned, [there.column("latent_1"), there.column("latent_0")])
    stage = Interpolate(step, VAE)
    np.testing.assert_allclose(codes(stage(there), 5), codes(stage(back), 5)[:, ::-1], atol=1e-5)
    assert stage(there).column("flags").to_pylist() == [[]] * 20


def test_constant_norm_says_that_it_changes_the_ends():
    a = latents(2, 9)
    b = latents(2, 10)
    b[0] *= np.linalg.norm(a[0]) / np.linalg.norm(b[0])
    b[1] *= 3
    batch = Interpolate(InterpolateStep(method="constant_norm", frames=2), VAE)(pairs(a, b))
    assert batch.column("flags").to_pylist() == [[], [], ["endpoints_rescaled"], ["endpoints_rescaled"]]


def test_spatial_latents_whole_and_per_channel():
    spec = LatentSpec(shape=(2, 2, 3), space="z", centred_shell=True)
    a, b = latents(3, 11, 12), latents(3, 12, 12)
    for per_channel in (False, True):
        step = InterpolateStep(frames=4, per_channel=per_channel)
        shaped = [x.reshape(3, 2, 2, 3) for x in (a, b)]
        expected = slerp(*shaped, np.linspace(0, 1, 4), per_channel=per_channel).values.reshape(3, 4, 12)
        found = codes(Interpolate(step, spec)(pairs(a, b, spec)), 4)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_per_channel_of_flat_latents_is_refused():
    with pytest.raises(JobError, match="no channels"):
        Interpolate(InterpolateStep(per_channel=True), VAE)


def test_codes_do_not_depend_on_how_pairs_are_batched():
    a, b = latents(7, 13), latents(7, 14)
    stage = Interpolate(InterpolateStep(method="slerp", frames=3), VAE)
    whole = pa.Table.from_batches([stage(pairs(a, b))])
    parts = [stage(pairs(a[i : i + 3], b[i : i + 3], start=i)) for i in (3, 6, 0)]
    assert pa.Table.from_batches(parts).sort_by("seq").equals(whole)


IDS = [f"img/{i:04d}.jpg" for i in range(200)]


class TestRandomPairs:
    def test_do_not_depend_on_the_order_of_rows(self):
        shuffled = np.random.default_rng(0).permutation(IDS).tolist()
        assert random_pairs(IDS, count=8, seed=3) == random_pairs(iter(shuffled), count=8, seed=3)

    def test_are_disjoint_while_there_are_enough_images(self):
        found = random_pairs(IDS, count=8, seed=0)
        assert len(found) == 8
        assert len({i for pair in found for i in pair}) == 16

    def test_differ_by_seed(self):
        assert random_pairs(IDS, count=8, seed=0) != random_pairs(IDS, count=8, seed=1)

    @pytest.mark.parametrize(
        ("images", "count", "pairs"), [(0, 3, 0), (1, 3, 0), (2, 3, 1), (3, 3, 3), (5, 8, 8), (4, 99, 6)]
    )
    def test_few_images_give_as_many_different_pairs_as_there_are(self, images, count, pairs):
        found = random_pairs(IDS[:images], count=count, seed=0)
        assert len(found) == pairs
        assert len({frozenset(p) for p in found}) == pairs
        assert all(a != b for a, b in found)


class TestNearestPairs:
    @staticmethod
    def search(ids, k):
        """Neighbours on a line, the image itself first, as a vector search answers."""
        return [sorted(IDS, key=lambda other: abs(int(other[4:8]) - int(i[4:8])))[:k] for i in ids]

    def test_pair_each_chosen_image_with_its_nearest_other(self):
        found = nearest_pairs(IDS, count=6, seed=0, search=self.search)
        assert len(found) == 6
        assert all(abs(int(a[4:8]) - int(b[4:8])) == 1 for a, b in found)

    def test_name_no_pair_twice(self):
        def each_other(ids, k):
            return [[i for i in IDS[:2] if i != one] for one in ids]

        assert len(nearest_pairs(IDS[:2], count=2, seed=0, search=each_other)) == 1


def test_explicit_pairs_keep_their_order_and_lose_repeats():
    assert explicit_pairs([("b", "a"), ("a", "b"), ("b", "a")]) == [("b", "a"), ("a", "b")]
