"""onnxcomp compresses ONNX models for deployment: smaller and faster, proved to behave like the original, and measured.

The public names are resolved on first use: importing the package imports neither onnx, onnxruntime nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnxcomp.driver.compare import compare
    from onnxcomp.driver.jobs import bench, factorize, optimize, prune, quantize, simplify, verify
    from onnxcomp.driver.result import Result

_HOMES = {
    "Result": "onnxcomp.driver.result",
    "compare": "onnxcomp.driver.compare",
    **dict.fromkeys(
        ("bench", "factorize", "optimize", "prune", "quantize", "simplify", "verify"), "onnxcomp.driver.jobs"
    ),
}

__all__ = [
    "Result",
    "__version__",
    "bench",
    "compare",
    "factorize",
    "optimize",
    "prune",
    "quantize",
    "simplify",
    "verify",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'onnxcomp' has no attribute {name!r}")
