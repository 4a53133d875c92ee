"""Edits of tokens: another image's or one code's put in their place, a histogram carried over, or a step and the nearest codes.

    tokens.of, tokens.code    indices inside the region or mask become the donor's
    tokens.histogram          as few tokens as possible change, until the codes occur as often as in the reference
    changes                   add, set_projection, set_coordinate as for any latent (edit), then each token's nearest code

A frame is a part of the edit. Of a replacement or a transfer it is that share of the tokens that change, in a seeded order, each
part holding the smaller ones; of a step it is that share of the step's length.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.codec import LatentSpec
from schemas.identity import row_seed
from schemas.steps import EditStep, TokenChange
from stages.code_sets.discrete import token_swap
from stages.code_sets.discrete_edits import Array, Tokens, histogram_transfer, nearest_code_add, replace_tokens
from stages.code_sets.edit import Edit
from stages.code_sets.tokens import embedded, token_places, token_vectors


class InParts(ABC):
    """What edits of tokens share: a frame is a part of the one edit of one image."""

    step: EditStep
    parents = 1
    unit = "part"

    @property
    def strengths(self) -> Sequence[float]:
        return self.step.parts

    @property
    @abstractmethod
    def title(self) -> str: ...

    @property
    def about(self) -> str:
        return self.title


@dataclass(frozen=True, eq=False)
class TokenReplacement(InParts):
    """Makes edits of `step.tokens`. `donor` (*grid): the tokens put in; or `shares` (K,): the histogram to reach."""

    step: EditStep
    change: TokenChange
    spec: LatentSpec
    donor: Tokens | None = None
    shares: Array | None = None

    @property
    def title(self) -> str:
        return self.change.named

    def said(self) -> dict[str, Any]:
        return {"tokens": self.change.model_dump(exclude_defaults=True), "seed": self.change.seed}

    def __call__(self, tokens: Tokens, names: Sequence[str], codebook: Array) -> Tokens:
        before, salt = tokens[:, 0], str(self.step.name)
        seeds = np.array([row_seed(name, salt, self.change.seed) for name in names], np.uint64)
        if self.shares is not None:
            after = histogram_transfer(before, self.shares, seeds=seeds.tolist(), codebook=codebook).tokens
        else:
            assert self.donor is not None, "a donor or a histogram"
            places = token_places(self.spec, region=self.change.region, mask=self.change.mask)
            after = replace_tokens(before, self.donor, places, codes=len(codebook)).tokens
        return token_swap(before, after, self.step.parts, seeds=seeds)


@dataclass(frozen=True, eq=False)
class TokenStep(InParts):
    """Makes edits of `step.changes`: what `edit` adds to the embeddings, and then the nearest codes."""

    step: EditStep
    spec: LatentSpec
    edit: Edit

    @property
    def title(self) -> str:
        return self.edit.title

    def said(self) -> dict[str, Any]:
        return {"quantised": True, **self.edit.said()}

    def __call__(self, tokens: Tokens, names: Sequence[str], codebook: Array) -> Tokens:
        before = tokens[:, 0]
        moves = token_vectors(self.edit.displacement(embedded(before, codebook, self.spec)), self.spec)
        frames = [nearest_code_add(before, part * moves, codebook).tokens for part in self.step.parts]
        return np.stack(frames, axis=1)
