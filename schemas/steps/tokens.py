"""What steps say of discrete codecs: which methods are theirs, and which tokens an edit puts in."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Spec, broken_rule

TOKEN_METHODS = ("token_swap", "codebook_lerp")
"""Methods of `interpolate` for discrete codecs: between codes, never between their indices."""
TOKEN_DRAWS = ("categorical", "bigram")
"""Methods of `sample` for discrete codecs."""
MAX_BIGRAM_CODES = 1024
"""A table of K² counts goes to every worker, 8 MiB of them; larger codebooks have the categorical prior only."""


class TokenChange(Spec):
    """Discrete codecs: which tokens are put in the place of an image's own."""

    of: str | None = Field(None, description="image id: its tokens are put in")
    code: int | None = Field(None, ge=0, description="an index: this code is put in")
    histogram: tuple[str, ...] | Literal["all"] | None = Field(
        None,
        description="image ids, or all: as few tokens as possible change until the codes occur as often as in these images; what they "
        "become is nearest in all",
    )
    region: tuple[int, int, int, int] | None = Field(
        None, description="of, code: only tokens top to bottom − 1, left to right − 1: [top, left, bottom, right]"
    )
    mask: tuple[tuple[float, ...], ...] | None = Field(
        None, description="of, code: rows of 0 and 1 over the tokens, 1 where they are replaced"
    )
    seed: int = Field(0, ge=0, description="of the order in which tokens change over `parts`, and of a transfer's ties")

    @property
    def named(self) -> str:
        """A title."""
        if self.histogram is not None:
            return "histogram of all" if self.histogram == "all" else f"histogram of {', '.join(self.histogram)}"
        return f"tokens of {self.of}" if self.of is not None else f"code {self.code}"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("of", "code", "histogram") if getattr(self, name) is not None]
        if len(given) != 1:
            raise broken_rule("of", given or None, "tokens come from one place.", "give `of`, `code` or `histogram`")
        if self.histogram is not None and (self.region is not None or self.mask is not None):
            place = "region" if self.region is not None else "mask"
            reason = "a histogram is that of the whole image."
            raise broken_rule(place, None, reason, "leave it out, or use `of` or `code`")
        if self.histogram == ():
            raise broken_rule("histogram", None, "no images.", "list image ids, or say all")
        return self
