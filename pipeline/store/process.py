"""Which process holds a lease, told so exactly that its death can be seen from another process of the same machine.

A process id alone is reused. The mark adds the machine's boot, the PID namespace (containers on one machine have their
own numbers) and the process's start time. Elsewhere, and where /proc is missing, death cannot be seen: leases expire.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_DEAD = "ZX"
"""Process states that run no code any more: zombie (not yet reaped) and dead."""


@dataclass(frozen=True)
class Process:
    """`mark` is `<boot>:<pid namespace>:<start time>`, empty where it cannot be known."""

    host: str
    pid: int
    mark: str


def this_process() -> Process:
    return Process(socket.gethostname(), os.getpid(), _mark(os.getpid()) or "")


def is_gone(process: Process) -> bool:
    """Whether `process` certainly ended. False when it lives, and when this machine cannot tell."""
    here = _place()
    if here is None or not process.mark.startswith(here + ":"):
        return False
    return _mark(process.pid) != process.mark


def _place() -> str | None:
    """This boot of this machine and this PID namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}".replace(":[", "[")
    except OSError:
        return None


def _mark(pid: int) -> str | None:
    """The mark of a living process of this machine; None when there is none."""
    try:
        # The name in parentheses may hold spaces; what follows it is: state, parent, …, start time (22nd field).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    place = _place()
    return None if place is None or fields[0] in _DEAD else f"{place}:{fields[19]}"
