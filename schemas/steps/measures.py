"""Steps that measure: their numbers go to the measurements table."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.base import Name, broken_rule
from schemas.codec import CodecSpec
from schemas.steps.base import SelectionStep
from schemas.steps.codes import Unit

Box = tuple[float, float, float, float]
Score = Literal["typicality", "mahalanobis", "reconstruction"]

GROUP = (
    "label, or `id:` and a separator (id:/ is the folder), that names what belongs together (a person); default: every image on "
    "its own. Intervals leave out whole groups"
)
EXTRACTOR = r"^(pixel_moments|[\w.]+:\w+)$"


class EvaluateStep(SelectionStep):
    """What edits along directions do to decoded pictures, with intervals: effect, side effects, smoothness, who is to blame."""

    stage: Literal["evaluate"] = "evaluate"
    directions: tuple[str, ...] = Field(
        min_length=1, description="direction names; several of one attribute are ranked against each other"
    )
    strengths: tuple[float, ...] = Field(
        (-2.0, -1.0, 1.0, 2.0), min_length=1, description="the α grid; 0, the unedited picture, is always decoded too"
    )
    unit: Unit = Field(
        "sigma",
        description="sigma: standard deviations of the data along the direction; latent: raw length; effect: the length that changes "
        "the direction's mean score by 1, the same for all rows",
    )
    attributes: tuple[str, ...] | None = Field(
        None, description="what is scored; default: the attributes of the directions, or all that the scorer has"
    )
    scorer: str = Field(
        "reencode",
        pattern=r"^(reencode|[\w.]+:\w+)$",
        description="reencode: encode the decoded picture again and read a linear score from it; "
        "or `module:Class`, a model of your own (needs allow_code)",
    )
    scorer_options: dict[str, Any] = Field(default_factory=dict, description="given to your own scorer's class")
    readout: Literal["ols", "logistic", "direction"] = Field(
        "ols",
        description="reencode: the linear score is fitted on the labels (ols, which is ridge for latents of more than 2,048 "
        "numbers; logistic), or is the direction's own projection. It is the ruler, and is fitted on all rows with labels, whatever "
        "`where` selects; correlations of labels are those of the selected rows",
    )
    originals: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="a scorer of your own: untouched labelled pictures of the source that it scores, to tell its own leaks from "
        "the model's; 0: none",
    )
    identity: bool = Field(True, description="encode decoded pictures again to see what else moved than the direction")
    extractor: str | None = Field(
        "pixel_moments",
        pattern=EXTRACTOR,
        description="fidelity: what makes numbers of pictures, as in the step `fidelity`; null: it is not measured",
    )
    extractor_options: dict[str, Any] = Field(default_factory=dict, description="given to your own extractor's class")
    fidelity_images: int = Field(
        500,
        ge=20,
        le=50_000,
        description="fidelity: images at most, by hash of the id, whose edited pictures are held against the unedited ones",
    )
    slices: tuple[str, ...] = Field(
        (), description="labels (bool, category) whose values are compared: where an edit fails"
    )
    masks: dict[str, Box] = Field(
        default_factory=dict,
        description="direction → [top, left, bottom, right], shares of the picture's sides: where its edit belongs",
    )
    group: str | None = Field(
        None, description="label that names what belongs together (a person); default: every image on its own"
    )
    replicates: int = Field(200, ge=20, le=10_000, description="bootstrap replicates")
    confidence: float = Field(0.95, gt=0, lt=1)
    false_discoveries: float = Field(
        0.05, gt=0, lt=1, description="share of false ones allowed among the effects that are called real"
    )
    seed: int = Field(0, ge=0)

    @field_validator("masks")
    @classmethod
    def _boxes(cls, masks: dict[str, Box]) -> dict[str, Box]:
        for top, left, bottom, right in masks.values():
            if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
                raise ValueError(
                    "a mask is [top, left, bottom, right] with 0 ≤ top < bottom ≤ 1 and 0 ≤ left < right ≤ 1"
                )
        return masks

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not any(self.strengths) or len(set(self.strengths)) < len(self.strengths):
            raise broken_rule(
                "strengths", self.strengths, "needs distinct numbers, not all zero.", "use [-2, -1, 1, 2]"
            )
        if extra := sorted(set(self.masks) - set(self.directions)):
            raise broken_rule("masks", extra[0], "is not among `directions`.", "use the direction's name")
        if len(set(self.directions)) < len(self.directions):
            raise broken_rule("directions", self.directions, "one is named twice.", "name each once")
        return self


DisentanglementScore = Literal[
    "mig", "sap_continuous", "sap_discrete", "dci", "modularity", "irs", "factor_vae", "beta_vae"
]


class DisentanglementStep(SelectionStep):
    """How far single coordinates of the latents stand for single known factors, by the usual scores, each against its null."""

    stage: Literal["disentanglement"] = "disentanglement"
    factors: tuple[str, ...] | Literal["all"] = Field("all", description="labels that are the known factors")
    scores: tuple[DisentanglementScore, ...] = Field(
        ("mig", "sap_continuous", "sap_discrete", "modularity", "irs", "factor_vae", "beta_vae"),
        min_length=1,
        description="which scores; see docs/measures.md. `dci` is to be asked for: gradient boosting takes minutes",
    )
    train: int = Field(
        10_000, ge=50, description="rows that are scored, or train a score's classifiers, by hash of the id"
    )
    test: int = Field(5_000, ge=20, description="rows that test the classifiers of discrete SAP and DCI")
    bins: int = Field(20, ge=2, le=1000, description="histogram bins of a coordinate, and of a factor with more values")
    model_train: int = Field(
        2_000, ge=50, description="of the `train` rows, those that train classifiers: gradient boosting is slow"
    )
    max_dimensions: int = Field(
        64, ge=2, description="wider latents get no score that trains a classifier a coordinate (discrete SAP, DCI)"
    )
    votes: tuple[int, int] = Field(
        (10_000, 5_000), description="factor_vae, beta_vae: batches that train and that test the vote"
    )
    permutations: int = Field(20, ge=1, le=10_000, description="permutations of the null")
    model_permutations: int = Field(
        3, ge=1, le=10_000, description="permutations of the null of scores that train classifiers or draw batches"
    )
    group: str | None = Field(
        None, description=GROUP + ". A group is in one of train and test, and permuted as a whole"
    )
    seed: int = Field(0, ge=0)


class CompareStep(SelectionStep):
    """Holds this job's codec against another one's latents of the same images; carries directions over where that is safe."""

    stage: Literal["compare"] = "compare"
    fingerprint: str | None = Field(
        None, pattern=r"^[0-9a-f]{4,64}$", description="the other codec, by the first digits of its fingerprint"
    )
    codec: CodecSpec | None = Field(None, description="the other codec, by its spec; its latents must be in the store")
    directions: tuple[str, ...] | Literal["all"] = Field(
        "all",
        description="directions of the other codec to carry over; stored as `ported.NAME`, or `STEP.NAME` of a named step",
    )
    max_disparity: float = Field(
        0.3, gt=0, lt=1, description="share of variance on held-out images that may stay unexplained; above it, refused"
    )
    holdout: float = Field(0.2, gt=0, lt=1, description="share of images, by hash of the id, that judge the alignment")
    permutations: int = Field(100, ge=19, le=10_000, description="chance dealings of rows the alignment must beat")
    replicates: int = Field(200, ge=20, le=10_000, description="bootstrap replicates")
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _names_the_other(self) -> Self:
        if (self.fingerprint is None) == (self.codec is None):
            given = None if self.codec is None else self.fingerprint
            raise broken_rule(
                "fingerprint", given, "the other codec is named once.", "give either `fingerprint` or `codec`"
            )
        return self

    @property
    def cosine_column(self) -> str:
        """The column of row cosines: `compare_cosine`, or by the step's own name."""
        return f"{self.name}_cosine"


