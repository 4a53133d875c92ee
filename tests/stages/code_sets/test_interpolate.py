"""Interpolate: pairs become strips; a pair without a path keeps its place and its reason. Pairing by hash."""

import json
from dataclasses import replace
from functools import reduce

import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.batches import codes_schema
from schemas.codec import CustomCodec, LatentSpec, Preprocess, SphereCodec
from schemas.errors import JobError
from schemas.steps import InterpolateStep
from stages.code_sets.convergence import convergence_of, measurements, together
from stages.code_sets.interpolate import Interpolate, interpolate_problems, method_of, needs_data_mean
from stages.code_sets.interpolation import slerp
from stages.code_sets.pairing import explicit_pairs, nearest_pairs, random_pairs
from stages.code_sets.parents import parents_batch, parents_schema
from stages.codecs.sphere import Sphere
from stages.columns import column_of, matrix_of
from tests.codec_cases import StubbornCodec

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
    batch = Interpolate(InterpolateStep(frames=5, name="between"), VAE)(pairs(a, b))
    assert batch.schema.equals(codes_schema(VAE), check_metadata=True)
    assert batch.column("seq").to_pylist() == list(range(15))
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

    def test_take_the_next_neighbour_where_the_nearest_is_taken(self):
        near = {IDS[0]: [IDS[1], IDS[2]], IDS[1]: [IDS[0], IDS[2]], IDS[2]: [IDS[0], IDS[1]]}
        found = nearest_pairs(IDS[:3], count=3, seed=0, search=lambda ids, k: [near[i] for i in ids])
        assert {frozenset(p) for p in found} == {frozenset((IDS[a], IDS[b])) for a, b in [(0, 1), (1, 2), (0, 2)]}


def test_explicit_pairs_keep_their_order_and_lose_repeats():
    assert explicit_pairs([("b", "a"), ("a", "b"), ("b", "a")]) == [("b", "a"), ("a", "b")]


def sets(values: np.ndarray, spec: LatentSpec = VAE, *, logvars: np.ndarray | None = None) -> pa.RecordBatch:
    """(n, k, d) → a batch of n sets of k parents."""
    columns = ("latent",) if logvars is None else ("latent", "logvar")
    schema = parents_schema(spec, values.shape[1], columns=columns)
    every = values if logvars is None else np.concatenate([values, logvars], axis=1)
    arrays = [column_of(every[:, i], schema.field(2 + i)) for i in range(every.shape[1])]
    ids = [[f"{chr(97 + p)}{i}" for p in range(values.shape[1])] for i in range(len(values))]
    return parents_batch(range(len(values)), ids, arrays, columns=columns)


def ids_of(k: int) -> tuple[tuple[str, ...], ...]:
    return (tuple(f"x{i}" for i in range(k)),)


@pytest.mark.parametrize(
    ("spec", "options", "method"),
    [
        (VAE, {"sets": ids_of(3)}, "catmull_rom"),
        (GAN, {"sets": ids_of(3)}, "squad"),
        (VAE, {"sets": ids_of(3), "weights": "equal"}, "lerp"),
        (GAN, {"sets": ids_of(3), "weights": "equal"}, "lol"),
        (GAN, {"sets": ids_of(2)}, "slerp"),
        (VAE, {"sets": ids_of(1)}, "catmull_rom"),
    ],
)
def test_auto_for_sets_and_means(spec, options, method):
    assert method_of(InterpolateStep(**options), spec) == method


@pytest.mark.parametrize(
    "options", [{}, {"method": "catmull_rom", "knots": "uniform"}, {"method": "squad", "radius": "geometric"}]
)
def test_a_path_through_a_set_passes_through_its_images(options):
    values = latents(3 * 4, 20).reshape(3, 4, 8)
    batch = Interpolate(InterpolateStep(sets=ids_of(4), frames=7, **options), VAE)(sets(values))
    assert batch.schema.equals(codes_schema(VAE), check_metadata=True)
    assert batch.column("parents").to_pylist()[0] == ["a0", "b0", "c0", "d0"]
    np.testing.assert_allclose(codes(batch, 7)[:, ::2], values, rtol=1e-6)


