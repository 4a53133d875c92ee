"""An interval, or the typed reason why a score has none: nothing is left open without a word."""

from dataclasses import dataclass
from enum import StrEnum

from stages.scores.grouped import FEWEST_GROUPS, JACKKNIFE_FEATURES
from stages.scores.kernel_distance import MANY


class NoInterval(StrEnum):
    """Why a number stands without an interval."""

    TOO_WIDE = "too_many_features"
    FEWER_THAN_FEATURES = "fewer_images_than_features"
    TOO_FEW_GROUPS = "too_few_groups"
    TOO_FEW = "too_few_pictures"
    ONE_BLOCK = "one_block"
    NO_SPREAD = "no_spread"
    TRAINED = "trains_a_model"
    FACTOR_LOST = "factor_lost"


WHY = {
    NoInterval.TOO_WIDE: f"more than {JACKKNIFE_FEATURES} features",
    NoInterval.FEWER_THAN_FEATURES: "a covariance asks for more pictures than features, also without a group",
    NoInterval.TOO_FEW_GROUPS: f"fewer than {FEWEST_GROUPS} groups of images",
    NoInterval.TOO_FEW: "too few pictures for neighbours without a group",
    NoInterval.ONE_BLOCK: f"fewer than {MANY} pictures make one block",
    NoInterval.NO_SPREAD: "no group of images changes it",
    NoInterval.TRAINED: "it would train its models anew for every group of rows",
    NoInterval.FACTOR_LOST: "without a group of rows a factor has one value",
}


@dataclass(frozen=True, slots=True)
class Interval:
    """`low` and `high`, or `why` there are none."""

    low: float | None = None
    high: float | None = None
    why: NoInterval | None = None

    @property
    def said(self) -> str:
        return "" if self.why is None else f"{WHY[self.why]}: no interval"
