"""What is known of labels, codec and store while planning, and the names of it that steps may use."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.codec import CodecRef
from pipeline.store.store import Store
from schemas.errors import JobError, Problem
from schemas.job import Job, did_you_mean


@dataclass
class Known:
    """What is known while planning. `stored`: directions of the dataset, name → fingerprint of the codec → status.

    `directions`: names a step may use: those of this codec, and those that steps above will have made.
    """

    job: Job
    codec: CodecRef | None
    labels: dict[str, Any]
    store: Store | None
    has_rows: bool
    stored: dict[str, dict[str, str]] = field(default_factory=dict)
    directions: set[str] = field(default_factory=set)


def check_labels(names: Iterable[str], at: str, known: Known) -> Iterator[Problem]:
    """Names that must be labels of the dataset."""
    for name in names:
        if name not in known.labels:
            yield Problem(at, name, "no such label.", did_you_mean(name, known.labels))


def check_directions(names: Iterable[str], at: str, known: Known) -> Iterator[Problem]:
    """Names that must be directions of this codec, stored or made above. One of another codec is said so (design §5.5)."""
    for name in names:
        if name in known.directions or name.split("=")[0] in known.directions:
            continue
        status = known.stored.get(name, {}).get(known.codec.fingerprint) if known.codec else None
        if status is not None:
            yield Problem(at, name, f"its fit ended as `{status}`.", "see `latentmill directions`, or name another one")
        elif name in known.stored and known.codec is not None:
            other = sorted(known.stored[name])[0][:16]
            here = known.codec.fingerprint[:16]
            reason = f"was fitted for codec {other}; this job's codec is {here}. Spaces never mix."
            yield Problem(at, name, reason, "put a `fit` step above, or use that codec")
        else:
            yield Problem(at, name, "no such direction.", did_you_mean(name, known.directions))


def check_coordinates(indexes: Iterable[int], at: str, known: Known) -> Iterator[Problem]:
    """Indexes into the flattened latent."""
    for j in indexes:
        if known.codec and not 0 <= j < known.codec.latent.dim:
            dim = known.codec.latent.dim
            yield Problem(at, j, f"the latent has {dim} coordinates.", f"use 0 to {dim - 1}")


def check_entry(entry: str, at: str, known: Known) -> Iterator[Problem]:
    """A `module:Class` of the user's must be there, and allowed."""
    if ":" in entry:
        from stages.entry import import_entry

        try:
            import_entry(entry, field=at, allow_code=known.job.allow_code)
        except JobError as error:
            yield from error.problems
