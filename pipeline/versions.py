"""The versions that a run records: Python and the libraries that can change a number."""

import platform
from importlib import metadata

LIBRARIES = ("latentmill", "torch", "ray", "lancedb", "pylance", "pyarrow", "numpy")


def library_versions() -> dict[str, str]:
    """Name → version, or `not installed`."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
