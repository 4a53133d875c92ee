"""Paths between the tokens of two images: a seeded token swap, or lines of embeddings that are quantised again (`discrete`).

`auto` means token_swap on discrete codecs: every token of every frame is then one of the two images' own, whatever the codebook's
geometry. codebook_lerp goes by way of codes that neither image has, which says something only where near embeddings look alike,
and it moves in leaps: a token stays until the line crosses into another code's cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.codec import LatentSpec
from schemas.identity import row_seed
from schemas.steps import InterpolateStep
from stages.code_sets.discrete import codebook_lerp, token_swap
from stages.code_sets.discrete_edits import Array, Tokens
from stages.code_sets.tokens import token_places

TOKEN_TITLES = {"token_swap": "token swap", "codebook_lerp": "codebook lerp"}


@dataclass(frozen=True, eq=False)
class TokenPath:
    """Makes paths: frames at t from 0 to 1. Where the mask is 0, tokens stay those of the first image."""

    step: InterpolateStep
    spec: LatentSpec

    parents = 2
    unit = "t"
    about = ""

    @property
    def method(self) -> str:
        return "token_swap" if self.step.method == "auto" else self.step.method

    @property
    def strengths(self) -> Sequence[float]:
        return [float(t) for t in np.linspace(0.0, 1.0, self.step.frames)]

    @property
    def title(self) -> str:
        return TOKEN_TITLES[self.method]

    def said(self) -> dict[str, Any]:
        masked = {} if self.step.mask is None else {"mask": self.step.mask}
        seeded = {"seed": self.step.seed} if self.method == "token_swap" else {}
        return {"method": self.method, "frames": self.step.frames, **seeded, **masked}

    def __call__(self, tokens: Tokens, names: Sequence[str], codebook: Array) -> Tokens:
        first, second = tokens[:, 0], np.where(self._places(), tokens[:, 1], tokens[:, 0])
        if self.method == "codebook_lerp":
            return codebook_lerp(first, second, self.strengths, codebook=codebook)
        seeds = np.array([row_seed(name, str(self.step.name), self.step.seed) for name in names], np.uint64)
        return token_swap(first, second, self.strengths, seeds=seeds)

    def _places(self) -> npt.NDArray[np.bool_]:
        return token_places(self.spec, mask=self.step.mask)
