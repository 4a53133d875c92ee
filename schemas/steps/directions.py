"""Steps that find directions."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.base import broken_rule
from schemas.steps.base import SelectionStep

Estimator = Literal[
    "mean_difference", "balanced_mean_difference", "class_means", "ols", "ridge", "lda", "logistic", "svm"
]


class FitStep(SelectionStep):
    """Fits a direction for every attribute, with its n, its interval and its held-out AUC."""

    stage: Literal["fit"] = "fit"
    attributes: tuple[str, ...] | Literal["all"] = "all"
    estimator: Estimator = "ols"
    controls: tuple[str, ...] | None = Field(
        None,
        description="balanced_mean_difference: attributes whose cells are balanced; default: the other fitted ones",
    )
    l2: float | None = Field(
        None,
        ge=0,
        description="ridge penalty, scikit-learn's `alpha`, and `C = 1/l2` for logistic and svm; default: 0, for svm 1, and for ridge the best by cross-validation",
    )
    folds: int | None = Field(
        None, ge=2, le=20, description="ridge without l2: parts of the cross-validation; default: 5"
    )
    shrinkage: float | Literal["auto"] | None = Field(
        None,
        description="lda: share of the mean variance mixed into the covariance, 0 to 1, or `auto` (Ledoit-Wolf); default: auto",
    )
    missing: Literal["complete", "pairwise"] | None = Field(
        None,
        description="ols, rows with missing labels: only rows that know every fitted label, or each pair of labels on the rows that know both (sound where labels are missing at random; no standard errors); default: complete",
    )
    pattern: bool = Field(
        False,
        description="ridge, lda, logistic, svm: store what changes in the codes with the score (Haufe's pattern), not the classifier's normal",
    )
    extremes: float | None = Field(
        None,
        gt=0,
        le=0.5,
        description="numbers as two classes: the top and the bottom share of the rows by score; InterFaceGAN takes 0.02",
    )
    holdout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of rows, by hash of the id or group, that scores a fit made without them; the stored direction uses all rows",
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="rows that belong together, held out and resampled together: a label such as `person`, or `id:` and a separator (`id:/`: images of one folder)",
    )
    bootstrap: int | None = Field(
        None,
        ge=20,
        le=10_000,
        description="replicates of a Poisson bootstrap by group, for the intervals of separation, AUC and the angle to the true direction; means and ols are refitted exactly, ridge, lda, logistic and svm take one Newton step from the fit, pattern follows from that",
    )
    refresh: Literal["auto", "rebuild", "off"] = Field(
        "off",
        description="auto: keep the fit's statistic in the store, and next time add new rows to it and take gone ones out; rebuild: keep it, but read all rows; off: keep nothing. With holdout: 0, and latents narrow enough for one pass (2,048 numbers; ridge that chooses among 5 folds, 1,672), ols, ridge and lda then read changed rows only; otherwise more scans measure σ and the held-out AUC, and wide latents' second moments",
    )
    confidence: float = Field(0.95, gt=0, lt=1)

    @field_validator("shrinkage")
    @classmethod
    def _is_a_share(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float) and not 0 <= value <= 1:
            raise broken_rule("", value, "not a share.", "use a number from 0 to 1, or auto")
        return value


ComponentEstimator = Literal["pca", "whitening", "sefa", "ganspace", "jacobian"]


class ComponentsStep(SelectionStep):
    """Finds directions without labels and stores them as `<step>.0`, `<step>.1`, …, strongest first.

    pca, whitening: of the latents. sefa: of the decoder's first weights. ganspace: of a decoder layer's activations.
    jacobian: along which small steps change the decoded picture most, on average over the rows.
    """

    stage: Literal["components"] = "components"
    estimator: ComponentEstimator = "pca"
    count: int = Field(10, ge=1, description="how many are stored, at most as many as the latent has numbers")
    weights: str | None = Field(
        None,
        description="sefa: which tensors of the codec's weights, as a pattern such as `stem.weight` or `style.*.weight`; "
        "default: the decoder's first linear layer",
    )
    layer: str | None = Field(
        None, description="ganspace: the decoder layer whose activations are analysed; default: the codec's choice"
    )
    latents: Literal["encoded", "prior"] = Field(
        "encoded", description="ganspace: decode the rows' latents, or one draw of the codec's prior a row"
    )
    passes: int = Field(
        8,
        ge=1,
        description="most passes over the data of the iterative ways: above 16,384 numbers a row, jacobian above 256",
    )
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits_the_estimator(self) -> Self:
        owners = (("weights", "sefa", None), ("layer", "ganspace", None), ("latents", "ganspace", "encoded"))
        for name, owner, plain in owners:
            if getattr(self, name) != plain and self.estimator != owner:
                reason = f"{self.estimator} has no such choice."
                raise broken_rule(name, getattr(self, name), reason, f"remove it, or use estimator: {owner}")
        return self


class ComposeStep(SelectionStep):
    """Makes new directions of stored ones, as `<step>.<direction>`: each freed of others, or all made to get on together.

    projection takes out of each direction what lies in the span of others, by least squares. lowdin gives the orthonormal set
    nearest to all. dual_basis gives steps that each change one score and leave the others. Orthogonal is not unconfounded:
    a direction that was fitted confounded stays so.
    """

    stage: Literal["compose"] = "compose"
    directions: tuple[str, ...] = Field(
        min_length=1, description="directions to compose; the job's own fits first, then the store's"
    )
    method: Literal["projection", "lowdin", "dual_basis"]
    against: tuple[str, ...] = Field(
        (), description="projection: what is taken out of each; default: all the other directions"
    )

    @model_validator(mode="after")
    def _makes_a_set(self) -> Self:
        if self.against and self.method != "projection":
            reason = f"{self.method} treats all its directions alike."
            raise broken_rule("against", self.against, reason, "put them into directions, or use projection")
        names = [*self.directions, *self.against]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise broken_rule("directions", twice[0], "is named twice.", "name each direction once")
        if len(names) < 2:
            raise broken_rule(
                "directions", self.directions, "one direction has nothing to compose with.", "name two or more"
            )
        return self
