"""What the scorer itself takes for what, from untouched pictures that carry labels.

Scores s of real pictures are regressed on all labels y at once: S_jk = change of score j where label k changes by one and the
other labels stay. A scorer that sees each attribute and nothing else has a diagonal S; S_jk/S_kk is its own leak of k into j.

An edit that changes the shown attributes by c (in units of the labels) is measured as r = S c. So c = S⁻¹ r, and

    u_j = S_jj c_j

is what the same scorer would have said of the edit had it no leaks, in its own units: of a diagonal S, u = r.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from stages.attributes import Floats
from stages.bootstrap import percentile_interval
from stages.evaluation.crossfit import HALVES
from stages.evaluation.on_labels import least_squares, scatter

ROWS_PER_LABEL = 10
"""A regression on J labels asks for so many pictures times J + 1."""
MAX_CONDITION = 100.0
"""Of S in units of its diagonal and the labels' σ: beyond it, noise of a score counts a hundredfold."""
TOLERANCE = 1e-9
TOO_FEW_LABELLED = "too_few_labelled"
CONSTANT_LABEL = "constant_label"
COLLINEAR_LABELS = "collinear_labels"
ILL_CONDITIONED = "ill_conditioned"
UNSEEN = "unseen"
NO_LABEL = "no_label"
TOO_MANY_LABELS = "too_many_labels"


@dataclass(frozen=True, eq=False)
class ScorerResponse:
    """S of the scores that are labels. `matrix` (1 + replicates, J, J), score by label: row 0 of all `n` pictures.

    `names` (J,) of the scores; `missing`: scores that have no place in it, and why. Where S as a whole cannot be had or
    undone, `status` says why and `usable` is empty. `usable`: positions in `names` that leaks can be freed of S for. `said`: what
    must be known of every number here.
    """

    names: tuple[str, ...]
    matrix: Floats
    n: int
    status: str = ""
    message: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    usable: tuple[int, ...] = ()
    said: str = ""
    held_out: bool = False

    @classmethod
    def none(cls, status: str, message: str) -> "ScorerResponse":
        """No response was measured."""
        return cls((), np.zeros((1, 0, 0)), 0, status, message)

    @classmethod
    def of(
        cls,
        names: tuple[str, ...],
        sums: Floats,
        *,
        confidence: float,
        held_out: bool = False,
        said: str = "",
        stand_in: Floats | None = None,
    ) -> "ScorerResponse":
        """From `on_labels` sums of labels and scores of the same names, in the same order.

        `held_out`: the scores are fits to these labels, each of rows that it was not fitted on (`crossfit`). Such a score sees its
        label where it rises with it; one that falls knows nothing, and is so by chance. `stand_in`: sums of such scores of the same
        labels, which tell in place of `sums` whether a label is seen.
        """
        count, n = len(names), round(float(sums[0, 0, 0]))
        matrix = np.swapaxes(least_squares(sums), 1, 2)
        found = cls(names, matrix, n, missing={}, said=said, held_out=held_out)
        if n < ROWS_PER_LABEL * (count + 1):
            needed = f"{n} pictures carry all {count} labels; {ROWS_PER_LABEL * (count + 1)} are needed"
            return found._without(TOO_FEW_LABELLED, needed)
        spread = np.diagonal(scatter(sums)[0][0])
        mean_square = np.diagonal(sums[0, 1:, 1 : 1 + count])
        constant = [name for name, s, m in zip(names, spread, mean_square, strict=True) if s <= TOLERANCE * max(m, 1.0)]
        if constant:
            return found._without(CONSTANT_LABEL, f"{', '.join(constant)}: all pictures carry the same label")
        sigma = np.sqrt(spread)
        lowest = float(np.linalg.eigvalsh(scatter(sums)[0][0] / np.outer(sigma, sigma))[0])
        if lowest < TOLERANCE:
            return found._without(COLLINEAR_LABELS, "the labels determine one another: none changes while others stay")
        own = matrix[:, range(count), range(count)]
        told = own if stand_in is None else least_squares(stand_in)[:, range(count), range(count)]
        sees = _above_zero if held_out or stand_in is not None else _apart_from_zero
        seen = tuple(j for j in range(count) if sees(told[:, j], confidence) and own[0, j] != 0)
        missing = {names[j]: UNSEEN for j in range(count) if j not in seen}
        scaled = matrix[0][np.ix_(seen, seen)] * sigma[list(seen)] / (own[0, seen] * sigma[list(seen)])[:, None]
        condition = float(np.linalg.cond(scaled)) if seen else 1.0
        if condition > MAX_CONDITION:
            return found._without(
                ILL_CONDITIONED, f"condition {condition:.3g}: the scores hardly tell the labels apart"
            )
        return replace(found, missing=missing, usable=seen)

    def _without(self, status: str, message: str) -> "ScorerResponse":
        return replace(self, status=status, message=message, missing=dict.fromkeys(self.names, status))

    def own(self, k: int) -> Floats:
        """(1 + replicates,) S_kk; of a held-out score that sees nothing with the width of nothing (`crossfit.HALVES`)."""
        values = self.matrix[:, k, k]
        return _widened(values) if self.held_out and k not in self.usable else np.asarray(values)

    def why_not(self, *names: str) -> str:
        """The typed reason that a leak between these scores cannot be freed of the scorer's; empty where it can."""
        if self.status:
            return self.status
        return next((self.missing.get(name, NO_LABEL) for name in names if not self._freed(name)), "")

    @property
    def fitted(self) -> bool:
        """The scores are fits to these labels."""
        return self.held_out or bool(self.said)

    def _freed(self, name: str) -> bool:
        return name in self.names and self.names.index(name) in self.usable

    def undone(self, changes: Floats, *, frozen: bool = False) -> Floats:
        """u of `changes` (1 + replicates, J) of the scores in the order of `names`; NaN where it cannot be told.

        Each replicate is undone by its own S, or `frozen` by that of all pictures.
        """
        kept = list(self.usable)
        found = np.full_like(changes, np.nan)
        if not kept:
            return found
        matrix = self.matrix[:1] if frozen else self.matrix
        matrix = np.broadcast_to(matrix[:, kept][:, :, kept], (len(changes), len(kept), len(kept)))
        finite = np.isfinite(matrix).all(axis=(1, 2)) & np.isfinite(changes[:, kept]).all(axis=1)
        whole = np.flatnonzero(finite)
        whole = whole[np.abs(np.linalg.det(matrix[whole])) > 0]
        own = np.diagonal(matrix[whole], axis1=1, axis2=2)
        solved = np.linalg.solve(matrix[whole], changes[whole][:, kept, None])[..., 0]
        found[whole[:, None], kept] = own * solved
        return found


def _apart_from_zero(values: Floats, confidence: float) -> bool:
    interval = percentile_interval(values[1:], confidence=confidence)
    return interval is not None and not interval[0] <= 0 <= interval[1]


def _above_zero(values: Floats, confidence: float) -> bool:
    interval = percentile_interval(_widened(values)[1:], confidence=confidence)
    return interval is not None and interval[0] > 0


def _widened(values: Floats) -> Floats:
    return np.asarray(values[0] + np.sqrt(HALVES) * (values - values[0]))