class FidelityStep(SelectionStep):
    """Whether pictures of code sets look like reconstructions: Fréchet and kernel distance, precision, recall, coverage."""

    stage: Literal["fidelity"] = "fidelity"
    of: tuple[Name, ...] = Field((), description="code-set steps to score; default: all above this one")
    extractor: str = Field(
        "pixel_moments",
        pattern=EXTRACTOR,
        description="what makes numbers of pictures: pixel_moments (colours of a 4 × 4 grid; not Inception), or "
        "`module:Class`, a model of your own (needs allow_code)",
    )
    extractor_options: dict[str, Any] = Field(default_factory=dict, description="given to your own extractor's class")
    sample: int = Field(
        5_000, ge=50, le=50_000, description="pictures of each set kept for kernel distance and nearest neighbours"
    )
    neighbours: int = Field(5, ge=1, le=100, description="k of precision, recall, density and coverage")
    group: str | None = Field(None, description=GROUP + ". A group is in one of the two halves of the images")
    path_pairs: int = Field(
        0,
        ge=0,
        le=50_000,
        description="perceptual path length between so many random pairs of latents; 0: not measured",
    )
    path_distance: str = Field(
        "squared_l2",
        pattern=r"^(squared_l2|[\w.]+:\w+)$",
        description="squared_l2 of pixels, or `module:Class`, a perceptual distance of your own (needs allow_code)",
    )
    path_distance_options: dict[str, Any] = Field(
        default_factory=dict, description="given to your own distance's class"
    )


