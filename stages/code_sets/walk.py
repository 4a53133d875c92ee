"""Random walks through latents: one strip a walk, `every` steps between frames, the start included.

    pcn        z′ = μ + √(1−β²)(z − μ) + β(ξ − μ), ξ ~ N(μ, Σ)    preconditioned Crank–Nicolson: keeps N(μ, Σ) exactly, so a
                                                               walk that starts typical stays typical (Cotter et al. 2013)
    isotropic  z′ = z + βξ, ξ ~ N(0, I)                         drifts outward: E‖z_k‖² = ‖z_0‖² + kβ²d

(latent-science §4.) Every walk draws from a stream of its own, so a longer walk begins like a shorter one.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.steps import WalkStep
from stages.code_sets.codes import Strip, Strips, codes_batch, distance, operation, unwarned
from stages.code_sets.gaussian import Gaussian
from stages.code_sets.noise import draw_name, normal_rows, streams
from stages.code_sets.parents import LATENT, Parents, read_parents
from stages.code_sets.trust import Trust, held, shell

Array = npt.NDArray[np.float64]


def pcn_step(z: Array, noise: Array, *, size: float, gaussian: Gaussian) -> Array:
    """One step for rows z (n, d) with standard normal `noise` (n, d); `size` β in (0, 1]."""
    return np.asarray(gaussian.mean + np.sqrt(1 - size**2) * (z - gaussian.mean) + size * gaussian.spread(noise))


class Walk:
    """Expands rows, or draws of the prior, into strips. Picklable plain data; one parent a row, or none.

    `gaussian`: what `pcn` keeps.
    """

    strips = 1
    columns = LATENT

    def __init__(
        self,
        step: WalkStep,
        spec: LatentSpec,
        *,
        gaussian: Gaussian,
        trust: Trust | None = None,
    ) -> None:
        self._step, self._spec, self._gaussian = step, spec, gaussian
        self._trust = trust or shell(spec)

    @property
    def parents(self) -> int:
        """Images a row is made from: none for walks from the prior."""
        return 1 if self._step.start == "rows" else 0

    @property
    def frames(self) -> int:
        """Frames a strip."""
        return self._step.frames

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows = read_parents(batch, self._spec, self.parents)
        with unwarned():
            made = self._walks(rows)
            codes, marks = held(self._trust, made[:, 0], made)
            moved = distance(codes, made[:, 0])
        strips = Strips(
            of=[[Strip(self._step.method, self._operation())]] * len(rows),
            strengths=[float(frame * self._step.every) for frame in range(self.frames)],
            unit="step",
            latents=codes,
            lost=rows.lost,
            marks=marks,
            moved=moved,
        )
        return codes_batch(strips, rows, self._step, self._spec)

    def _walks(self, rows: Parents) -> Array:
        """(n, frames, d)"""
        step, dim = self._step, self._spec.dim
        names = [ids[0] if ids else draw_name(seq) for ids, seq in zip(rows.ids, rows.seq.tolist(), strict=True)]
        noise = streams(names, step=str(step.name), seed=step.seed)
        z = rows.numbers[:, 0] if self.parents else normal_rows(noise, dim)
        frames = [z]
        for _ in range(self.frames - 1):
            for _ in range(step.every):
                z = self._stepped(z, normal_rows(noise, dim))
            frames.append(z)
        return np.stack(frames, axis=1)

    def _stepped(self, z: Array, noise: Array) -> Array:
        if self._step.method == "pcn":
            return pcn_step(z, noise, size=self._step.size, gaussian=self._gaussian)
        return z + self._step.size * noise

    def _operation(self) -> str:
        kept = ("around", "covariance") if self._step.method == "pcn" else ()
        return operation(self._step, "start", "method", "size", "every", "seed", *kept)
