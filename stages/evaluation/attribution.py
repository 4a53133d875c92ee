"""Who is to blame when an edit changes more than it should: the data, the model, or the scorer?

For an attribute t with a plain direction (difference of means) and a balanced one, leaks into another attribute o are the
effect on o over the effect on t. What the pictures show of an edit leaks

    plain     ρμ₁/μ₀ + κ     ρ the labels' correlation, μ the distances of their classes, κ what the model ties together
    balanced  κ              a direction that holds the other attributes fixed

and a scorer with leaks of its own measures r = S c instead of what is shown, c (`response`: S from untouched labelled pictures).
With u = diag(S) S⁻¹ r, the same effects as a scorer without leaks would tell them, and L(x) = x_o/x_t:

    data    L(u_plain) − L(u_balanced)   = ρμ₁/μ₀
    model   L(u_balanced)                = κ
    scorer  L(r_plain) − L(u_plain)      = S_ot/S_tt, where the scorer takes t for a little of o and not the other way

which add up to the leak that was measured, L(r_plain). At ρ=.6, μ₁/μ₀=1.5, κ=.5 and a clean scorer that is .9 + .5 = 1.4
(latent-science §6: 1.392 and .500 of one simulation, .892 and .500 its split); a scorer's leak of .3 makes it 1.7.

What this rests on, and the report says it too:
- Effects add up: scores are linear in what is shown, within the strengths of the grid.
- Labels are right, and there is one for each thing that goes with another. What no label names is in the scorer's part if it
  goes with a label in real pictures, and in the model's otherwise.
- The scorer answers to a label's difference between real pictures as to the same change made by an edit. So S is taken from
  untouched originals. Their reconstructions would not do: what the model ties together shows in those too, and would be
  called the scorer's.
- With `reencode` the original's score is read from its stored latent. A readout fitted on correlated labels borrows from the
  others what it cannot read itself, S = Σyy⁻¹Σyz Σzz⁻¹Σzy as a regression: that is its leak, and is found. What an encoder
  takes back of its own decoder's faults it never shows: no part has that. For a linear codec that brings pictures back
  exactly, R of the balanced direction is S itself, and the model's part is 0: it ties nothing that the data does not. S of a
  least squares readout is cross-fitted (`crossfit`): of each row by a fit without it, so a score that learnt its labels by heart
  is `unseen`. The edit's own effect is of the readout that was asked for, and direction and readout were fitted on the same rows:
  what both owe to chance they share, and it is in R.

Without S the last two parts cannot be told apart: `leak_model` is then both, and says so. Measured in σ of the scores;
`in_score_units` in the detail is free of that unit and of its noise. Every part has its interval from the same bootstrap
weights, those of the fits (`refits`) and of S among them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from schemas.measurements import OK, Measurement
from stages.attributes import Floats
from stages.evaluation.design import Edit
from stages.evaluation.refits import Refits
from stages.evaluation.replicates import CONSTANT_SCORE, Results, ratio
from stages.evaluation.response import UNSEEN, ScorerResponse

PLAIN = ("mean_difference",)
BALANCED = ("balanced_mean_difference", "ols")
AS_GIVEN = "the interval takes the directions as given: their own fits' noise is not in it"
NO_EFFECT_AT_ALL = "no_effect"
NO_EFFECT = "the edit's effect on its own attribute cannot be told from 0, so a share of it means little"
NOTHING_KNOWN = "of images that it was not fitted on, the score does not rise with its label"
BOTH = "the scorer's own leaks are in it, too: {}"


def both_kinds(edits: Sequence[Edit], targets: Sequence[int | None]) -> dict[int, tuple[int, int]]:
    """Attribute → its plain and its balanced edit, for the attributes that have both."""
    found = {}
    for target in sorted({t for t in targets if t is not None}):
        mine = [i for i, t in enumerate(targets) if t == target]
        plain = next((i for i in mine if edits[i].estimator in PLAIN), None)
        balanced = next((i for e in BALANCED for i in mine if edits[i].estimator == e), None)
        if plain is not None and balanced is not None:
            found[target] = (plain, balanced)
    return found


def leaks(found: Results) -> Iterator[Measurement]:
    """Effect on each other attribute over the effect on the edit's own, for every edit that has a target."""
    for i, target in enumerate(found.design.targets):
        if target is None:
            continue
        for j in range(len(found.design.attributes)):
            if j != target:
                values = ratio(found.slope[:, i, j], found.slope[:, i, target])
                yield _part(found, "leak", values, (target, j), i, subject=found.design.edits[i].name)


