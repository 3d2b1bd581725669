"""What a model takes and gives: names, dtypes and shapes of its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

Dim = int | str | None
"""A dimension: a number, a symbol (two equal symbols are equal sizes) or unknown."""


@dataclass(frozen=True)
class Port:
    """One input or output of a model.

    Args:
        name: As in the file.
        dtype: numpy dtype, or None for what numpy can't hold (strings, sequences, maps, optionals).
        shape: One entry an axis; None when the rank is unknown.
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[Dim, ...] | None


@dataclass(frozen=True)
class Signature:
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def dynamic_symbols(self) -> tuple[str, ...]:
        """The symbols of the input shapes, in order of appearance."""
        return tuple(dict.fromkeys(d for p in self.inputs for d in p.shape or () if isinstance(d, str)))


def signature(model: ir.Model) -> Signature:
    """Reads the signature; initializers listed among the inputs (IR < 4) are not inputs.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }'
    >>> signature(ir.from_onnx_text(text)).inputs[0].shape
    ('N', 3)
    """
    graph = model.graph
    return Signature(
        inputs=tuple(_port(v) for v in graph.inputs if v.name not in graph.initializers),
        outputs=tuple(_port(v) for v in graph.outputs),
    )


WITHOUT_NUMBERS = (ir.DataType.STRING, ir.DataType.UNDEFINED)
"""A file may leave the type of an output undefined: the runtime finds it out."""


def _port(value: ir.Value) -> Port:
    dtype: np.dtype | None = None
    if isinstance(value.type, ir.TensorType) and value.dtype not in (None, *WITHOUT_NUMBERS):
        assert value.dtype is not None
        dtype = np.dtype(value.dtype.numpy())
    shape = None if value.shape is None else tuple(_dim(d) for d in value.shape)
    return Port(value.name or "", dtype, shape)


def _dim(dim: int | ir.SymbolicDim) -> Dim:
    if isinstance(dim, int):
        return dim
    return None if dim.value in (None, "", "?") else str(dim.value)
