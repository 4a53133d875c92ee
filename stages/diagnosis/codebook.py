"""How a codebook is used: perplexity and dead codes, for families whose latents are indices.

Perplexity is exp of the entropy of the codes' frequencies: K when all K are used alike, 1 when one is used. With few tokens
codes are unused by chance, so the number expected under equal use stands beside the number of dead ones.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CodebookCounts:
    """How often each of K codes was used. Mergeable, exact."""

    counts: Ints

    @classmethod
    def empty(cls, size: int) -> "CodebookCounts":
        return cls(np.zeros(size, np.int64))

    def added(self, indices: npt.NDArray[np.integer]) -> "CodebookCounts":
        """Indices of any shape. Raises ValueError for one outside the codebook."""
        flat = np.asarray(indices).reshape(-1)
        if len(flat) and (flat.min() < 0 or flat.max() >= len(self.counts)):
            raise ValueError(
                f"index {int(flat[(flat < 0) | (flat >= len(self.counts))][0])} of {len(self.counts)} codes"
            )
        return CodebookCounts(self.counts + np.bincount(flat, minlength=len(self.counts)))

    def merged(self, other: "CodebookCounts") -> "CodebookCounts":
        return CodebookCounts(self.counts + other.counts)


@dataclass(frozen=True)
class CodebookUse:
    """`expected_dead`: codes that equal use would leave unused after as many tokens."""

    perplexity: float
    dead: int
    expected_dead: float
    tokens: int


def codebook_use(counts: CodebookCounts) -> CodebookUse | None:
    """None without a token."""
    tokens, size = int(counts.counts.sum()), len(counts.counts)
    if not tokens:
        return None
    shares = counts.counts[counts.counts > 0] / tokens
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return CodebookUse(perplexity, int((counts.counts == 0).sum()), size * (1 - 1 / size) ** tokens, tokens)
