"""Weights of which only the type and shape are looked at, so that a model of gigabytes can be judged by its graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

SMALL = 1 << 20
"""Bytes up to which a constant keeps its content: sizes, axes, biases."""


class Unread(ir.Tensor[np.ndarray]):
    """Ones without memory, in the place of a weight."""

    def __init__(self, tensor: ir.TensorProtocol) -> None:
        shape = tuple(tensor.shape.numpy())
        super().__init__(np.broadcast_to(np.ones((), tensor.dtype.numpy()), shape), tensor.dtype, name=tensor.name)


def without_weights(model: ir.Model) -> None:
    """Puts `Unread` in the place of all large constants, in place."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > SMALL:
                value.const_value = Unread(tensor)


def all_finite(value: ir.Value) -> bool:
    """Whether a constant holds neither NaN nor infinity; taken for granted where it is not read."""
    tensor = value.const_value
    return tensor is not None and (isinstance(tensor, Unread) or bool(np.isfinite(tensor.numpy()).all()))
