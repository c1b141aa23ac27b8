"""What a study is run with: the versions of fedstep and of what its numbers depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

from fedstep.common.version import VERSION

_PACKAGES = ("torch", "optuna", "numpy", "grpcio")


def versions() -> dict[str, str]:
    """By name; of packages those that are installed."""
    found = {"fedstep": VERSION, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a folder that no installer knows of
            continue
    return found
