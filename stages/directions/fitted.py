"""What an estimator hands to the fit step: raw estimates of every column, before anything is measured along them."""

from dataclasses import dataclass, field

from stages.attributes import Column, Floats
from stages.directions.cells import Key
from stages.directions.direction import Estimate
from stages.directions.linearised import Linearised
from stages.directions.scoring import Spread
from stages.moments import Moments

Found = dict[int, tuple[Estimate, Estimate]]
"""By column: the estimate of all rows and that of the training rows."""


@dataclass(slots=True)
class Fitted:
    """What the estimators found: an estimate a column on all rows, one on the training rows, and moments of all rows.

    For the bootstrap: `controls` and the `cells` of balanced means; `linearised`, of estimators that take one step, by column the
    fit on all rows or why there is none.
    """

    columns: tuple[Column, ...]
    stored: list[Estimate]
    trial: list[Estimate]
    everything: Moments
    non_finite: int
    spreads: list[Spread] | None = None
    """Set where the first pass could measure them too."""
    controls: tuple[str, ...] = ()
    cells: tuple[Key, ...] = ()
    linearised: list[Linearised | str | None] = field(default_factory=list)
    label_means: Floats | None = None
    """Least squares: by column, 0 where there is none. Labels such as years or times lie far from 0."""
