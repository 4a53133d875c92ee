"""New sequences of tokens, drawn from what was counted over the rows (`token_priors`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.codec import LatentSpec
from schemas.steps import SampleStep
from stages.code_sets.discrete_edits import Array, Tokens
from stages.code_sets.token_priors import TokenCounts, draw_sequences


@dataclass(frozen=True, eq=False)
class TokenDraw:
    """Makes draws, one a name, in raster order of the grid."""

    step: SampleStep
    spec: LatentSpec
    counts: TokenCounts

    parents = 0
    unit = "psi"
    strengths = (1.0,)
    about = ""

    @property
    def title(self) -> str:
        return self.step.method

    def said(self) -> dict[str, Any]:
        return {name: getattr(self.step, name) for name in ("method", "seed", "temperature", "smoothing")}

    def __call__(self, tokens: Tokens, names: Sequence[str], codebook: Array) -> Tokens:
        grid, step = self.spec.token_shape, self.step
        drawn = draw_sequences(
            self.counts,
            list(names),
            int(np.prod(grid)),
            step=str(step.name),
            seed=step.seed,
            smoothing=step.smoothing,
            temperature=step.temperature,
        )
        return drawn.reshape(len(names), 1, *grid)
