"""Signatures for tests: `takes(x=("float32", ("N", 3)))`."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from onnxcomp.model.signature import Dim, Port, Signature


def takes(**inputs: tuple[str | None, tuple[Dim, ...] | None]) -> Signature:
    return Signature(tuple(Port(name, _dtype(dtype), shape) for name, (dtype, shape) in inputs.items()), ())


def _dtype(name: str | None) -> np.dtype | None:
    return None if name is None else np.dtype(getattr(ml_dtypes, name, name))
