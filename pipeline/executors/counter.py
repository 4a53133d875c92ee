"""Counts rows that read tasks have done, for the progress display alone: nothing is decided by it.

Imports nothing, so that the process it lives in starts quickly.
"""


class Counter:
    """An actor's class: adds up."""

    def __init__(self) -> None:
        self._rows = 0

    def add(self, rows: int) -> None:
        self._rows += rows

    def total(self) -> int:
        """Rows so far. A task that Ray ran twice counts twice: a display may run ahead of the books."""
        return self._rows
