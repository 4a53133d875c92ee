"""What `latentmill doctor` looks at: the things that most often are not what one thinks."""

import os
import shutil
from importlib import metadata, util
from pathlib import Path
from typing import Any

from pipeline.versions import library_versions

OPTIONAL = {
    "s3fs": ("s3fs", "s3:// sources and renders (extra: s3)"),
    "umap": ("umap-learn", "`project` with method umap (extra: project)"),
    "zuko": ("zuko", "`sample` with method flow (extra: flow)"),
    "openTSNE": ("openTSNE", "`project` with method tsne (extra: project)"),
}
"""Module → its package, and what needs it."""


def examine() -> list[dict[str, Any]]:
    """One row a check: what, what was found, and what to do about it (empty when fine)."""
    rows = [
        _row(name, version, "" if version != "not installed" else f"pip install {name}")
        for name, version in library_versions().items()
    ]
    rows += [_optional(module, *known) for module, known in OPTIONAL.items()]
    return [*rows, _gpu(), _cpus(), _shared_memory(), _ray_address()]


def _row(what: str, found: str, advice: str = "") -> dict[str, Any]:
    return {"check": what, "found": found, "advice": advice}


def _optional(module: str, package: str, needed_for: str) -> dict[str, Any]:
    if util.find_spec(module) is None:
        return _row(package, "not installed", f"only for {needed_for}")
    return _row(package, metadata.version(package))


def _gpu() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return _row("GPU", "none seen by torch", "fine on a laptop; on a GPU node install a CUDA build of torch")
    names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return _row("GPU", f"{torch.cuda.device_count()} × {', '.join(sorted(names))}")


def _cpus() -> dict[str, Any]:
    return _row("CPUs", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))


def _shared_memory() -> dict[str, Any]:
    if not Path("/dev/shm").is_dir():
        return _row("/dev/shm", "none", "Ray will use the temp folder, which is slower")
    free = shutil.disk_usage("/dev/shm").free / 2**30
    return _row("/dev/shm", f"{free:.1f} GiB free", "" if free >= 1 else "Ray needs more: docker run --shm-size=4g")


def _ray_address() -> dict[str, Any]:
    address = os.environ.get("RAY_ADDRESS")
    advice = "local runs ignore it (they start a private Ray)" if address else ""
    return _row("RAY_ADDRESS", address or "not set", advice)
