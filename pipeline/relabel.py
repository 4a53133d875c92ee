"""A changed label file taken up for images that are encoded already: their labels alone are written, in one version.

Which rows differ follows from the listing and the table (ledger.py), so the same command again after a death does what is
missing, and nothing when all is done. Indexes on labels forget the fragments that changed; the vector index keeps them.
"""

import numpy as np

from pipeline.context import Context
from pipeline.ledger import Tally
from pipeline.listing import Listing
from pipeline.store.column_spill import ColumnSpill
from pipeline.store.splits import ADDRESS


def relabel(ctx: Context, listing: Listing, tally: Tally, *, version: int) -> int:
    """Writes the labels of `tally.relabelled` and returns how many rows that were. `version`: of the tally's addresses.

    Raises StoreError when rows have moved since that version.
    """
    assert tally.addresses is not None, "recount with `located_at`"
    if not tally.relabelled.any():
        return 0
    latents = ctx.latents
    with ColumnSpill((latents.schema.field("labels"),)) as spill:
        for start, batch in listing.batches():
            rows = np.flatnonzero(tally.relabelled[start : start + batch.num_rows])
            if len(rows):
                chosen = batch.take(rows)
                addresses = tally.addresses[start + rows]
                spill.add(chosen.select(["labels"]).add_column(0, ADDRESS, addresses))
        ctx.put_columns(spill, version=version, rows=spill.rows)
        return spill.rows
