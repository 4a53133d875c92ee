"""How a codebook is used: perplexity and dead codes, for families whose latents are indices.

Perplexity is exp of the entropy of the codes' frequencies: K when all K are used alike, 1 when one is used. With few tokens
codes are unused by chance, so the number expected under equal use stands beside the number of dead ones.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.measurements import Measurement
from stages.code_sets.token_priors import TokenCounts

Ints = npt.NDArray[np.int64]

DEAD_SHARE = 0.1
"""Of the codebook: so many more codes than expected may be dead."""
NARROW_SHARE = 0.1
"""Of the codebook: under this perplexity it has collapsed to a few codes."""
SHOWN = 512


@dataclass(frozen=True)
class CodebookUse:
    """`expected_dead`: codes that equal use would leave unused after as many tokens."""

    perplexity: float
    dead: int
    expected_dead: float
    tokens: int


def codebook_use(counts: Ints) -> CodebookUse | None:
    """Of how often each of K codes was used, (K,). None without a token."""
    tokens, size = int(counts.sum()), len(counts)
    if not tokens:
        return None
    shares = counts[counts > 0] / tokens
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return CodebookUse(perplexity, int((counts == 0).sum()), size * (1 - 1 / size) ** tokens, tokens)


def about_codebook(counts: TokenCounts | None) -> Iterator[Measurement]:
    """Perplexity and dead codes of all rows; nothing for continuous families."""
    if counts is None:
        return
    if counts.bad_rows:
        reason = f"{counts.bad_rows:,} rows hold a code outside the codebook of {len(counts.single)} and were left out."
        yield Measurement("bad_index_rows", counts.bad_rows, threshold=0, status="bad_index", message=reason)
    use, size = codebook_use(counts.single), len(counts.single)
    if use is None:
        yield Measurement("codebook_perplexity", status="too_few_points", n=0, message="not one token was counted.")
        return
    narrow, narrowest = use.perplexity < NARROW_SHARE * size, NARROW_SHARE * size
    yield Measurement(
        "codebook_perplexity",
        use.perplexity,
        n=use.tokens,
        unit="codes",
        threshold=narrowest,
        status="collapsed" if narrow else "ok",
        message=f"the codes are used as evenly as {use.perplexity:.4g} would be, of {size}"
        + (f"; at least {narrowest:.4g} are expected." if narrow else "."),
        detail=json.dumps({"codes": size, "tokens": _shown(counts.single)}),
    )
    allowed = use.expected_dead + DEAD_SHARE * size
    dead = use.dead > allowed
    yield Measurement(
        "dead_codes",
        use.dead,
        n=size,
        unit="codes",
        threshold=allowed,
        status="dead_codes" if dead else "ok",
        message=f"{use.dead:,} of {size:,} codes are not used by {use.tokens:,} tokens"
        + (
            f"; equal use would leave {use.expected_dead:.1f}, and {100 * DEAD_SHARE:.0f} % of the codebook more is allowed."
            if dead
            else "."
        ),
    )
    yield Measurement(
        "expected_dead_codes",
        use.expected_dead,
        n=use.tokens,
        unit="codes",
        message="that equal use would leave unused",
    )


def _shown(counts: Ints) -> list[int]:
    """Tokens a code, the most used first; of more than `SHOWN` codes every so many, first and last among them."""
    ordered = np.sort(counts)[::-1]
    if len(ordered) > SHOWN:
        ordered = ordered[np.linspace(0, len(ordered) - 1, SHOWN).round().astype(int)]
    return [int(count) for count in ordered]
