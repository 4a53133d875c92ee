"""All disentanglement scores of one sample of labelled latents, each against its permutation null, as measurements.

Rows are put in the order of a hash of their ids, which also deals them into train and test and makes the permutations: the
numbers depend on which rows came, never on how. Rows that belong together (`group`) stay together in all of this. A score that the
data cannot give is a row with a typed status.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.measurements import Measurement
from schemas.steps.measures import DisentanglementStep
from stages.row_hash import Hashes, salted
from stages.scores.beta_vae import beta_vae_score
from stages.scores.dci import completeness, disentanglement, importances
from stages.scores.factor_sampling import GridSampler
from stages.scores.factor_vae import factor_vae_score
from stages.scores.factors import Factor, FactorStatus
from stages.scores.grouped import FEWEST_GROUPS, GROUPS, jackknife_interval
from stages.scores.information import Information, Levels, histogram_bins, information, information_bias
from stages.scores.interval import Interval, NoInterval
from stages.scores.irs import interventional_robustness
from stages.scores.mig import mig, mig_per_factor
from stages.scores.modularity import modularity
from stages.scores.null import Null, Order, orders_of, permutation_nulls
from stages.scores.sap import accuracies, sap, sap_continuous

FEWEST = 60
"""Rows of a sample: two thirds of them train, and the others must be 20."""
SHOWN_DIMENSIONS = 24
"""Dimensions whose information with the factors is kept for the heat map: those that know most of some factor."""


class ScoreStatus(StrEnum):
    """Why a score is missing or says nothing, or `ok`."""

    OK = "ok"
    AT_CHANCE = "at_chance"  # not above the 95 % level of its null
    NOT_APPLICABLE = "not_applicable"  # these data cannot give it; the message says why
    TOO_FEW = "too_few"  # too few rows


@dataclass(frozen=True, slots=True)
class Rows:
    """One part of the sample, in hash order: codes (n, d), factors with levels (n,).

    `owners` (n,): what each row belongs to, which is itself unless the step groups; rows of one owner follow one another.
    """

    codes: npt.NDArray[np.float32]
    factors: tuple[Factor, ...]
    owners: Hashes

    def pick(self, rows: slice) -> "Rows":
        return Rows(self.codes[rows], tuple(f.pick(rows) for f in self.factors), self.owners[rows])

    def cut(self, at: int) -> int:
        """The last border between owners up to row `at`, or the first there is; after the last row of a single owner."""
        borders = np.append(np.flatnonzero(self.owners[1:] != self.owners[:-1]) + 1, len(self))
        return int(borders[borders <= at][-1] if (borders <= at).any() else borders[0])

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """(n,) 0 to GROUPS − 1: owners are in the order of a hash, so every GROUPS-th of them is a group by lot."""
        return np.cumsum(np.concatenate([[0], self.owners[1:] != self.owners[:-1]])) % GROUPS

    def of(self, names: set[str]) -> "Rows":
        return replace(self, factors=tuple(f for f in self.factors if f.name in names))

    @property
    def levels(self) -> Levels:
        """(n, f)"""
        return np.stack([f.levels for f in self.factors], axis=1)

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True, slots=True)
class _Score:
    """Scores made together: `of(train order, test order)`, the permutations of their null, and the rows they stand on.

    `part(rows)`: the score of some of these rows alone; None where that would train its models anew.
    """

    of: Callable[[Order, Order], Mapping[str, float]]
    permutations: int
    n: int
    part: Callable[[Order], float] | None = None


class _NotApplicable(ValueError):
    """These data cannot give a score; the message says why."""


def measure_disentanglement(
    step: DisentanglementStep,
    codes: npt.NDArray[np.float32],
    factors: tuple[Factor, ...],
    hashes: Hashes,
    owners: Hashes | None = None,
) -> Iterator[Measurement]:
    """Of codes (n, d), finite, with factors of the same rows. First what each factor has, then the scores.

    `owners` (n,): the group each row belongs to; None: every row stands on its own.
    """
    owners = hashes if owners is None else owners
    order = np.lexsort([salted(hashes, "disentanglement"), salted(owners, "disentanglement")])
    rows = Rows(codes[order], tuple(f.pick(order) for f in factors), owners[order])
    train_rows = min(step.train, len(rows) * 2 // 3) if len(rows) < step.train + step.test else step.train
    train_rows = rows.cut(train_rows)
    train, test = rows.pick(slice(0, train_rows)), rows.pick(slice(train_rows, train_rows + step.test))
    usable = {f.name for f in train.factors if f.status is FactorStatus.OK}
    for factor in train.factors:
        if factor.name not in usable:
            yield Measurement("information", target=factor.name, n=int(factor.known.sum()), status=str(factor.status))
    train, test = train.of(usable), test.of(usable)
    if not usable or not len(train):  # of one row nothing is left to train on, and no histogram can be made of none
        for name in step.scores:
            yield _missing(name, rows, train, "no label varies in the sample" if len(train) else _few(rows))
        return
    bins = histogram_bins(train.codes, bins=step.bins)
    yield from _of_factors(train, information(bins, train.levels), step.bins)
    for name in step.scores:
        try:
            parts = (
                f"whole groups make {len(train)} rows to train and {len(test)} to test; at least 20 of each are needed"
            )
            _needs(min(len(train), len(test)) >= 20, parts)
            yield from _against_null(_score(name, step, train, test, bins), train, test)
        except _NotApplicable as reason:
            yield _missing(name, rows, train, str(reason))


def _missing(name: str, rows: Rows, train: Rows, reason: str) -> Measurement:
    status = ScoreStatus.NOT_APPLICABLE if len(rows) >= FEWEST else ScoreStatus.TOO_FEW
    return Measurement(name, n=len(train), status=str(status), message=reason if len(rows) >= FEWEST else _few(rows))


def _few(rows: Rows) -> str:
    return f"{len(rows)} rows with finite latents; at least {FEWEST} are needed"


def _score(name: str, step: DisentanglementStep, train: Rows, test: Rows, bins: Levels) -> _Score:
    """The score of that name on these rows. Raises _NotApplicable."""
    levels, quick, slow = train.levels, step.permutations, step.model_permutations
    few, few_levels = train.codes[: step.model_train], levels[: step.model_train]
    if name in ("mig", "sap_continuous", "sap_discrete", "dci"):
        _needs(train.codes.shape[1] >= 2, "the latent has one coordinate; there is no second to compare with")
    if name in ("dci", "modularity", "factor_vae", "beta_vae"):
        _needs(levels.shape[1] >= 2, "one factor; there is no other to confuse it with")
    if name in ("dci", "sap_discrete"):
        _trainable(step, few, few_levels, test)
    match name:
        case "mig":
            return _plain(name, lambda rows, a: mig(information(bins[rows], levels[a])), quick, len(train))
        case "modularity":
            return _plain(
                name, lambda rows, a: modularity(information(bins[rows], levels[a]).mutual), quick, len(train)
            )
        case "irs":
            return _plain(
                name,
                lambda rows, a: interventional_robustness(train.codes[rows], levels[a], bins=step.bins).score,
                *(quick, len(train)),
            )
        case "sap_continuous":
            ordered = [f for f in train.factors if f.values is not None]
            _needs(bool(ordered), "no factor has an order, so none can be correlated with")
            values, known = (np.stack(x, axis=1) for x in zip(*((f.values, f.known) for f in ordered), strict=True))
            return _plain(
                name, lambda rows, a: sap_continuous(train.codes[rows], values[a], known[a]), quick, len(train)
            )
        case "sap_discrete":
            return _Score(
                lambda a, b: {"sap_discrete": sap(accuracies(few, levels[a][: len(few)], test.codes, test.levels[b]))},
                *(slow, len(few)),
            )
        case "dci":
            return _Score(lambda a, b: _dci(few, levels[a], test.codes, test.levels[b], step.seed), slow, len(few))
        case _:
            return _drawn(name, step, train)


def _plain(name: str, of: Callable[[Order | slice, Order], float], permutations: int, n: int) -> _Score:
    """A score without models: `of(rows, order)` of the codes of `rows` with the labels of `order`."""
    return _Score(lambda a, _: {name: of(slice(None), a)}, permutations, n, lambda rows: of(rows, rows))


def _trainable(step: DisentanglementStep, few: npt.NDArray[Any], levels: Levels, test: Rows) -> None:
    wide = few.shape[1]
    why = f"the latent has {wide:,} coordinates, more than max_dimensions = {step.max_dimensions}"
    _needs(wide <= step.max_dimensions, why)
    for factor, trained, tested in zip(test.factors, levels.T, test.levels.T, strict=True):
        known = trained[trained >= 0]
        enough = len(known) > 0 and bool((known != known[0]).any()) and bool((tested >= 0).any())
        _needs(enough, f"{factor.name}: the rows that train have one value, or those that test have none")


def _dci(
    codes: npt.NDArray[Any], levels: Levels, test_codes: npt.NDArray[Any], test_levels: Levels, seed: int
) -> dict[str, float]:
    found = importances(codes, levels[: len(codes)], test_codes, test_levels, seed=seed)
    return {
        "dci_disentanglement": disentanglement(found.matrix),
        "dci_completeness": completeness(found.matrix),
        "dci_informativeness": found.informativeness,
    }


def _drawn(name: str, step: DisentanglementStep, train: Rows) -> _Score:
    """FactorVAE and β-VAE draw codes by factor, which rows give only when they fill the grid of the factors' levels."""
    whole = (train.levels >= 0).all(1)
    codes, levels = train.codes[whole], train.levels[whole]
    _needs(len(levels) > 0 and bool((levels != levels[0]).any(0).all()), "no rows have all labels and vary in all")
    try:
        GridSampler.of(codes, levels)
    except ValueError as reason:
        raise _NotApplicable(f"codes cannot be drawn by factor: {reason}") from None
    score = factor_vae_score if name == "factor_vae" else beta_vae_score

    def of(train_order: Order, _: Order) -> dict[str, float]:
        # Only whole rows take part, so the permutation is that of their places among themselves.
        order = np.argsort(train_order[whole], kind="stable")
        sampler = GridSampler.of(codes, levels[order])
        return {name: score(sampler, np.random.default_rng(step.seed), votes=step.votes)}

    return _Score(of, step.model_permutations, int(whole.sum()))


