"""Analogy: c + t(b − a), what leads from a to b done to c; one strip a triple, one frame a strength t.

For independent draws of N(μ, Σ) the raw code has 1 + 2t² times their variance: at t = 1 it stands √(2d) standard deviations off
the shell (22.6 at d = 256). The `lol` form (arXiv 2408.08558) brings it back: with weights (−t, t, 1), α = Σw = 1 and
β = Σw² = 1 + 2t², it is (1 − α/√β)μ + y/√β, again N(μ, Σ); at t = 0 it is c exactly. (latent-science §2, §4)
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.steps import AnalogyStep
from stages.code_sets.codes import Strip, Strips, codes_batch, distance, operation, unwarned
from stages.code_sets.means import preserving
from stages.code_sets.parents import LATENT, read_parents
from stages.code_sets.trust import Trust, held, shell

Array = npt.NDArray[np.float64]


def analogy(a: Array, b: Array, c: Array, t: Array, *, mean: Array | None) -> Array:
    """a, b, c (n, d), t (frames,) → (n, frames, d); `mean` (d,) of the Gaussian for the LOL form, None for the raw one."""
    if mean is None:
        return np.asarray(c[:, None, :] + t[:, None] * (b - a)[:, None, :])
    weights = np.stack([-t, t, np.ones(len(t))], axis=1)
    return preserving(np.stack([a, b, c], axis=1), weights, mean=mean)


def analogy_method(step: AnalogyStep, spec: LatentSpec) -> str:
    """The method a step means: `auto` is lol where latents lie on a centred shell, else raw."""
    if step.method != "auto":
        return step.method
    return "lol" if spec.centred_shell else "raw"


class Analogy:
    """Expands triples into strips. Picklable plain data; call it with batches of three parents. `mean` (d,): lol's μ."""

    parents = 3
    strips = 1
    columns = LATENT

    def __init__(
        self,
        step: AnalogyStep,
        spec: LatentSpec,
        *,
        mean: Array | None = None,
        trust: Trust | None = None,
    ) -> None:
        self._step, self._spec = step, spec
        self._trust = trust or shell(spec)
        self._method = analogy_method(step, spec)
        if self._method == "lol" and mean is None:
            raise ValueError("lol needs the Gaussian's mean")
        self._mean = mean if self._method == "lol" else None

    @property
    def frames(self) -> int:
        """Frames a strip."""
        return len(self._step.strengths)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows = read_parents(batch, self._spec, self.parents)
        a, b, c = rows.numbers.swapaxes(0, 1)
        with unwarned():
            made = analogy(a, b, c, np.asarray(self._step.strengths, np.float64), mean=self._mean)
            codes, marks = held(self._trust, c, made)
            moved = distance(codes, c)
        strips = Strips(
            of=[[Strip(self._method, self._operation())]] * len(rows),
            strengths=self._step.strengths,
            unit="t",
            latents=codes,
            lost=rows.lost,
            marks=marks,
            moved=moved,
        )
        return codes_batch(strips, rows, self._step, self._spec)

    def _operation(self) -> str:
        around = {"around": self._step.around} if self._method == "lol" else {}
        return operation(self._step, method=self._method, **around)
