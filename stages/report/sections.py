"""The parts of a report: directions, failures, timings, provenance. Each takes plain data and gives markup."""

from collections.abc import Sequence

from stages.report.charts import bar, whisker
from stages.report.data import (
    DirectionEvidence,
    FailureExample,
    FailureGroup,
    ReportData,
    StepTiming,
)
from stages.report.figures import MINUS, count, interval, percent, rate, seconds, share, within
from stages.report.markup import Markup, image, join, tag
from stages.report.preview import hex_lines, thumbnail

SHOWN = 24
"""Directions in plain sight: a store collects them, and a category has one a value."""
SEPARATED = (
    "Separation: how far the images with and without it lie apart along the direction, in standard deviations. AUC: how often it "
    "ranks an image with it above one without, on images it was not fitted to; 0.5 is guessing."
)
RESAMPLED = (
    "Angle to the truth: how far the direction may be off the one that endless labels would give. Stability: fitted anew to images "
    "drawn from these with replacement, how alike it comes out, as a mean cosine; 1 is the same every time."
)


def directions(found: Sequence[DirectionEvidence]) -> Markup:
    """What each direction rests on: how many images, how far the classes lie apart, how well it tells unseen ones apart."""
    widest = max((d.separation_high or d.separation or 0.0 for d in found), default=0.0) or 1.0
    level = percent(found[0].confidence, 1)
    resampled = any(d.angle_status for d in found)
    columns = (
        "direction",
        "images, with / without",
        f"separation, σ ({level} interval)",
        f"held-out AUC ({level} interval)",
        *((f"angle to the truth, ° ({level} interval)",) if resampled else ()),
    )

    def table(some: Sequence[DirectionEvidence]) -> Markup:
        return tag(
            "table",
            tag("thead", tag("tr", [tag("th", c, scope="col") for c in columns])),
            tag("tbody", [_direction(d, widest, resampled=resampled) for d in some]),
            class_="facts",
        )

    left = found[SHOWN:]
    return tag(
        "div",
        table(found[:SHOWN]),
        tag("details", tag("summary", f"{count(len(left))} more directions"), table(left)) if left else None,
        tag("p", SEPARATED, " ", RESAMPLED if resampled else "", class_="more"),
        class_="card wide",
    )


def _direction(d: DirectionEvidence, widest: float, *, resampled: bool) -> Markup:
    how = d.estimator.replace("_", " ")
    told = d.status.replace("_", " ") + (f": {d.message}" if d.message else "")
    odd = tag("span", told, class_="note") if d.status != "ok" else None
    return tag(
        "tr",
        tag("th", d.name, tag("small", how), odd, scope="row"),
        tag("td", tag("div", _classes(d)), class_="n", data_label="images"),
        _evidence(
            "separation", (d.separation, d.separation_low, d.separation_high), scale=(0.0, widest * 1.05), digits=2
        ),
        _evidence("held-out AUC", (d.auc, d.auc_low, d.auc_high), scale=(0.5, 1.0), digits=3),
        _angle(d) if resampled else None,
    )


def _angle(d: DirectionEvidence) -> Markup:
    """How far the direction may be off, or why that cannot be told."""
    if d.angle is None and d.angle_status:
        return tag("td", _note(d), data_label="angle")
    odd = None if d.angle_status in (None, "ok") else _note(d)
    ends = interval(d.stability_low, d.stability_high)
    stable = (
        None if d.stability is None else f"stability {within(d.stability, d.stability_low, d.stability_high)} ({ends})"
    )
    below = join(odd, tag("small", stable) if stable else None)
    return _evidence("angle", (d.angle, d.angle_low, d.angle_high), scale=(0.0, 90.0), digits=1, below=below)


def _note(d: DirectionEvidence) -> Markup:
    said = (d.angle_status or "").replace("_", " ")
    return tag("span", f"{said}: {d.angle_message}" if d.angle_message else said, class_="note")


