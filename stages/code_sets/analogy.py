"""Analogy: c + t(b − a), what leads from a to b done to c; one strip a triple, one frame a strength t.

For independent draws of N(μ, Σ) the raw code has 1 + 2t² times their variance: at t = 1 it stands √(2d) standard deviations off
the shell (22.6 at d = 256). The `lol` form (arXiv 2408.08558) brings it back: with weights (−t, t, 1), α = Σw = 1 and
β = Σw² = 1 + 2t², it is (1 − α/√β)μ + y/√β, again N(μ, Σ); at t = 0 it is c exactly. (latent-science §2, §4)
"""

import copy
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.steps import AnalogyStep
from stages.code_sets.codes import Strips, codes_batch, operation, strip_name
from stages.code_sets.parents import read_parents
from stages.code_sets.trust import Trust, shell

Array = npt.NDArray[np.float64]
MISSING = "missing"


def analogy(a: Array, b: Array, c: Array, t: Array, *, mean: Array | None) -> Array:
    """a, b, c (n, d), t (frames,) → (n, frames, d); `mean` (d,) of the Gaussian for the LOL form, None for the raw one."""
    raw = c[:, None, :] + t[:, None] * (b - a)[:, None, :]
    if mean is None:
        return np.asarray(raw)
    shrink = 1 / np.sqrt(1 + 2 * t[:, None] ** 2)
    return np.asarray((1 - shrink) * mean + raw * shrink)


def analogy_method(step: AnalogyStep, spec: LatentSpec) -> str:
    """The method a step means: `auto` is lol where latents lie on a centred shell, else raw."""
    if step.method != "auto":
        return step.method
    return "lol" if spec.centred_shell else "raw"


class Analogy:
    """Expands triples into strips. Picklable plain data; call it with batches of three parents. `mean` (d,): lol's μ."""

    parents = 3
    strips = 1

    def __init__(
        self,
        step: AnalogyStep,
        spec: LatentSpec,
        *,
        mean: Array | None = None,
        trust: Trust | None = None,
        first_seq: int = 0,
    ) -> None:
        self._step, self._spec, self._first_seq = step, spec, first_seq
        self._trust = trust or shell(spec)
        self._method = analogy_method(step, spec)
        if self._method == "lol" and mean is None:
            raise ValueError("lol needs the Gaussian's mean")
        self._mean = mean if self._method == "lol" else None

    @property
    def frames(self) -> int:
        """Frames a strip."""
        return len(self._step.strengths)

    def numbered_from(self, first_seq: int) -> Self:
        """The same stage, its codes numbered from `first_seq`: its place in a render of several code sets."""
        other = copy.copy(self)
        other._first_seq = first_seq
        return other

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        given = read_parents(batch, self._spec, self.parents)
        usable = given.present & given.finite
        ends = np.where(usable[:, None, None], given.latents, 0.0)
        a, b, c = ends.swapaxes(0, 1)
        marks: dict[str, npt.NDArray[np.bool_]] = {}
        with np.errstate(over="ignore", invalid="ignore"):  # flagged `non_finite` when the codes are assembled
            codes = analogy(a, b, c, np.asarray(self._step.strengths, np.float64), mean=self._mean)
            if self._trust is not None:
                codes, marks = self._trust.hold(c, codes)
        reasons = [MISSING if not here else "nan_input" for here in given.present]
        return codes_batch(
            Strips(
                first_seq=self._first_seq + given.seq * self.frames,
                names=[strip_name(*ids) for ids in given.ids],
                parents=given.ids,
                operations=[self._operation()] * len(given),
                titles=[self._method] * len(given),
                flags=[[] if ok else [reason] for ok, reason in zip(usable, reasons, strict=True)],
                strengths=self._step.strengths,
                unit="t",
                latents=codes,
                usable=usable,
                code_flags=marks,
            ),
            code_set=str(self._step.name or self._step.stage),
            spec=self._spec,
        )

    def _operation(self) -> str:
        around = {"around": self._step.around} if self._method == "lol" else {}
        return operation(self._step, method=self._method, **around)
