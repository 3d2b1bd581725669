"""The one door to ONNX Runtime: imported once, on first use, silent and without telemetry."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from types import ModuleType

from onnxcomp.errors import UnavailableError

_ERRORS_ONLY = 3


@functools.cache
def onnxruntime() -> ModuleType:
    """Imports ONNX Runtime with its telemetry off and its log at errors only.

    Raises:
        UnavailableError: It is not installed, or does not load.
    """
    started_by_others = "onnxruntime" in sys.modules
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once by the library, while it loads
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime"
        raise UnavailableError(
            "ONNX Runtime is not installed" if missing else f"ONNX Runtime does not load: {error}",
            hint='pip install "onnxcomp[cpu]", or "onnxcomp[gpu]" for CUDA',
        ) from error
    if not hasattr(ort, "InferenceSession"):  # what an uninstalled second wheel leaves: a folder without its binary
        raise UnavailableError(
            "ONNX Runtime is installed only in part",
            hint="pip uninstall onnxruntime onnxruntime-gpu, then install one of the two",
        )
    if started_by_others and hasattr(ort, "disable_telemetry_events"):
        ort.disable_telemetry_events()
    ort.set_default_logger_severity(_ERRORS_ONLY)
    return ort


def version() -> str:
    """The version of ONNX Runtime, as in `1.31.1`."""
    return str(onnxruntime().__version__)
