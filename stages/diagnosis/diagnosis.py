"""A diagnosis from beginning to end: what the scan and the probe found, as measurements, flags first."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.measurements import OK, Measurement
from stages.diagnosis.codebook import about_codebook
from stages.diagnosis.evidence import Evidence, probe_steps
from stages.diagnosis.findings import about_norms, about_rows, about_spread, about_use
from stages.diagnosis.findings_reference import about_holes, about_prior
from stages.diagnosis.probe import CODE, DRAW, MOVE

CYCLE_ROWS = 32
FEWEST = 20
"""Rows under which neighbours and two-sample tests say nothing."""


def diagnosis(evidence: Evidence) -> list[Measurement]:
    """Every measurement, those with a flag first."""
    found = list(_all(evidence))
    return sorted(found, key=lambda m: m.status == OK)


def _all(evidence: Evidence) -> Iterator[Measurement]:
    yield from about_rows(evidence.scanned)
    yield from about_codebook(evidence.scanned.codebook)
    yield from about_norms(evidence)
    yield from about_use(evidence)
    if len(evidence.draws) < FEWEST:
        reason = f"{len(evidence.draws)} codes; {FEWEST} are needed to look at neighbours and at distributions."
        yield Measurement("aggregate", status="too_few_points", n=len(evidence.draws), message=reason)
        return
    yield from about_spread(evidence)
    yield from about_prior(evidence)
    yield from about_holes(evidence)


def probe_batches(evidence: Evidence, decodes: int) -> tuple[npt.NDArray[np.float64], list[pa.RecordBatch]]:
    """How far coordinates are moved (d,), and the codes to ask the codec about, in batches that may go to any worker."""
    steps, moves = probe_steps(evidence, decodes)
    codes, draws = evidence.small, evidence.draws
    batches = [_batch(MOVE, row, codes[row : row + 1]) for row in range(min(moves, len(codes)))]
    cycles = min(decodes // 4, len(draws))
    for kind, rows in ((CODE, codes), (DRAW, draws)):
        batches += [
            _batch(kind, start, rows[start : min(start + CYCLE_ROWS, cycles)]) for start in range(0, cycles, CYCLE_ROWS)
        ]
    return steps, batches


def _batch(kind: int, first: int, codes: npt.NDArray[np.float64]) -> pa.RecordBatch:
    n, dim = codes.shape
    latent = pa.FixedSizeListArray.from_arrays(pa.array(codes.astype(np.float32).reshape(-1)), dim)
    return pa.record_batch({"kind": pa.array([kind] * n), "row": pa.array(range(first, first + n)), "latent": latent})
