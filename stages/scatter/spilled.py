"""A strip of a symmetric matrix on disk, mapped into memory while it is read."""

import mmap
from dataclasses import dataclass
from tempfile import TemporaryFile

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spilled:
    """Rows `start` to `start + shape[0]` of the upper triangle, from the diagonal block to the right edge; its file has no name and
    goes with the last reference.
    """

    start: int
    shape: tuple[int, ...]
    _map: mmap.mmap

    @classmethod
    def of(cls, start: int, strip: Floats) -> "Spilled":
        """Raises OSError on a full disk."""
        with TemporaryFile(prefix="latentmill-moments-") as file:
            strip.tofile(file)
            file.flush()
            return cls(start, strip.shape, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    @property
    def numbers(self) -> Floats:
        """All of them, read from the file as they are touched."""
        return np.frombuffer(self._map, np.float64).reshape(self.shape)

    def let_go(self) -> None:
        """Takes its pages out of this process's memory; they come again when they are touched."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on every system
            self._map.madvise(mmap.MADV_DONTNEED)