def _needs(condition: bool, why: str) -> None:
    if not condition:
        raise _NotApplicable(why)


def _against_null(score: _Score, train: Rows, test: Rows) -> Iterator[Measurement]:
    same = (np.arange(len(train)), np.arange(len(test)))
    orders = zip(orders_of(train.owners, score.permutations), orders_of(test.owners, score.permutations), strict=True)
    try:
        nulls = permutation_nulls(lambda pair: score.of(*pair), orders)
        found = score.of(*same)
    except ValueError as reason:
        raise _NotApplicable(str(reason)) from None
    for name, value in found.items():
        yield _held(name, value, nulls[name], _interval(score, value, train.groups), score.n)


def _interval(score: _Score, value: float, groups: npt.NDArray[np.int64]) -> Interval:
    """Delete-a-group jackknife over the groups (n,) of the rows that train."""
    if score.part is None:
        return Interval(why=NoInterval.TRAINED)
    if (count := int(groups.max()) + 1) < FEWEST_GROUPS:
        return Interval(why=NoInterval.TOO_FEW_GROUPS)
    try:
        without = np.array([score.part(np.flatnonzero(groups != group)) for group in range(count)])
    except ValueError:
        return Interval(why=NoInterval.FACTOR_LOST)
    low, high = jackknife_interval(value, without)
    assert low is not None and high is not None, "there are groups enough"
    return Interval(max(low, 0.0), min(high, 1.0))