def test_one_image_is_a_path_that_stays():
    values = latents(2, 21).reshape(2, 1, 8)
    batch = Interpolate(InterpolateStep(sets=ids_of(1), frames=3), VAE)(sets(values))
    np.testing.assert_array_equal(codes(batch, 3), np.repeat(values, 3, axis=1))


def test_means_have_a_frame_a_row_of_weights():
    values = latents(2 * 3, 22).reshape(2, 3, 8)
    step = InterpolateStep(method="lerp", sets=ids_of(3), weights=((1, 0, 0), (1, 1, 0), (1, 1, 2)))
    batch = Interpolate(step, VAE)(sets(values))
    assert batch.column("unit").to_pylist() == ["mean"] * 6
    assert batch.column("strength").to_pylist() == [1, 2, 3] * 2
    expected = np.einsum("fk,nkd->nfd", [[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]], values)
    np.testing.assert_allclose(codes(batch, 3), expected, rtol=1e-5, atol=1e-6)
    equal = Interpolate(InterpolateStep(method="karcher", sets=ids_of(3), weights="equal"), VAE)
    assert (equal.frames, equal(sets(values)).num_rows) == (1, 2)


def test_a_karcher_mean_beyond_a_hemisphere_is_flagged():
    spec = LatentSpec(shape=(2,), space="z", centred_shell=True)
    turn = np.array([0, 2 * np.pi / 3, 4 * np.pi / 3])
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)[None]
    step = InterpolateStep(method="karcher", sets=ids_of(3), weights="equal")
    batch = Interpolate(step, spec)(sets(ring, spec))
    assert batch.column("flags").to_pylist() == [["not_unique"]]
    assert batch.column("latent").null_count == 0


def test_lol_goes_about_the_prior_or_the_data():
    a, b = latents(3, 23), latents(3, 24)
    middle = (a.astype(float) + b) / 2
    for spec, mean in ((GAN, None), (VAE, np.full(8, 2.0))):
        assert needs_data_mean(InterpolateStep(method="lol"), spec) == (mean is not None)
        found = codes(Interpolate(InterpolateStep(method="lol", frames=3), spec, mean=mean)(pairs(a, b, spec)), 3)
        mu = 0 if mean is None else mean
        np.testing.assert_allclose(found[:, 1], mu + np.sqrt(2) * (middle - mu), rtol=1e-5, atol=1e-5)
    with pytest.raises(JobError, match="mean is not known"):
        Interpolate(InterpolateStep(method="lol"), VAE)


class TestPosterior:
    STEP = InterpolateStep(method="posterior", frames=5, draws=3, seed=4)

    @staticmethod
    def batch(n: int = 2, *, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, pa.RecordBatch]:
        mean, logvar = latents(2 * n, 25).reshape(n, 2, 8), spread * latents(2 * n, 26).reshape(n, 2, 8)
        return mean, logvar, sets(mean, logvars=logvar)

    def test_mean_and_sigma_go_straight_with_one_noise_a_strip(self):
        mean, logvar, batch = self.batch()
        found = codes(Interpolate(self.STEP, VAE)(batch), 5).reshape(2, 3, 5, 8)
        sigma, t = np.exp(logvar / 2), np.linspace(0, 1, 5)[:, None]
        noise = (found[:, :, 0] - mean[:, None, 0]) / sigma[:, None, 0]
        expected = (1 - t) * mean[:, None, :1] + t * mean[:, None, 1:]
        expected = expected + ((1 - t) * sigma[:, None, :1] + t * sigma[:, None, 1:]) * noise[:, :, None]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.abs(noise[:, 0] - noise[:, 1]).min() > 1e-6, "each draw has noise of its own"

    def test_draws_are_standard_normal_and_the_rows_own(self):
        mean, _, batch = self.batch(400, spread=0.0)
        found = codes(Interpolate(self.STEP, VAE)(batch), 5).reshape(400, 3, 5, 8)
        noise = found[:, :, 0] - mean[:, None, 0]
        assert abs(noise.mean()) < 5 / np.sqrt(noise.size) and abs(noise.std() - 1) < 0.03
        alone = Interpolate(self.STEP, VAE)(batch.slice(7, 1))
        np.testing.assert_array_equal(codes(alone, 5), found[7])

    def test_without_spread_it_is_lerp(self):
        mean, _, _ = self.batch()
        batch = sets(mean, logvars=np.full_like(mean, -60))
        expected = codes(Interpolate(InterpolateStep(method="lerp", frames=5), VAE)(pairs(mean[:, 0], mean[:, 1])), 5)
        found = codes(Interpolate(self.STEP, VAE)(batch), 5)[::3]
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_strips_are_numbered_and_named_apart(self):
        _, _, batch = self.batch()
        out = Interpolate(self.STEP, VAE)(batch)
        assert out.column("seq").to_pylist() == list(range(30))
        assert len(set(out.column("strip").to_pylist())) == 6

    def test_a_missing_logvar_is_said(self):
        _, _, batch = self.batch()
        name = "logvar_1"
        null = column_of(latents(2, 0), batch.schema.field(name), valid=np.array([True, False]))
        at = batch.schema.get_field_index(name)
        out = Interpolate(self.STEP, VAE)(batch.set_column(at, batch.schema.field(at), null))
        assert out.column("flags").to_pylist()[::15] == [[], ["missing"]]


