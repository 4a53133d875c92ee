"""Every error Latentmill raises, on one page, and the closed set of codes a failed row can carry.

Two kinds, never mixed (design §5.6): a *bad row* is data and becomes a row in the failures table with a `FailureCode`;
a *bad job* is an error and raises one of the classes below. Each class knows the exit code the command line ends with.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class FailureCode(StrEnum):
    """Why an image has no latent. Stored in `failures.error`; users filter on these words."""

    ZERO_BYTES = "zero_bytes"  # the object exists and is empty
    NOT_AN_IMAGE = "not_an_image"  # no known image signature
    UNSUPPORTED = "unsupported"  # a real image in a format or mode we do not read
    TRUNCATED = "truncated"  # the header is fine, the data ends early
    CORRUPT = "corrupt"  # the header is fine, the data is damaged
    TOO_LARGE = "too_large"  # more pixels than `max_pixels`, or more bytes than `max_bytes`
    VANISHED = "vanished"  # listed, then gone when it was to be read
    CHANGED = "changed"  # listed at one version, read at another
    UNREADABLE = "unreadable"  # the read failed after every retry (permission, network)
    UNREADABLE_LABEL = "unreadable_label"  # a label value does not fit its declared type
    NON_FINITE = "non_finite"  # the codec made NaN or infinity of it
    CODEC_ERROR = "codec_error"  # the codec raised on this image alone


@dataclass(frozen=True, slots=True)
class RowFailure:
    """One image that could not be used: a code to filter on and a message that names the file."""

    code: FailureCode
    message: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a job: where, what value, why, and how to mend it."""

    field: str
    value: Any
    reason: str
    fix: str = ""

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {self.value!r}"
        return f"{self.field}{shown}: {self.reason}" + (f" Fix: {self.fix}" if self.fix else "")


class LatentmillError(Exception):
    """Base of all errors a user can meet. `exit_code` follows design §7."""

    exit_code = 1


class JobError(LatentmillError):
    """The job, its overrides or the command line is wrong. Carries every problem found, not the first."""

    exit_code = 2

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(p) for p in problems))

    @classmethod
    def one(cls, field: str, value: Any, reason: str, fix: str = "") -> "JobError":
        return cls([Problem(field, value, reason, fix)])

    def under(self, field: str) -> list[Problem]:
        """The problems, each as of a field inside `field`."""
        return [replace(p, field=f"{field}.{p.field}") for p in self.problems]

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.problems,))


class UnsafeWeights(JobError):
    """Weights that could run code when they are read (pickles). Only safetensors are opened."""


class SpaceMismatch(JobError):
    """A direction, code or index of one codec or space was offered to another (design §5.5)."""


class SourceError(LatentmillError):
    """A source could not be listed or a label file could not be read: the job cannot start."""

    exit_code = 2


class TransientReadError(LatentmillError):
    """Reading failed in a way that a fresh reader may survive (5xx, reset connections). Retried, then a row failure."""


class StoreError(LatentmillError):
    """The store refused an operation or holds something that does not fit the job."""


class LeaseHeld(StoreError):
    """Another run is committing to this dataset. The message says who, since when and until when."""


class LeaseLost(StoreError):
    """This run's lease was taken over; its fencing token is stale and it must not commit any more."""


class AccountingError(StoreError):
    """Books that do not balance: an image in no table or in two (design §5.1), rows that no worker brought back.

    The run has failed, whatever else went well.
    """


class TrainingError(LatentmillError):
    """Training cannot go on (no usable images, a loss that is not finite)."""


class TooManyFailures(LatentmillError):
    """More rows failed than `max_failures` allows."""

    exit_code = 3
