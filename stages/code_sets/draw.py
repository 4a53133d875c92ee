"""Sample: new codes without parents, one strip a draw, one frame a truncation ψ.

z = m + τRξ with m and R the mean and the root of the covariance of the prior, of the rows' Gaussian, or of a mixture's
component, and τ the temperature; or z = f(τξ), f a flow (stages/code_sets/flow.py); then w̄ + ψ(z − w̄), w̄ the rows' mean (latent-science §4). A draw's numbers come from a stream named by
its place. A codec that samples its own prior is asked for the draws of `method: prior`, one seed a draw; they are multiplied by τ.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.identity import row_seed
from schemas.steps import SampleStep
from stages.code_sets.codes import Strip, Strips, codes_batch, operation, unwarned
from stages.code_sets.mixture import Distribution, truncated
from stages.code_sets.noise import draw_name, normal_rows, streams
from stages.code_sets.parents import LATENT, read_parents
from stages.code_sets.trust import Trust, held, shell

if TYPE_CHECKING:
    from stages.codecs.base import Codec

Array = npt.NDArray[np.float64]


class Draw:
    """Makes a sample step's codes. Picklable plain data; call it with batches without parents. `centre` (d,): truncation's w̄."""

    parents = 0
    strips = 1
    columns = LATENT

    def __init__(
        self,
        step: SampleStep,
        spec: LatentSpec,
        *,
        source: Distribution,
        centre: Array,
        trust: Trust | None = None,
    ) -> None:
        self._step, self._spec = step, spec
        self._source, self._centre = source, centre
        self._trust = trust or shell(spec)

    @property
    def frames(self) -> int:
        """Frames a strip: the truncations."""
        return len(self._step.truncation)

    @property
    def needs_codec(self) -> bool:
        return self._step.method == "prior"

    def __call__(self, batch: pa.RecordBatch, codec: "Codec | None" = None) -> pa.RecordBatch:
        rows = read_parents(batch, self._spec, self.parents)
        names = [draw_name(seq) for seq in rows.seq.tolist()]
        with unwarned():
            draws = (
                self._own(names, codec) if codec is not None and "sample" in codec.can else self._drawn(rows.seq, names)
            )
            codes, marks = held(self._trust, draws, truncated(draws, self._centre, self._step.truncation))
        strips = Strips(
            of=[[Strip(self._step.method, self._operation())]] * len(rows),
            strengths=self._step.truncation,
            unit="psi",
            latents=codes,
            lost=rows.lost,
            marks=marks,
        )
        return codes_batch(strips, rows, self._step, self._spec)

    def _drawn(self, numbers: npt.NDArray[np.int64], names: list[str]) -> Array:
        """(n, d) of the distribution."""
        noise = streams(names, step=str(self._step.name), seed=self._step.seed)
        places = np.array([stream.random() for stream in noise])
        normal = normal_rows(noise, self._spec.dim)
        return self._source.draw(numbers, places, normal, temperature=self._step.temperature)

    def _own(self, names: list[str], codec: "Codec") -> Array:
        """(n, d) of the codec's prior."""
        seeds = [row_seed(name, str(self._step.name), self._step.seed) for name in names]
        drawn = codec.sample_prior(np.array(seeds, np.uint64))
        assert drawn is not None, "a codec that can sample has a prior"
        return np.asarray(self._step.temperature * drawn.flatten(1).cpu().numpy().astype(np.float64))

    def _operation(self) -> str:
        fitted = ("covariance",) if self._step.method in ("gaussian", "gmm") else ()
        mixed = ("components",) if self._step.method == "gmm" else ()
        return operation(self._step, "method", "seed", "temperature", *fitted, *mixed)