def _held(name: str, value: float, null: Null, interval: Interval, n: int) -> Measurement:
    p = null.p_value(value)
    chance = value <= null.level
    level = "95 % level" if len(null.scores) >= 20 else "highest"
    said = [f"not above {null.level:.3g}, the {level} of {len(null.scores)} permutations"] if chance else []
    detail = {"null": list(null.scores), "null_mean": null.mean, "p": p}
    if interval.why is not None:
        detail["no_interval"] = str(interval.why)
        said.append(interval.said)
    return Measurement(
        name,
        value,
        low=interval.low,
        high=interval.high,
        n=n,
        threshold=null.level,
        status=str(ScoreStatus.AT_CHANCE if chance else ScoreStatus.OK),
        message="; ".join(said),
        detail=json.dumps(detail),
    )


def _of_factors(train: Rows, found: Information, bins: int) -> Iterator[Measurement]:
    """A row a factor: the share of its entropy that its best dimension knows, held against the bias of the estimate."""
    share = found.mutual / found.entropy
    shown = np.sort(np.argsort(-share.max(1), kind="stable")[:SHOWN_DIMENSIONS])
    gaps = mig_per_factor(found) if len(share) >= 2 else np.zeros(len(found.entropy))
    for j, factor in enumerate(train.factors):
        count = len(np.unique(factor.levels[factor.known]))
        n, best = int(found.n[j]), int(share[:, j].argmax())
        detail = {
            "dimensions": shown.tolist(),
            "share": share[shown, j].tolist(),
            "best": best,
            "gap": float(gaps[j]),
            "entropy": float(found.entropy[j]),
            "levels": count,
        }
        bias = information_bias(bins, count, n) / float(found.entropy[j])
        yield Measurement(
            "information",
            min(float(share[best, j]), 1.0),  # rounding
            f"z[{best}]",
            factor.name,
            n=n,
            threshold=bias,
            detail=json.dumps(detail),
        )