class DiagnoseStep(SelectionStep):
    """Says how healthy a codec's latents are, with a threshold for every flag, and how odd each image is.

    Measures norms against √d, KL and active units, collapse, the aggregate against the prior, intrinsic dimension, holes and
    coverage. Writes `typicality`, `mahalanobis`, `reconstruction_error` and `anomaly` (the greatest of them, in robust
    deviations) as columns of the latents, for every image: `latentmill query --order -anomaly`.
    """

    stage: Literal["diagnose"] = "diagnose"
    scores: tuple[Score, ...] = Field(
        ("typicality", "mahalanobis"),
        description="scores written for every image; `reconstruction` reads, encodes and decodes every picture again; "
        "empty: no columns are written",
    )
    sample: int = Field(
        4000, ge=100, le=50_000, description="images (by a hash of the id) that neighbours and two-sample tests look at"
    )
    k: int = Field(5, ge=1, le=100, description="neighbours that make a ball, for precision, recall, density, coverage")
    decodes: int = Field(
        4096,
        ge=0,
        description="pictures decoded at most, for decoder sensitivity and cycle error; 0: neither is measured",
    )
    active_threshold: float = Field(0.01, gt=0, description="variance of E[z|x] from which a unit is active (Burda)")
    collapse_nats: float = Field(
        0.01, gt=0, description="nats per dimension under which KL and decoder sensitivity count as none"
    )
    seed: int = Field(0, ge=0, description="of the reference's draws")


class ProjectStep(SelectionStep):
    """A place in the plane for the rows, as columns `<step>_pca_1`, `<step>_umap_2`, …, each map with its trustworthiness.

    pca places every row. umap and tsne (extra `project`) place a sample; all other rows have null there.
    """

    stage: Literal["project"] = "project"
    methods: tuple[Literal["pca", "umap", "tsne"], ...] = Field(("pca", "umap", "tsne"), min_length=1)
    by: str | None = Field(
        None,
        description="label whose values share the sample equally, and colour the report's maps; default: plain sample",
    )
    sample: int = Field(
        5000,
        ge=10,
        le=50_000,
        description="rows that umap and tsne place, by hash of the id; fewer of very wide latents",
    )
    components: int = Field(50, ge=2, le=512, description="principal scores that umap and tsne start from")
    neighbours: int = Field(15, ge=2, le=200, description="umap's neighbourhood, and that of the trustworthiness")
    perplexity: float = Field(30.0, ge=2, description="t-SNE's perplexity")
    seed: int = Field(0, ge=0)
