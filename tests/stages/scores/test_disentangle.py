"""The scores of one labelled sample as measurements: which rows, which statuses, and the same numbers in any order."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.measurements import Measurement
from schemas.steps import DisentanglementStep
from stages.row_hash import hash_ids, salted
from stages.scores.dci import importances
from stages.scores.disentangle import measure_disentanglement
from stages.scores.factors import FactorStatus, read_factors
from stages.scores.null import Null, orders_of
from tests.stages.scores.representations import rows

KINDS = {"shape": "category", "size": "int", "hue": "float", "lit": "bool"}
QUICK = ("mig", "sap_continuous", "modularity", "irs")


def sample(kind: str, n: int, seed: int = 0) -> tuple[np.ndarray, dict[str, list[Any]]]:
    """Codes of four factors, and these as labels of four types."""
    codes, levels = rows(kind, n, np.random.default_rng(seed))
    return codes.astype(np.float32), {
        "shape": [("disc", "box", "star")[v] for v in levels[:, 0]],
        "size": levels[:, 1].tolist(),
        "hue": (levels[:, 2] / 7).tolist(),
        "lit": (levels[:, 3] > 2).tolist(),
    }


def measured(
    codes: np.ndarray, labels: dict[str, list[Any]], order: Any = None, owners: Any = None, **fields: Any
) -> list[Measurement]:
    step = DisentanglementStep(**{"name": "d", "permutations": 5, "model_permutations": 2, "votes": (60, 40)} | fields)
    order = np.arange(len(codes)) if order is None else order
    ids = pa.array([f"{i:05d}.png" for i in order])
    struct = pa.StructArray.from_arrays(
        [pa.array([values[i] for i in order]) for values in labels.values()], names=list(labels)
    )
    kinds = {name: KINDS.get(name, "category") for name in labels}
    factors = read_factors(struct, kinds, bins=step.bins)
    of = None if owners is None else hash_ids(pa.array([str(owners[i]) for i in order]))
    return list(measure_disentanglement(step, codes[order], factors, hash_ids(ids), of))


def by_metric(found: list[Measurement]) -> dict[str, Measurement]:
    return {m.metric: m for m in found if m.metric != "information"}


def test_a_disentangled_code_passes_its_nulls_and_noise_does_not() -> None:
    good = by_metric(measured(*sample("identity", 3000), scores=QUICK))
    assert {m.status for m in good.values()} == {"ok"}
    assert good["mig"].value > 0.9 and good["mig"].n == 2000
    bad = by_metric(measured(*sample("noise", 3000, seed=1), scores=QUICK, permutations=20))
    assert {m.status for m in bad.values()} == {"at_chance"}
    assert bad["modularity"].value > 0.3 and "the 95 % level of 20 permutations" in bad["modularity"].message
    assert all(
        m.threshold == pytest.approx(np.quantile(json.loads(m.detail)["null"], 0.95, method="higher"))
        for m in bad.values()
    )


def test_a_permutation_that_does_as_well_counts_against_the_score() -> None:
    """And the true order is one of the permutations: p is never 0."""
    null = Null((0.1, 0.2, 0.2))
    assert [null.p_value(v) for v in (0.3, 0.2, 0.15, 0.0)] == [1 / 4, 3 / 4, 3 / 4, 1]


def test_the_level_of_few_permutations_is_called_what_it_is() -> None:
    """Of three no 95 % level can be told: a score must be above all of them, and the message does not say more."""
    bad = by_metric(measured(*sample("noise", 3000, seed=1), scores=("mig", "modularity", "irs"), permutations=3))
    told = [m for m in bad.values() if m.status == "at_chance"]
    assert told and all("the highest of 3 permutations" in m.message for m in told)
    assert all(m.threshold == max(json.loads(m.detail)["null"]) for m in bad.values())


def test_intervals_hold_what_the_score_is_on_average() -> None:
    """120 samples of 240 rows, of which 160 are scored; two factors in three coordinates, one of them of both."""
    values, found = [], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        levels = rng.integers(0, 3, (240, 2))
        codes = np.stack([levels[:, 0], levels[:, 1] + 0.4 * levels[:, 0], rng.standard_normal(240)], 1)
        codes = (codes + 0.4 * rng.standard_normal((240, 3))).astype(np.float32)
        labels = {"size": levels[:, 0].tolist(), "shape": [str(v) for v in levels[:, 1]]}
        (one,) = by_metric(measured(codes, labels, scores=("mig",), permutations=1)).values()
        values.append(one.value)
        found.append((one.low, one.high))
    (low, high), mean = np.array(found).T, np.mean(values)
    assert 0.9 <= np.mean((low <= mean) & (mean <= high)) <= 0.99
    assert np.mean(high - low) / (2 * 2.093 * np.std(values)) == pytest.approx(1, abs=0.25)


def copies(seed: int, people: int = 75, each: int = 6) -> tuple[np.ndarray, dict[str, list[Any]], np.ndarray]:
    """Codes and labels of people, each there `each` times; two factors in three coordinates, one of them of both."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 3, (people, 2))
    codes = np.stack([levels[:, 0], levels[:, 1] + 0.4 * levels[:, 0], rng.standard_normal(people)], 1)
    codes = np.repeat((codes + 0.4 * rng.standard_normal((people, 3))).astype(np.float32), each, axis=0)
    labels = np.repeat(levels, each, axis=0)
    owners = np.repeat(np.arange(people), each)
    return codes, {"size": labels[:, 0].tolist(), "shape": [str(v) for v in labels[:, 1]]}, owners


