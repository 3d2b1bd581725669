"""Execution providers: the names that users type, and whether they are here."""

from __future__ import annotations

import contextlib
import sys
from typing import Literal

from onnxcomp.errors import UnavailableError
from onnxcomp.runtime.library import onnxruntime

Provider = Literal["cpu", "cuda"]

ORT_NAMES: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def available() -> tuple[Provider, ...]:
    """The providers that the installed wheel was built with; whether a device answers shows when a session opens."""
    built = onnxruntime().get_available_providers()
    return tuple(name for name, ort_name in ORT_NAMES.items() if ort_name in built)


def require(provider: Provider) -> None:
    """Returns when the installed wheel has the provider.

    Raises:
        UnavailableError: It has not; the hint names the wheel that does.
    """
    if provider in available():
        return
    raise UnavailableError(
        f"the provider {provider!r} is not in the installed ONNX Runtime",
        hint='pip uninstall onnxruntime && pip install "onnxcomp[gpu]" (the two wheels share a folder: keep one)',
    )


def priority(provider: Provider) -> list[str]:
    """What to pass to ONNX Runtime: the provider, then the CPU for the nodes that it does not take."""
    return list(dict.fromkeys([ORT_NAMES[provider], ORT_NAMES["cpu"]]))


def preload(provider: Provider) -> None:
    """Loads CUDA and cuDNN from the `nvidia-*` packages of the environment, where there are any."""
    preload_dlls = getattr(onnxruntime(), "preload_dlls", None)
    if provider == "cuda" and preload_dlls is not None:
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it misses, and stdout is data
            preload_dlls()
