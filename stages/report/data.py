"""What a report shows, as plain values. Whoever builds it reads the tables; the pages below only draw.

Every text in here may come from a file name or a label, so all of it is escaped when it is drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import cv2

from schemas.measurements import Measurement
from stages.layout import Pixels
from stages.pictures import encode


@dataclass(frozen=True)
class Picture:
    """An encoded picture to show."""

    data: bytes
    mime: str = "image/webp"

    @classmethod
    def of(cls, pixels: Pixels, *, longest: int = 192) -> "Picture":
        """A uint8 RGB picture, scaled down until its longer side is at most `longest` pixels."""
        scale = longest / max(pixels.shape[:2])
        if scale < 1:
            size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(pixels.dtype)
        return cls(encode(pixels, "webp", quality=90))


@dataclass(frozen=True)
class Measured:
    """What one step measured."""

    step: str
    stage: str
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Strip:
    """One strip: the image (or the two images) it starts from, and a picture a frame, None where there is none.

    `sources` are the original pictures, shown in front: none, one, or an analogy's three. `note` says what is odd (`antipodal`, `clipped`, …),
    `found` what was found out on the way (a geodesic's energy). `captions`: a word below a frame, none or one a frame.
    """

    ids: tuple[str, ...]
    frames: tuple[Picture | None, ...]
    sources: tuple[Picture | None, ...] = ()
    note: str = ""
    found: str = ""
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class StripTable:
    """Strips with the same columns: one direction of a traverse step, or one step of another kind.

    `strengths` head the columns; `unit` is `sigma`, `latent`, `effect`, `quantile`, `t` (the place between images, 0 to 1), `mean` (the
    number of a mean), `part` (of an edit), `step` (of a walk) or `psi` (truncation). `operation` is what the codes say was done.
    """

    kind: Literal["traverse", "interpolate", "edit", "analogy", "walk", "sample"]
    title: str
    step: str
    mode: str
    unit: str
    strengths: tuple[float, ...]
    strips: tuple[Strip, ...]
    operation: dict[str, Any] = field(default_factory=dict)
    total: int | None = None
    """Strips of this title in the whole code set, where not all are shown."""


@dataclass(frozen=True)
class DirectionEvidence:
    """A fitted direction. `separation` is in σ; None where the fit has no such figure (`status` and `message` say why).

    Where the fit was resampled: `angle` to the true direction, in degrees, with `angle_status` and `angle_message`, which say why
    it has none; `stability`, the mean cosine of fits to resampled images with this one.
    """

    name: str
    estimator: str
    status: str
    n: int | None = None
    n_positive: int | None = None
    n_negative: int | None = None
    separation: float | None = None
    separation_low: float | None = None
    separation_high: float | None = None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    confidence: float = 0.95
    angle: float | None = None
    angle_low: float | None = None
    angle_high: float | None = None
    angle_status: str | None = None
    angle_message: str | None = None
    stability: float | None = None
    stability_low: float | None = None
    stability_high: float | None = None
    message: str | None = None


@dataclass(frozen=True)
class FailureExample:
    """One failed image. `preview` holds the first bytes of its file where they could be read."""

    id: str
    message: str
    preview: bytes | None = None


@dataclass(frozen=True)
class FailureGroup:
    """All failures with one code."""

    code: str
    count: int
    examples: tuple[FailureExample, ...] = ()


@dataclass(frozen=True)
class Curve:
    """A line of (x, y) points, x ascending; points that are not finite are left out. `band`: (x, low, high), the interval drawn behind."""

    name: str
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class LineChart:
    """Curves over one x axis: the loss of a training. `legend`: names and last values, where these tell something."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    legend: bool = True


@dataclass(frozen=True)
class StepTiming:
    """How long a step took, how many rows went through it, and a word on it."""

    name: str
    stage: str
    seconds: float
    rows: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Counts:
    """What the encode step did. `listed` = `encoded` + `already` + `failed`."""

    listed: int
    encoded: int
    failed: int
    already: int
    seconds: float
    rows_per_second: float | None = None


@dataclass(frozen=True)
class ReportData:
    """A whole report. Empty parts are left out of the page."""

    dataset: str
    codec_family: str
    fingerprint: str
    run_id: str
    state: Literal["running", "done", "failed"]
    started_at: datetime
    counts: Counts | None = None
    figures: Mapping[str, str] = field(default_factory=dict)  # more cards: label → value, such as measured recall
    strips: tuple[StripTable, ...] = ()
    directions: tuple[DirectionEvidence, ...] = ()
    failures: tuple[FailureGroup, ...] = ()
    charts: tuple[LineChart, ...] = ()
    measured: tuple[Measured, ...] = ()
    timings: tuple[StepTiming, ...] = ()
    notices: tuple[str, ...] = ()
    job_yaml: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    """One answer of a similarity query."""

    id: str
    distance: float | None
    picture: Picture | None
    labels: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class GalleryData:
    """A similarity query and its answers, nearest first. `picture` is the one asked about.

    `listed`: the rows were not compared with one; `asked` says in which order they come.
    """

    dataset: str
    fingerprint: str
    asked: str
    picture: Picture | None
    hits: tuple[Hit, ...]
    where: str = ""
    listed: bool = False