class TestGeodesic:
    CODEC = Sphere(SphereCodec(dim=3, preprocess=Preprocess(size=(8, 8))))
    STEP = InterpolateStep(method="geodesic", frames=5)

    def made(self, batch: pa.RecordBatch, **changes) -> pa.RecordBatch:
        return Interpolate(self.STEP.model_copy(update=changes), self.CODEC.latent)(batch, self.CODEC)

    def test_codes_lie_on_the_great_circle_and_the_operation_reports(self):
        a, b = latents(2, 27, 3), latents(2, 28, 3)
        batch = self.made(pairs(a, b, self.CODEC.latent))
        middle = self.CODEC.geodesic(torch.from_numpy(a), torch.from_numpy(b), t=0.5)
        found = torch.from_numpy(codes(batch, 5)[:, 2].copy())
        assert float(self.CODEC.geodesic_distance(found, middle).max()) < 1e-4 * self.CODEC.radius
        report = json.loads(batch.column("operation")[0].as_py())["found"]
        assert report["converged"] is True and report["energy"] <= report["straight_energy"]
        assert set(batch.column("flags").to_pylist()[0]) == set()

    def test_what_did_not_converge_is_flagged_and_kept(self):
        batch = self.made(pairs(latents(1, 29, 3) * 2, latents(1, 30, 3) * 2, self.CODEC.latent), iterations=1)
        assert batch.column("flags").to_pylist() == [["not_converged"]] * 5
        assert batch.column("latent").null_count == 0

    def test_rows_do_not_depend_on_their_batch(self):
        a, b = latents(3, 31, 3), latents(3, 32, 3)
        b[1, 0] = np.nan
        whole = self.made(pairs(a, b, self.CODEC.latent))
        alone = self.made(pairs(a[2:], b[2:], self.CODEC.latent, start=2))
        assert whole.slice(10).equals(alone)
        assert whole.column("flags").to_pylist()[5] == ["nan_input"]

    def test_a_missing_image_has_no_path_that_converged(self):
        a, b = latents(3, 33, 3), latents(3, 34, 3)
        batch = self.made(pairs(a, b, self.CODEC.latent, valid_b=np.array([True, False, True])))
        assert batch.column("flags").to_pylist()[5] == ["missing"]
        assert json.loads(batch.column("operation")[5].as_py())["found"] == {}
        found = convergence_of(batch)["interpolate"]
        assert (found.paths, found.without) == (2, 1)

    def test_the_summary_counts_each_strip_once_in_any_cut(self):
        a, b = latents(5, 33, 3), latents(5, 34, 3)
        b[1, 0] = np.nan
        batch = self.made(pairs(a, b, self.CODEC.latent), iterations=3)
        reports = [json.loads(o).get("found") for o in batch.column("operation").to_pylist()[::5]]
        known = [r for r in reports if r]
        found = convergence_of(batch)["interpolate"]
        assert (found.paths, found.without, found.converged) == (4, 1, sum(r["converged"] for r in known))
        told = {m.metric: m for m in measurements(found, tolerance=1e-3)}
        assert told["iterations"].value == np.median([r["iterations"] for r in known])
        kept = np.median([r["energy"] / r["straight_energy"] for r in known])
        assert told["energy_kept"].value == pytest.approx(kept, abs=1e-4)
        assert told["energy"].value == pytest.approx(sum(r["energy"] for r in known))
        worst = max(range(5), key=lambda i: reports[i]["gradient"] if reports[i] else -1)
        assert told["worst_gradient"].value == reports[worst]["gradient"] and found.converged < 4
        assert told["worst_gradient"].subject == " · ".join(batch.column("parents").to_pylist()[5 * worst])
        assert (told["converged"].status, told["without_path"].status) == ("not_converged", "no_path")
        parts = [convergence_of(batch.slice(at, 7)) for at in range(0, len(batch), 7)]
        merged = reduce(together, reversed(parts))["interpolate"]
        assert merged.energy == pytest.approx(found.energy, rel=1e-14)
        assert replace(merged, energy=0, straight=0) == replace(found, energy=0, straight=0)

    def test_other_paths_are_in_no_summary(self):
        batch = Interpolate(InterpolateStep(name="geodesic"), self.CODEC.latent)(
            pairs(latents(2, 35, 3), latents(2, 36, 3), self.CODEC.latent)
        )
        assert convergence_of(batch) == {}

    def test_a_codec_without_gradients_is_refused(self):
        spec = CustomCodec(entry="a:B", preprocess=Preprocess(size=(8, 8)))
        stage = Interpolate(self.STEP, StubbornCodec.latent_of(spec))
        with pytest.raises(JobError, match="no decoder with gradients"):
            codec = StubbornCodec(spec, device="cpu")
            stage(pairs(latents(1, 31, codec.latent.dim), latents(1, 32, codec.latent.dim), codec.latent), codec)


