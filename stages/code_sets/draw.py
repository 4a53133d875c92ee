"""Sample: new codes without parents, one strip a draw, one frame a truncation ψ.

z = m + τRξ with m and R the mean and the root of the covariance of the prior, of the rows' Gaussian, or of a mixture's
component, and τ the temperature; then w̄ + ψ(z − w̄), w̄ the rows' mean (latent-science §4). A draw's numbers come from a stream named by its place.
"""

import copy
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.steps import SampleStep
from stages.code_sets.codes import Strips, codes_batch, operation, strip_name
from stages.code_sets.mixture import Mixture, truncated
from stages.code_sets.noise import draw_name, normal_rows, streams
from stages.code_sets.parents import read_parents
from stages.code_sets.trust import Trust, shell

Array = npt.NDArray[np.float64]


class Draw:
    """Makes a sample step's codes. Picklable plain data; call it with batches without parents. `centre` (d,): truncation's w̄."""

    parents = 0
    strips = 1

    def __init__(
        self,
        step: SampleStep,
        spec: LatentSpec,
        *,
        mixture: Mixture,
        centre: Array,
        trust: Trust | None = None,
        first_seq: int = 0,
    ) -> None:
        self._step, self._spec, self._first_seq = step, spec, first_seq
        self._mixture, self._centre = mixture, centre
        self._trust = trust or shell(spec)

    @property
    def frames(self) -> int:
        """Frames a strip: the truncations."""
        return len(self._step.truncation)

    def numbered_from(self, first_seq: int) -> Self:
        """The same stage, its codes numbered from `first_seq`: its place in a render of several code sets."""
        other = copy.copy(self)
        other._first_seq = first_seq
        return other

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        given = read_parents(batch, self._spec, self.parents)
        names = [draw_name(seq) for seq in given.seq.tolist()]
        noise = streams(names, step=str(self._step.name), seed=self._step.seed)
        places = np.array([stream.random() for stream in noise])
        marks: dict[str, npt.NDArray[np.bool_]] = {}
        with np.errstate(over="ignore", invalid="ignore"):  # flagged `non_finite` when the codes are assembled
            draws = self._mixture.draw(places, normal_rows(noise, self._spec.dim), temperature=self._step.temperature)
            codes = truncated(draws, self._centre, self._step.truncation)
            if self._trust is not None:
                _, marks = self._trust.hold(draws, codes)
        return codes_batch(
            Strips(
                first_seq=self._first_seq + given.seq * self.frames,
                names=[strip_name(about=name) for name in names],
                parents=given.ids,
                operations=[self._operation()] * len(given),
                titles=[self._step.method] * len(given),
                flags=[[]] * len(given),
                strengths=self._step.truncation,
                unit="psi",
                latents=codes,
                usable=np.ones(len(given), np.bool_),
                code_flags=marks,
            ),
            code_set=str(self._step.name or self._step.stage),
            spec=self._spec,
        )

    def _operation(self) -> str:
        fitted = ("covariance",) if self._step.method != "prior" else ()
        mixed = ("components",) if self._step.method == "gmm" else ()
        return operation(self._step, "method", "seed", "temperature", *fitted, *mixed)