def blame(
    found: Results, response: ScorerResponse | None = None, refits: Refits | None = None
) -> Iterator[Measurement]:
    """`leak_data`, `leak_model`, `leak_scorer` of each attribute (subject) into each other one (target).

    Of the attributes that have both kinds of direction. `refits`: the two fits repeated under the same bootstrap weights;
    without them the interval takes the directions as given, and says so.
    """
    response = response or ScorerResponse.none("not_measured", "its response to labels was not measured")
    for target, (plain, balanced) in both_kinds(found.design.edits, found.design.targets).items():
        attribute = found.design.attributes[target]
        raw, kept = (_Effects.of(found, i, target, response, refits) for i in (plain, balanced))
        for j in range(len(found.design.attributes)):
            if j == target:
                continue
            about: dict[str, Any] = {"subject": attribute, "said": "" if refits else AS_GIVEN}
            why = response.why_not(attribute, found.design.attributes[j])
            measured = raw.measured(target, j), kept.measured(target, j)
            if why:
                said = BOTH.format(response.message or why.replace("_", " "))
                yield _part(found, "leak_data", measured[0] - measured[1], (target, j), plain, **about)
                both = about | {"said": "; ".join(s for s in (said, about["said"]) if s)}
                yield _part(found, "leak_model", measured[1], (target, j), balanced, **both)
                other = found.design.attributes[j]
                message = response.message or f"{why.replace('_', ' ')}: the scorer's response cannot be undone"
                yield Measurement("leak_scorer", subject=attribute, target=other, status=why, message=message)
                continue
            shown = raw.shown(target, j), kept.shown(target, j)
            yield _part(found, "leak_data", shown[0] - shown[1], (target, j), plain, **about)
            yield _part(found, "leak_model", shown[1], (target, j), balanced, **about)
            more = {"pictures": response.n, "of_the_balanced": float((measured[1] - shown[1])[0])}
            yield _part(found, "leak_scorer", measured[0] - shown[0], (target, j), plain, detail=more, **about)


def scorer_leaks(found: Results, response: ScorerResponse) -> Iterator[Measurement]:
    """S in σ of the scores: `scorer_response` S_kk of each label, `scorer_leak` S_jk/S_kk of label k (subject) into score j."""
    at = {name: j for j, name in enumerate(found.design.attributes)}
    if response.status and not response.names:
        return
    for k, label in enumerate(response.names):
        own = response.own(k) / found.sigma[0, at[label]]
        why = response.status or (response.missing.get(label, "") if k not in response.usable else "")
        message = response.message or (NOTHING_KNOWN if why == UNSEEN and response.fitted else response.said)
        about: dict[str, Any] = {"n": response.n} | ({"message": message} if message else {})
        if why and why != UNSEEN:
            yield Measurement("scorer_response", subject=label, target=label, status=why, **about)
            continue
        yield found.measurement(
            "scorer_response", own, subject=label, target=label, unit="σ", status=why or OK, **about
        )
        for j, score in enumerate(response.names):
            if j == k:
                continue
            if why:
                yield Measurement("scorer_leak", subject=label, target=score, status=why, **about)
                continue
            values = ratio(response.matrix[:, j, k], response.matrix[:, k, k])
            values = values * found.sigma[0, at[label]] / found.sigma[0, at[score]]
            yield found.measurement("scorer_leak", values, subject=label, target=score, **about)


class _Effects:
    """What one edit does to all scores, as measured and with the scorer's leaks undone, with the noise of its fit."""

    def __init__(self, slope: Floats, refit: Floats | None, response: ScorerResponse, order: list[int]) -> None:
        self._slope, self._refit, self._response, self._order = slope, refit, response, order

    @classmethod
    def of(cls, found: Results, i: int, target: int, response: ScorerResponse, refits: Refits | None) -> "_Effects":
        at = {name: j for j, name in enumerate(found.design.attributes)}
        refit = None
        if refits is not None:
            refit = (refits.plain if found.design.edits[i].estimator in PLAIN else refits.balanced)[:, target]
        return cls(found.slope[:, i], refit, response, [at[name] for name in response.names])

    def measured(self, target: int, j: int) -> Floats:
        values = ratio(self._slope[:, j], self._slope[:, target])
        if self._refit is None:
            return values
        noise = ratio(self._refit[:, j], self._refit[:, target])
        return np.asarray(values + noise - noise[0])

    def shown(self, target: int, j: int) -> Floats:
        """To first order all noise at once: of the images, of the fit, of S, each replicate with one set of weights."""
        values = self._leak(self._slope, target, j, frozen=False)
        if self._refit is None:
            return values
        noise = self._leak(self._refit, target, j, frozen=True)
        return np.asarray(values + noise - noise[0])

    def _leak(self, slope: Floats, target: int, j: int, *, frozen: bool) -> Floats:
        undone = self._response.undone(slope[:, self._order], frozen=frozen)
        return ratio(undone[:, self._order.index(j)], undone[:, self._order.index(target)])


def _part(
    found: Results,
    metric: str,
    values: Floats,
    pair: tuple[int, int],
    i: int,
    *,
    subject: str,
    said: str = "",
    detail: dict[str, Any] | None = None,
) -> Measurement:
    """`values` in score units become a measurement in σ; `pair`: the scores of the target and of the one it leaks into."""
    target, j = pair
    low, high = found.interval(found.slope[:, i, target])
    none = found.slope[0, i, target] == 0 or (low is not None and high is not None and low <= 0 <= high)
    low, high = found.interval(values)
    about = {"edit": found.design.edits[i].name, "in_score_units": float(values[0]), "low": low, "high": high}
    more = {"message": NO_EFFECT if none else said} if none or said else {}
    return found.measurement(
        metric,
        values * found.sigma[:, target] / found.sigma[:, j],
        subject=subject,
        target=found.design.attributes[j],
        detail=about | (detail or {}),
        missing=NO_EFFECT_AT_ALL if none else CONSTANT_SCORE,
        status=NO_EFFECT_AT_ALL if none else OK,
        **more,
    )
