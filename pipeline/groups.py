"""Whether the rows of a step carry the label (or the part of the id) that it groups them by: without it each stands on its own."""

from pipeline.store.table import Table
from pipeline.store.where import both


def ungrouped(table: Table, group: str | None, where: str | None, *, version: int) -> str:
    """What to tell of selected rows that `group` does not name; empty where it names all. Reads one label, or the ids."""
    if group is None or "`" in group:  # a filter has no way to write such a name
        return ""
    from stages.grouping import BY_ID  # torch: only for jobs that group rows

    if group.startswith(BY_ID):
        named = "contains(id, '" + group.removeprefix(BY_ID).replace("'", "''") + "')"
    else:
        named = f"labels.`{group}` IS NOT NULL"
    rows = table.count_rows(where, version)
    alone = rows - table.count_rows(both(where, f"({named})"), version)
    if not alone:
        return ""
    if alone < rows:
        return f"{alone} of {rows} rows have no group `{group}`: each of them stands on its own"
    return f"no row has a group `{group}`: every row stands on its own, and intervals are those without groups"
