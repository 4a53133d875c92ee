"""WebDataset tar shards, byte for byte reproducible: plain ustar headers, no times, no owners, members in the order of `seq`.

A sample is two members that share their name up to the dot: the picture and a JSON object that says what it is.
"""

import io
import tarfile
from collections.abc import Iterable


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    """(name, data) pairs as one uncompressed tar file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)  # its defaults: mode 644, owner 0, time 0
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member_name(strip: str, frame: int) -> str:
    """A sample's name without suffix. Holds no dot, because a WebDataset name ends at its first one."""
    return f"{strip}_{frame:03d}"
