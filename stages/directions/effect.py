"""How far along a direction changes its score by one: what a strength in unit `effect` means (latent-science §4).

The score is what the estimator's own model says of a latent; two kinds of estimator say it in two ways:

    forward   z = β₀ + y·b: the attribute y explains the latent, b = raw_norm · n. The score is y, in the label's units (from
              absent, 0, to present, 1, for classes; from the average class to this one for class_means), and a step of raw_norm along n changes it by 1. So does Haufe's pattern
              of a classifier: its step of raw_norm changes the classifier's score by 1.
    scoring   s = w·z + intercept, w = raw_norm · n: the direction scores the latent (log-odds for logistic and lda, the margin
              for svm, the label's units for ridge). A step α along n changes s by α·raw_norm, so 1/raw_norm changes it by 1.

Both are linear, so the length is the same for every row; what a decoder then shows is for evaluation to measure.
"""

from typing import Literal

Scored = Literal["forward", "scoring"]


FORWARD = ("mean_difference", "balanced_mean_difference", "class_means", "ols")
SCORING = ("ridge", "lda", "logistic", "svm")
PATTERN = "_pattern"
"""Ends the name of a classifier's estimator where its pattern was stored (`lda_pattern`)."""


def scored_by(estimator: str) -> Scored | None:
    """Which of the two ways the score of a stored direction is told; None for one without a score (components, compositions)."""
    if estimator in FORWARD or (estimator.endswith(PATTERN) and estimator.removesuffix(PATTERN) in SCORING):
        return "forward"
    return "scoring" if estimator in SCORING else None


def effect_length(estimator: str, raw_norm: float | None) -> float | None:
    """Length along the unit direction that changes its score by 1; None where it has no score or no length."""
    if raw_norm is None or not 0 < raw_norm < float("inf"):
        return None
    match scored_by(estimator):
        case "forward":
            return raw_norm
        case "scoring":
            return 1 / raw_norm
        case None:
            return None