def _classes(d: DirectionEvidence) -> Markup:
    if d.n is None:
        return Markup("–")
    if d.n_positive is None or d.n_negative is None:
        return join(count(d.n))
    return join(count(d.n), tag("small", f"{count(d.n_positive)} / {count(d.n_negative)}"))


Interval = tuple[float | None, float | None, float | None]


def _evidence(
    label: str, figure: Interval, *, scale: tuple[float, float], digits: int, below: Markup | None = None
) -> Markup:
    """(value, low, high) as a number, a bar on `scale` and the interval in figures."""
    value, low, high = figure
    if value is None:
        return tag("td", "–", data_label=label)
    bar_of = whisker(value, low, high, start=scale[0], end=scale[1])
    drawn = tag("div", tag("b", f"{value:.{digits}f}".replace("-", MINUS)), bar_of, class_="figure")
    return tag("td", tag("div", drawn, tag("small", interval(low, high, digits)), below), data_label=label)


def failures(groups: Sequence[FailureGroup]) -> Markup:
    """Failures by code, most frequent first, with examples."""
    ordered = sorted(groups, key=lambda g: (-g.count, g.code))
    return tag("div", [_failure(g, ordered[0].count) for g in ordered], class_="card pad")


def _failure(group: FailureGroup, most: int) -> Markup:
    left = group.count - len(group.examples)
    return tag(
        "div",
        tag(
            "div",
            tag("b", group.code.replace("_", " ")),
            bar(share(group.count, most), tone="bad-tone"),
            tag("span", count(group.count), class_="val"),
            class_="row",
        ),
        tag("ul", [_example(e) for e in group.examples], class_="examples") if group.examples else None,
        tag("p", f"and {count(left)} more: ", tag("code", "latentmill failures"), class_="more")
        if group.examples and left > 0
        else None,
        class_="failure",
    )


def _example(example: FailureExample) -> Markup:
    return tag("li", _preview(example), tag("div", tag("span", example.id, class_="id"), tag("p", example.message)))


def _preview(example: FailureExample) -> Markup:
    """What can be seen of a bad file: as much of its picture as decodes, else its first bytes."""
    if not example.preview:
        return tag("span", "–", class_="thumb blank", title="no bytes")
    picture = thumbnail(example.preview)
    if picture is not None:
        return tag("span", image(picture, f"what can be read of {example.id}"), class_="thumb")
    return tag("span", hex_lines(example.preview), class_="thumb hex", title="first bytes of the file")


def timings(steps: Sequence[StepTiming]) -> Markup:
    """Seconds a step, as bars of the longest, with rows a second where rows went through."""
    longest = max(s.seconds for s in steps)
    return tag("div", tag("div", [_timing(s, longest) for s in steps], class_="rows"), class_="card pad")


def _timing(step: StepTiming, longest: float) -> Markup:
    speed = f"{rate(step.rows / step.seconds)} rows/s" if step.rows and step.seconds > 0 else step.note
    name = tag("b", step.name, tag("small", step.stage) if step.stage != step.name else None)
    value = tag("span", seconds(step.seconds), tag("small", speed) if speed else None, class_="val")
    return tag("div", name, bar(share(step.seconds, longest)), value, class_="row", title=step.note or None)


def provenance(data: ReportData) -> Markup | None:
    """What made this: the job as it was given, and the versions of everything that took part."""
    versions = [tag("div", tag("dt", name), tag("dd", value)) for name, value in data.versions.items()]
    parts = [
        tag("details", tag("summary", "The job as it was given"), tag("pre", data.job_yaml)) if data.job_yaml else None,
        tag("details", tag("summary", "Versions"), tag("dl", versions, class_="versions"), open=True)
        if versions
        else None,
        tag("p", "codec fingerprint ", tag("code", data.fingerprint), class_="more print"),
    ]
    return tag("div", parts, class_="card pad")
