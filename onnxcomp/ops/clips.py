"""Activations that bound their input."""

from __future__ import annotations

import onnx_ir as ir

from onnxcomp.ops.attributes import constant


def activation_bounds(node: ir.Node) -> tuple[float, float] | None:
    """Output range that a Relu or Clip enforces; None if a bound is not constant.

    >>> activation_bounds(ir.node("Relu", [ir.val("x")]))
    (0.0, inf)
    """
    if node.op_type == "Relu":
        return 0.0, float("inf")
    bounds = [float("-inf"), float("inf")]
    for index, value in enumerate(node.inputs[1:3]):
        if value is not None:
            array = constant(value)
            if array is None or array.size != 1:
                return None
            bounds[index] = float(array.reshape(()))
    return bounds[0], bounds[1]
