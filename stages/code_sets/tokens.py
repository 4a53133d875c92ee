"""Code sets of discrete codecs: tokens in, tokens made, and their embeddings out.

A row's tokens are read from the `codes` column, never guessed from stored numbers; a code is then a latent made of the codec's
own embeddings, which decodes to exactly these tokens. What is made is `Makes`' business: paths (token_paths), edits
(token_edits), sequences (token_draws). How many tokens differ from the first parent's stands in each strip's `found`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import EditStep, InterpolateStep, SampleStep
from stages.code_sets.codes import Strip, Strips, codes_batch, distance, operation
from stages.code_sets.discrete_edits import BAD_INDEX, Array, Tokens, in_codebook
from stages.code_sets.noise import draw_name
from stages.code_sets.parents import CODES, read_parents
from stages.code_sets.places import Mask, mask_weights, weights

if TYPE_CHECKING:
    from stages.codecs.base import Codec, DiscreteCodec

CHANGED_DIGITS = 6


class Makes(Protocol):
    """Tokens of parents → tokens of codes, one strip a row. Plain data that pickles.

    `parents`: images a row; `strengths`: a frame each, counted in `unit`; `about` tells two edits of one image apart.
    """

    @property
    def parents(self) -> int: ...

    @property
    def strengths(self) -> Sequence[float]: ...

    @property
    def unit(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def about(self) -> str: ...

    def said(self) -> dict[str, Any]:
        """What was done, as plain data, for the codes' `operation`."""

    def __call__(self, tokens: Tokens, names: Sequence[str], codebook: Array) -> Tokens:
        """tokens (n, parents, *grid), all in the codebook (K, c) → (n, frames, *grid). `names` seed a row's random numbers."""


@dataclass(frozen=True, eq=False)
class TokenStage:
    """A code stage of a discrete codec, which comes beside each batch: its codebook turns tokens into latents."""

    step: InterpolateStep | EditStep | SampleStep
    spec: LatentSpec
    makes: Makes

    needs_codec = True
    strips = 1
    columns = CODES

    @property
    def parents(self) -> int:
        return self.makes.parents

    @property
    def frames(self) -> int:
        return len(self.makes.strengths)

    def __call__(self, batch: pa.RecordBatch, codec: "Codec | None" = None) -> pa.RecordBatch:
        """Raises JobError for a codec without codes."""
        codebook = self._codebook(codec)
        rows = read_parents(batch, self.spec, self.parents, column="codes")
        tokens = rows.numbers.astype(np.int64)
        lost = np.where((rows.lost == "") & ~in_codebook(tokens, len(codebook)), BAD_INDEX, rows.lost)
        tokens[lost != ""] = 0
        tokens = tokens.reshape(len(rows), self.parents, *self.spec.token_shape)
        names = ["|".join(ids) if ids else draw_name(seq) for ids, seq in zip(rows.ids, rows.seq.tolist(), strict=True)]
        made = self.makes(tokens, names, codebook)
        latents = embedded(made, codebook, self.spec)
        strips = Strips(
            of=[[Strip(self.makes.title, said, self.makes.about)] for said in self._operations(tokens, made)],
            strengths=self.makes.strengths,
            unit=self.makes.unit,
            latents=latents,
            lost=lost,
            moved=distance(latents, embedded(tokens[:, 0], codebook, self.spec)) if self.parents == 1 else None,
        )
        return codes_batch(strips, rows, self.step, self.spec)

    def _codebook(self, codec: "Codec | None") -> Array:
        if codec is None or "codes" not in codec.can:
            raise JobError.one(str(self.step.name), None, "this codec has no codes.", "use a discrete codec")
        return np.asarray(cast("DiscreteCodec", codec).codebook, np.float64)

    def _operations(self, tokens: Tokens, made: Tokens) -> list[str]:
        """What was done to each row, and the share of its tokens that differ from the first parent's, frame by frame."""
        said = self.makes.said()
        if not self.parents:
            return [operation(self.step, **said)] * len(made)
        changed = (made != tokens[:, :1]).reshape(*made.shape[:2], -1).mean(axis=2).round(CHANGED_DIGITS)
        return [operation(self.step, **said, found={"changed": row}) for row in changed.tolist()]


def embedded(tokens: Tokens, codebook: Array, spec: LatentSpec) -> Array:
    """tokens (…, *grid) → the latents they stand for, flattened, (…, d)."""
    lead = tokens.shape[: tokens.ndim - len(spec.token_shape)]
    latents = np.moveaxis(codebook[tokens], -1, len(lead) + spec.embedding_axis)
    return latents.reshape(*lead, spec.dim)


def token_vectors(latents: Array, spec: LatentSpec) -> Array:
    """The inverse shape: latents (…, d) → a vector for every token, (…, *grid, c)."""
    lead = latents.shape[:-1]
    return np.moveaxis(latents.reshape(*lead, *spec.shape), len(lead) + spec.embedding_axis, -1)


def token_places(
    spec: LatentSpec, *, region: Sequence[int] | None = None, mask: Mask | None = None
) -> npt.NDArray[np.bool_]:
    """Which tokens lie inside a region and where a mask of 0 and 1 is 1, (*grid,); all of them without both."""
    found = weights(spec, region=region) * (1.0 if mask is None else mask_weights(spec, mask))
    return np.asarray(found.take(0, axis=spec.embedding_axis) > 0)