def test_parts_of_spatial_latents_follow_the_step():
    spec = LatentSpec(shape=(2, 2, 3), space="z", centred_shell=True)
    a, b = latents(3, 11, 12), latents(3, 12, 12)
    whole = codes(Interpolate(InterpolateStep(frames=4), spec)(pairs(a, b, spec)), 4)
    np.testing.assert_allclose(whole, slerp(a, b, np.linspace(0, 1, 4)).values, rtol=1e-6)
    per = codes(Interpolate(InterpolateStep(frames=4, per="channel"), spec)(pairs(a, b, spec)), 4)
    for c in (np.s_[:6], np.s_[6:]):
        expected = slerp(a[:, c], b[:, c], np.linspace(0, 1, 4)).values
        np.testing.assert_allclose(per[..., c], expected, rtol=1e-6)
    corner = InterpolateStep(frames=4, method="lerp", mask=((1, 0, 0), (0, 0, 0)))
    masked = codes(Interpolate(corner, spec)(pairs(a, b, spec)), 4)
    np.testing.assert_array_equal(masked[:, -1, [0, 6]], b[:, [0, 6]])
    stays = [i for i in range(12) if i not in (0, 6)]
    np.testing.assert_array_equal(masked[:, -1][:, stays], a[:, stays])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"per": "channel"}, "no channels"),
        ({"method": "two_part", "split": 8}, "has 8 numbers"),
        ({"method": "lol", "around": "prior"}, "declares no prior"),
    ],
)
def test_what_does_not_fit_the_latents_is_refused(options, said):
    with pytest.raises(JobError, match=said):
        Interpolate(InterpolateStep(**options), VAE)


def test_a_posterior_needs_logvar():
    (problem,) = interpolate_problems(InterpolateStep(method="posterior"), VAE, has_logvar=False)
    assert "no logvar" in problem.reason


def test_options_of_a_method_are_kept_in_the_operation():
    step = InterpolateStep(method="slerp_radius", radius="geometric", frames=2)
    batch = Interpolate(step, VAE)(pairs(latents(1, 33), latents(1, 34)))
    assert json.loads(batch.column("operation")[0].as_py())["radius"] == "geometric"
    assert batch.column("title")[0].as_py() == "slerp, geometric radius"
