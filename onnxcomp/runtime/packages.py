"""Which packages are installed, by their metadata: none is imported."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distributions, version

WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-training",
    "ort-nightly",
    "ort-nightly-gpu",
)
"""Distributions that all install the folder `onnxruntime`, so that only one of them can be whole."""


def installed(names: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def runtime_wheels() -> dict[str, str]:
    """The distributions of ONNX Runtime that are installed, with their versions; more than one is a conflict."""
    return installed(WHEELS)


def copies(name: str) -> list[str]:
    """Versions of a package that `sys.path` holds, the one that is imported first; more than one shadows another.

    A folder that is on the path twice counts once.
    """
    found = {str(d.locate_file("")): d.version for d in distributions(name=name)}
    return list(found.values())
