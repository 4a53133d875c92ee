"""How the geodesics of a code set went, all together: taken from the codes as they go by, so that no path is computed twice.

A geodesic's own report stands in its codes' `operation` (`found`, see geodesic.py). Here those of many strips become one
summary that merges in any order: counts by value, sums, and the one that is furthest from converged.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.measurements import OK, Measurement

METHOD = "geodesic"
NOT_CONVERGED, NO_PATH = "not_converged", "no_path"
READ = ("id", "frame", "parents", "operation")
"""Columns of codes that are read."""
SHARES = 10_000
"""Steps in which a path's energy is counted as a share of the straight line's."""


@dataclass(frozen=True, slots=True)
class Convergence:
    """`paths`: with a report; `without`: strips that have none. `iterations`, `kept`: how many paths by number of iterations,
    and by energy ÷ straight energy in units of 1/SHARES. `worst`: the largest relative gradient and its images.
    """

    paths: int = 0
    without: int = 0
    converged: int = 0
    iterations: Counter[int] = field(default_factory=Counter)
    kept: Counter[int] = field(default_factory=Counter)
    energy: float = 0.0
    straight: float = 0.0
    worst: tuple[float, str] = (-1.0, "")

    @classmethod
    def of(cls, found: Mapping[str, Any], parents: str) -> "Convergence":
        """Of one strip: what `found` says of it, or nothing where it has no path."""
        if not found:
            return cls(without=1)
        energy, straight = found["energy"], found["straight_energy"]
        share = round(SHARES * energy / straight) if straight > 0 else SHARES
        return cls(
            paths=1,
            converged=int(found["converged"]),
            iterations=Counter([found["iterations"]]),
            kept=Counter([share]),
            energy=energy,
            straight=straight,
            worst=(found["gradient"], parents),
        )

    def merged(self, other: "Convergence") -> "Convergence":
        return Convergence(
            self.paths + other.paths,
            self.without + other.without,
            self.converged + other.converged,
            self.iterations + other.iterations,
            self.kept + other.kept,
            self.energy + other.energy,
            self.straight + other.straight,
            max(self.worst, other.worst),
        )


Converged = dict[str, Convergence]
"""By code set; those without a geodesic are not in it."""


def convergence_of(codes: pa.RecordBatch) -> Converged:
    """Of the strips whose first frame is in this batch with the columns READ."""
    first = codes.filter(
        pc.and_(pc.equal(codes.column("frame"), 0), pc.match_substring(codes.column("operation"), METHOD))
    )
    found: Converged = {}
    for code, parents, said in zip(*(first.column(n).to_pylist() for n in ("id", "parents", "operation")), strict=True):
        operation = json.loads(said)
        if operation.get("method") == METHOD:
            one = Convergence.of(operation.get("found", {}), " · ".join(parents))
            found = together(found, {code.split("/", 1)[0]: one})
    return found


def together(a: Converged, b: Converged) -> Converged:
    """Both, by code set."""
    return a | {name: a[name].merged(one) if name in a else one for name, one in b.items()}


def measurements(found: Convergence, *, tolerance: float) -> Iterator[Measurement]:
    """What is stored of a code set's geodesics. `tolerance`: the relative gradient at which one counts as converged."""
    if found.without:
        said = "an image without a latent, or pictures on the way that are not finite; the strip's status says which"
        yield Measurement(
            "without_path", float(found.without), n=found.paths + found.without, status=NO_PATH, message=said
        )
    if not found.paths:
        return
    gradient, parents = found.worst
    rest = found.paths - found.converged
    said = f"{rest} of {found.paths} stopped before; worst: {parents}. Raise `iterations`" if rest else ""
    status = NOT_CONVERGED if rest else OK
    share = found.converged / found.paths
    yield Measurement("converged", share, n=found.paths, unit="of paths", status=status, message=said)
    yield Measurement(
        "worst_gradient",
        gradient,
        subject=parents,
        n=found.paths,
        threshold=tolerance,
        status=OK if gradient <= tolerance else NOT_CONVERGED,
    )
    yield Measurement("iterations", _median(found.iterations), n=found.paths)
    yield Measurement("straight_energy", found.straight, n=found.paths)
    yield Measurement("energy", found.energy, n=found.paths)
    yield Measurement("energy_kept", _median(found.kept) / SHARES, n=found.paths, unit="of the straight line's")


def _median(counts: Counter[int]) -> float:
    """The middle value, or the mean of the two in the middle."""
    values = sorted(counts)
    half, seen, low = sum(counts.values()) / 2, 0, None
    for value in values:
        seen += counts[value]
        if low is None and seen >= half:
            low = value
        if seen > half:
            return (low + value) / 2 if low is not None else float(value)
    return float(values[-1])
