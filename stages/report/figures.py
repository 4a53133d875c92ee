"""Numbers as a reader wants them: thousands apart, real minus signs, units, no false precision."""

import math
from collections.abc import Sequence

MINUS = "−"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MOST_PLACES = 6


def count(value: int) -> str:
    """12,345."""
    return f"{value:,}"


def seconds(value: float) -> str:
    """`0.02 s`, `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if value < 0.01:
        return "< 0.01 s"
    if value < 10:
        return f"{value:.2f} s" if value < 0.1 else f"{value:.1f} s"
    if value < 100:
        return f"{value:.0f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"


def rate(rows_per_second: float) -> str:
    """Rows a second, three figures."""
    return f"{rows_per_second:,.0f}" if rows_per_second >= 10 else f"{rows_per_second:.2g}"


def signed(value: float, digits: int = 3) -> str:
    """+1.5, −3, 0."""
    text = f"{abs(value):.{digits}g}"
    return text if value == 0 else ("+" if value > 0 else MINUS) + text


def plain(value: float, digits: int = 3) -> str:
    """A figure with a real minus sign, whole thousands written out, and what is tinier as `2.9·10⁻⁵`."""
    text = f"{value:,.0f}" if 10**digits <= abs(value) < 1e9 else f"{value:.{digits}g}"
    number, _, power = text.partition("e")
    return (number + (f"·10{str(int(power)).translate(_RAISED)}" if power else "")).replace("-", MINUS)


def interval(low: float | None, high: float | None, places: int | None = None) -> str:
    """`1.20 – 1.61`, or nothing. Without `places`, as many as its width asks for."""
    if low is None or high is None:
        return ""
    return f"{_fixed(low, low, high, places)} – {_fixed(high, low, high, places)}"


def within(value: float | None, low: float | None, high: float | None, *, sign: bool = False) -> str:
    """A value with as many places as its interval is written with; three figures where it has none."""
    if value is None:
        return ""
    text = plain(value) if low is None or high is None else _fixed(value, low, high, None)
    return f"+{text}" if sign and value > 0 else text


def _fixed(value: float, low: float, high: float, places: int | None) -> str:
    if places is None and high > low:
        width, size = high - low, math.floor(math.log10(max(abs(low), abs(high))))
        power = math.floor(math.log10(width))
        # Two figures of a width that begins with 1 or 2, one of any other; of the larger end at least two, and 2 places.
        places = max(0, (1 if width < 3 * 10.0**power else 0) - power, 1 - size, min(2, 2 - size))
    if places is None or places > MOST_PLACES:
        return plain(value)
    text = f"{value:,.{places}f}".replace("-", MINUS)
    return text.removeprefix(MINUS) if set(text) <= set(f"{MINUS}0.") else text


def share(part: float, whole: float) -> float:
    """Percent of the whole, 0 when there is none."""
    return 100 * part / whole if whole else 0.0


def percent(part: float, whole: float) -> str:
    """`0.33 %`, `12.5 %`, `99.7 %`, `100 %`."""
    value = share(part, whole)
    return f"{value:.1f} %".replace(".0 %", " %") if value >= 10 else f"{value:.2g} %"


def ticks(low: float, high: float, about: int = 5) -> Sequence[float]:
    """Round numbers that cover [low, high]: steps of 1, 2 or 5 times a power of ten."""
    flat = high - low <= 1e-9 * max(abs(low), abs(high), 1e-290)
    span = max(abs(high), 1.0) if flat else high - low
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