def test_intervals_of_people_leave_out_people() -> None:
    """Of 75 people six times: without `group` the interval is that of 300 pictures, √6 too narrow by construction."""
    values, alone, grouped = [], [], []
    for seed in range(120):
        codes, labels, owners = copies(seed)
        fields = {"scores": ("sap_continuous",), "permutations": 1}
        (one,) = by_metric(measured(codes, {"size": labels["size"]}, **fields)).values()
        alone.append((one.low, one.high))
        (one,) = by_metric(measured(codes, {"size": labels["size"]}, owners=owners, **fields)).values()
        values.append(one.value)
        grouped.append((one.low, one.high))
    mean = np.mean(values)
    held = [np.mean((b[:, 0] <= mean) & (mean <= b[:, 1])) for b in (np.array(alone), np.array(grouped))]
    width = [np.mean(np.diff(b)) / (2 * 2.093 * np.std(values)) for b in (np.array(alone), np.array(grouped))]
    assert held[0] < 0.7 and width[0] < 0.6
    assert 0.9 <= held[1] <= 0.99 and width[1] == pytest.approx(1, abs=0.25)


def test_the_null_of_people_moves_people() -> None:
    """Noise of 75 people six times: pictures moved one by one make a null that noise passes most of the time."""
    p_values: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(80):
        _, labels, owners = copies(seed)
        codes = np.repeat(np.random.default_rng(seed + 900).standard_normal((75, 3)), 6, axis=0).astype(np.float32)
        for grouped, found in p_values.items():
            fields = {"scores": ("sap_continuous",), "permutations": 19, "owners": owners if grouped else None}
            (one,) = by_metric(measured(codes, {"size": labels["size"]}, **fields)).values()
            found.append(json.loads(one.detail)["p"])
    assert np.mean(np.array(p_values[False]) <= 0.1) > 0.35
    assert np.mean(np.array(p_values[True]) <= 0.1) == pytest.approx(0.1, abs=0.08)


