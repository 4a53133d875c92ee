"""What goes together where, and who is to blame for an edit's leaks: the data, the model, or the scorer."""

from collections.abc import Sequence

from schemas.measurements import OK, Measurement
from stages.report.charts import Signed, signed_map, size_whisker
from stages.report.evaluated_edits import Found, details, facts
from stages.report.figures import count, interval, within
from stages.report.markup import Markup, tag

Parts = dict[str, Measurement]
BLAMED = (("leak_data", "the data"), ("leak_model", "the model"), ("leak_scorer", "the scorer"))


def together(found: Found, edits: Sequence[str], scores: Sequence[str]) -> Markup | None:
    """Labels, directions, pictures, and the scorer: the same question asked four times."""
    labels = [m for (metric, _, _), m in found.items() if metric == "label_correlation"]
    cosines = [m for (metric, _, _), m in found.items() if metric == "direction_cosine"]
    scorer = [m for (metric, _, _), m in found.items() if metric == "scorer_leak"]
    if not labels and not cosines:
        return None
    effects = [[_effect(found["effect", e, s]) for s in scores] for e in edits]
    n = max((m.n or 0 for m in labels), default=0)
    parts = [
        _square("Labels: which go together", labels, f"correlation, of {count(n)} images") if labels else None,
        _square("Directions: which point the same way", cosines, "cosine") if cosines else None,
        signed_map("Pictures: what moves with what", edits, scores, effects, note="effect, σ"),
        _scorer(scorer) if any(m.value is not None for m in scorer) else None,
    ]
    why = (
        "Correlated labels with orthogonal directions and clean pictures: the data is entangled, the model is not. Clean labels with "
        "effects off the target: the model ties them together, unless the scorer takes one for the other. Pale: cannot be told from 0."
    )
    return tag("div", tag("div", parts, class_="triptych"), tag("p", why, class_="more"), class_="card pad")


def _square(title: str, pairs: Sequence[Measurement], note: str) -> Markup:
    names = list(dict.fromkeys(name for m in pairs for name in (m.subject, m.target)))
    by = {frozenset((m.subject, m.target)): _cell(m) for m in pairs}
    cells = [[by.get(frozenset((a, b)), Signed(None)) for b in names] for a in names]
    return signed_map(title, names, names, cells, note=note, deepest=1.0)


def _cell(m: Measurement) -> Signed:
    # A cosine of two given directions is what it is; a correlation without an interval may be nothing.
    known = m.low is not None or m.metric == "direction_cosine"
    text = "" if m.low is None else within(m.value, m.low, m.high)
    return Signed(m.value, interval(m.low, m.high), strong=known and not _around_zero(m), text=text)


def _effect(m: Measurement) -> Signed:
    return Signed(m.value, strong=bool(details(m).get("real")))


def _scorer(pairs: Sequence[Measurement]) -> Markup:
    names = list(dict.fromkeys(name for m in pairs for name in (m.subject, m.target)))
    by = {(m.subject, m.target): m for m in pairs}
    cells = []
    for label in names:
        line = []
        for score in names:
            m = by.get((label, score))
            real = m is not None and m.low is not None and m.high is not None and not m.low <= 0 <= m.high
            line.append(Signed(m.value if m is not None else None, strong=real))
        cells.append(line)
    n = max((m.n or 0 for m in pairs), default=0)
    note = f"of {count(n)} untouched pictures: a label's (row) share in other scores"
    return signed_map("Scorer: what it takes for what", names, names, cells, note=note, deepest=1.0)


def blame(rows: Sequence[Measurement]) -> Markup | None:
    """A row a pair of attributes, a column a culprit."""
    pairs: dict[tuple[str, str], Parts] = {}
    for m in rows:
        if m.metric in dict(BLAMED):
            pairs.setdefault((m.subject, m.target), {})[m.metric] = m
    if not pairs:
        return None
    values = [abs(m.value or 0.0) for parts in pairs.values() for m in parts.values() if m.status == OK]
    widest = max(values, default=1.0) or 1.0
    told = any(parts["leak_scorer"].value is not None for parts in pairs.values() if "leak_scorer" in parts)
    body = []
    for (subject, target), parts in pairs.items():
        name = tag("th", f"{subject} → {target}", tag("small", _said(parts)), scope="row")
        cells = [_part(parts.get(metric), widest, f"from {word}") for metric, word in BLAMED]
        body.append(tag("tr", name, cells))
    head = (
        "of one step along the plain direction to the first, how much goes to the second",
        "data: their labels go together",
        "model: it ties them" if told else "model, or scorer",
        "scorer: it takes one for the other",
    )
    odd = sorted({m.message for parts in pairs.values() for m in parts.values() if m.message})
    rests = (
        "The parts add up to the whole leak. They rest on effects that add up, on labels that are right and name what matters, and on a "
        "scorer that answers to an edit as to the same difference between real pictures; what no label names counts as the "
        "scorer's where it goes with a label in real pictures, and as the model's elsewhere."
    )
    after = [tag("p", text, class_="more") for text in (*([rests] if told else []), *odd)]
    return facts(head, body, title="Data, model or scorer?", after=after)


def _said(parts: Parts) -> str:
    """Which parts can be told from 0."""
    if any(m.status == "no_effect" for m in parts.values()):
        return "no effect of its own that could leak"
    if any(parts[metric].value is None for metric, _ in BLAMED[:2]):
        return "cannot be told"
    alone = parts.get("leak_scorer") is None or parts["leak_scorer"].value is None
    words = {"leak_model": "the model or the scorer"} if alone else {}
    real = [
        words.get(metric, word)
        for metric, word in BLAMED
        if metric in parts and (m := parts[metric]).value is not None and not _around_zero(m)
    ]
    if not real:
        return "no part can be told from 0"
    return real[0] if len(real) == 1 else f"{', '.join(real[:-1])} and {real[-1]}"


def _around_zero(m: Measurement) -> bool:
    return m.low is not None and m.high is not None and m.low <= 0 <= m.high


def _part(m: Measurement | None, widest: float, label: str) -> Markup:
    if m is None or m.value is None:
        return tag("td", "–" if m is None else m.status.replace("_", " "), data_label=label)
    if m.status != OK:
        return tag(
            "td", tag("div", within(m.value, m.low, m.high), tag("small", interval(m.low, m.high))), data_label=label
        )
    drawn = size_whisker(m, widest * 1.2)
    cell = tag("div", tag("b", within(m.value, m.low, m.high)), drawn, class_="figure")
    return tag("td", tag("div", cell, tag("small", interval(m.low, m.high))), data_label=label)
