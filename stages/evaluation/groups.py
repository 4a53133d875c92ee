"""Which images belong together in an evaluation: weighed together by the bootstrap, and in one fold of a cross-fit."""

import numpy as np
import pyarrow as pa

from stages.row_hash import Hashes, hash_ids


def group_hashes(labels: pa.StructArray, group: str | None, hashes: Hashes) -> Hashes:
    """(rows,) hashes of what belongs together; a row without that label stands on its own, by the hash of its id."""
    if group is None:
        return hashes
    named = labels.field(group).cast(pa.string())
    known = named.is_valid().to_numpy(zero_copy_only=False)
    return np.where(known, hash_ids(named.fill_null("")), hashes)