def test_a_person_is_in_train_or_in_test() -> None:
    """Codes that name the person, labels by lot: who was trained on is known, who was not is not."""
    rng = np.random.default_rng(0)
    people, each = 60, 20
    codes = np.repeat(rng.standard_normal((people, 6)), each, axis=0).astype(np.float32)
    labels = {"size": np.repeat(rng.integers(0, 2, people), each).tolist(), "lit": [True, False] * (people * each // 2)}
    fields = {"scores": ("dci",), "model_train": 400, "train": 600, "test": 400}
    owners = np.repeat(np.arange(people), each)
    leaked, apart = (
        by_metric(measured(codes, labels, owners=of, **fields))["dci_informativeness"] for of in (None, owners)
    )
    assert leaked.value > 0.7 and apart.value < 0.65
    one = by_metric(measured(codes, labels, owners=owners * 0, **fields))["dci"]
    assert one.status == "not_applicable" and "whole groups make 1200 rows to train and 0 to test" in one.message


def test_trees_that_gain_nothing_rely_on_nothing() -> None:
    """Every value of the code has each label equally often: no split gains, and shares of 0 / 0 are 0."""
    codes = np.repeat(np.arange(30.0), 2)[:, None] * [1.0, 2.0]
    levels = np.tile([0, 1], 30)[:, None]
    found = importances(codes, levels, codes, levels)
    assert not found.matrix.any()


def test_few_people_have_no_interval() -> None:
    codes, labels, _ = copies(1)
    found = by_metric(measured(codes, labels, owners=np.arange(len(codes)) % 12, scores=("mig", "irs")))
    for one in found.values():
        assert one.low is None and json.loads(one.detail)["no_interval"] == "too_few_groups"


def test_scores_have_an_interval_or_say_why_not() -> None:
    codes, labels = sample("rotated", 1200)
    found = by_metric(measured(codes, labels, scores=(*QUICK, "sap_discrete", "factor_vae"), model_train=60))
    for name in QUICK:
        one = found[name]
        assert 0 <= one.low < one.value < one.high <= 1 and "no_interval" not in json.loads(one.detail)
    for name in ("sap_discrete", "factor_vae"):
        assert (found[name].low, json.loads(found[name].detail)["no_interval"]) == (None, "trains_a_model")
        assert "train its models anew for every group of rows: no interval" in found[name].message
    first = np.argmin(salted(hash_ids(pa.array([f"{i:05d}.png" for i in range(1200)])), "disentanglement"))
    rare = ["b" if i == first else "a" for i in range(1200)]  # one row, and it is among those scored
    lost = by_metric(measured(codes, {"shape": rare}, scores=("mig",)))["mig"]
    assert lost.value is not None and lost.low is None
    assert json.loads(lost.detail)["no_interval"] == "factor_lost"


def test_scores_of_models_stand_on_the_rows_asked_for() -> None:
    found = by_metric(measured(*sample("identity", 600), scores=("sap_discrete",), model_train=150))
    assert found["sap_discrete"].n == 150


def test_the_order_of_the_rows_changes_nothing() -> None:
    codes, labels = sample("rotated", 1200)
    scores = (*QUICK, "dci", "factor_vae")
    shuffled = np.random.default_rng(5).permutation(1200)
    fields = {"scores": scores, "model_train": 60, "factors": ("shape", "lit")}
    labels = {name: labels[name] for name in ("shape", "lit")}
    assert measured(codes, labels, **fields) == measured(codes, labels, shuffled, **fields)


def test_a_row_a_factor_names_the_coordinate_that_knows_it() -> None:
    codes, labels = sample("identity", 3000)
    labels["hue"][::2] = [None] * 1500
    labels["blank"] = pa.nulls(3000, pa.string()).to_pylist()
    found = {m.target: m for m in measured(codes, labels, scores=("mig",)) if m.metric == "information"}
    assert [found[name].subject for name in ("shape", "size", "hue", "lit")] == ["z[0]", "z[1]", "z[2]", "z[3]"]
    assert found["size"].value == pytest.approx(1) and found["size"].n == 2000
    assert 900 < found["hue"].n < 1100  # its gaps are its own
    assert (found["blank"].status, found["blank"].value, found["blank"].n) == ("no_labels", None, 0)
    detail = json.loads(found["shape"].detail)
    assert detail["levels"] == 3 and detail["share"][0] == pytest.approx(1) and detail["gap"] > 0.9


def test_what_the_data_cannot_give_is_said() -> None:
    codes, labels = sample("identity", 1000)
    one = by_metric(measured(codes, {"size": labels["size"]}, scores=(*QUICK, "dci", "factor_vae", "beta_vae")))
    for name in ("dci", "modularity", "factor_vae", "beta_vae"):
        assert (one[name].status, one[name].value) == ("not_applicable", None)
        assert one[name].message.startswith("one factor")
    assert one["mig"].status == one["irs"].status == "ok"
    narrow = by_metric(measured(codes[:, :1], labels, scores=("mig", "irs")))
    assert narrow["mig"].status == "not_applicable" and "one coordinate" in narrow["mig"].message
    assert narrow["irs"].value is not None
    wide = by_metric(measured(codes, labels, scores=("dci", "sap_discrete"), max_dimensions=3))
    assert {m.message for m in wide.values()} == {"the latent has 4 coordinates, more than max_dimensions = 3"}
    shapes = by_metric(measured(codes, {"shape": labels["shape"]}, scores=("sap_continuous",)))
    assert "no factor has an order" in shapes["sap_continuous"].message
    few = by_metric(measured(codes[:50], {k: v[:50] for k, v in labels.items()}, scores=("mig",)))
    assert (few["mig"].status, few["mig"].message) == ("too_few", "50 rows with finite latents; at least 60 are needed")
    for n in (1, 2):  # of one row nothing is left to train on
        scarce = by_metric(measured(*sample("identity", n), scores=QUICK))
        told = {(m.value, m.status, m.message) for m in scarce.values()}
        assert set(scarce) == set(QUICK)
        assert told == {(None, "too_few", f"{n} rows with finite latents; at least 60 are needed")}
    flat = measured(codes, {"size": [3] * 1000}, scores=("mig",))
    assert [m.status for m in flat] == ["constant", "not_applicable"]


def test_draws_by_factor_need_a_full_grid() -> None:
    codes, labels = sample("identity", 3000)
    full = by_metric(measured(codes, labels, scores=("factor_vae", "beta_vae")))
    assert full["factor_vae"].value > 0.95 and full["factor_vae"].status == "ok"
    hole = [
        i for i in range(3000) if not (labels["shape"][i] == "disc" and labels["size"][i] == 1 and labels["lit"][i])
    ]
    holed = by_metric(
        measured(codes[hole], {k: [v[i] for i in hole] for k, v in labels.items()}, scores=("factor_vae",))
    )
    assert holed["factor_vae"].status == "not_applicable"
    assert "5 of the 120 combinations of the factors' levels have no row" in holed["factor_vae"].message


def test_labels_become_levels() -> None:
    rng = np.random.default_rng(0)
    many = rng.integers(0, 400, 5000)
    columns = {
        "size": pa.array(np.where(many % 9 == 0, None, many)),
        "hue": pa.array([float("nan"), *rng.uniform(size=4999)]),
        "lit": pa.array([None, *(rng.uniform(size=4999) > 0.5)]),
        "shape": pa.array([None, *np.array(["b", "a"])[rng.integers(0, 2, 4999)]]),
        "name": pa.array([f"n{i}" for i in many]),
    }
    struct = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    found = {f.name: f for f in read_factors(struct, {n: KINDS.get(n, "category") for n in columns}, bins=20)}
    assert set(found["size"].levels) == set(range(-1, 20)) and np.array_equal(found["size"].known, many % 9 != 0)
    assert set(found["hue"].levels[1:]) == set(range(20)) and found["hue"].levels[0] == -1
    assert found["lit"].levels[0] == found["shape"].levels[0] == -1
    letters = columns["shape"].to_pylist()
    assert [{"a": 0, "b": 1, None: -1}[v] for v in letters] == found["shape"].levels.tolist()
    assert found["shape"].values is not None  # two values have an order, whichever way
    assert found["name"].status is FactorStatus.TOO_MANY_VALUES


def test_the_null_of_sap_moves_gaps_with_their_labels() -> None:
    """A label and whether it is there are one thing: shuffled apart, stand-ins for what is missing would count as labels."""
    codes, labels = sample("rotated", 900)
    hue = [None if i % 3 == 0 else v + 5 for i, v in enumerate(labels["hue"])]  # far from the 0 that stands for a gap
    found = by_metric(measured(codes, {"hue": hue}, scores=("sap_continuous",)))["sap_continuous"]
    hashes = hash_ids(pa.array([f"{i:05d}.png" for i in range(900)]))
    train = np.argsort(salted(hashes, "disentanglement"), kind="stable")[:600]
    values = np.array([[np.nan if v is None else v] for v in hue])[train]
    expected = []
    for order in orders_of(hashes[train], 5):
        known = ~np.isnan(values[order, 0])
        r = np.corrcoef(codes[train][known].T.astype(float), values[order][known, 0])[-1, :-1]
        second, first = np.sort(r**2)[-2:]
        expected.append(first - second)
    np.testing.assert_allclose(sorted(json.loads(found.detail)["null"]), sorted(expected), rtol=1e-5)
