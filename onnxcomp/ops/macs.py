"""Multiply-accumulates of one call, operator by operator. Operators that are not here count as none (they do not multiply-accumulate)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import onnx_ir as ir

from onnxcomp.ops.attributes import int_attribute, qualified

Shape = tuple[int, ...]
Formula = Callable[[ir.Node, Sequence[Shape | None], Shape], int]
"""(node, input shapes, shape of the first output) -> MACs."""


class UnknownShape(Exception):
    """A shape that the formula needs is not known."""


def _need(shape: Shape | None) -> Shape:
    if shape is None:
        raise UnknownShape
    return shape


def _conv(node: ir.Node, inputs: Sequence[Shape | None], output: Shape) -> int:
    """Each output value sums C_in/groups · kH · kW products; w: [out, in/groups, kH, kW]."""
    return prod(output) * prod(_need(inputs[1])[1:])


def _conv_transpose(node: ir.Node, inputs: Sequence[Shape | None], output: Shape) -> int:
    """Each input value spreads into out/groups · kH · kW products; w: [in, out/groups, kH, kW]."""
    return prod(_need(inputs[0])) * prod(_need(inputs[1])[1:])


def _matmul(node: ir.Node, inputs: Sequence[Shape | None], output: Shape) -> int:
    return prod(output) * _need(inputs[0])[-1]


def _gemm(node: ir.Node, inputs: Sequence[Shape | None], output: Shape) -> int:
    a = _need(inputs[0])
    return prod(output) * (a[0] if int_attribute(node, "transA", 0) else a[1])


def _recurrent(node: ir.Node, inputs: Sequence[Shape | None], output: Shape) -> int:
    """w: [directions, gates·hidden, in], r: [directions, gates·hidden, hidden]; x: [time, batch, in] (or batch first: same product)."""
    x = _need(inputs[0])
    return x[0] * x[1] * (prod(_need(inputs[1])) + prod(_need(inputs[2])))


FORMULAS: dict[str, Formula] = {
    "Conv": _conv,
    "QLinearConv": lambda node, inputs, output: prod(output) * prod(_need(inputs[3])[1:]),
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "com.microsoft:FusedMatMul": _matmul,
    "com.microsoft:FusedConv": _conv,
    "com.microsoft:MatMulIntegerToFloat": _matmul,
    "com.microsoft:DynamicQuantizeMatMul": _matmul,
    "com.microsoft:QGemm": lambda node, inputs, output: prod(output) * _need(inputs[0])[-1],
}


def macs(node: ir.Node) -> int | None:
    """MACs of one node from the static shapes on its values; None when a needed shape is unknown.

    >>> x, w = ir.val("x", ir.DataType.FLOAT, [1, 8]), ir.val("w", ir.DataType.FLOAT, [8, 4])
    >>> node = ir.node("MatMul", [x, w]); node.outputs[0].shape = ir.Shape([1, 4])
    >>> macs(node)
    32
    """
    formula = FORMULAS.get(qualified(node))
    if formula is None:
        return 0
    output = static_shape(node.outputs[0])
    if output is None:
        return None
    try:
        return formula(node, [static_shape(v) for v in node.inputs], output)
    except UnknownShape:
        return None


def static_shape(value: ir.Value | None) -> Shape | None:
    """The shape as numbers, or None when the rank or any dimension is unknown."""
    if value is None or value.shape is None:
        return None
    dims = tuple(value.shape)
    return tuple(int(d) for d in dims) if all(isinstance(d, int) for d in dims) else None  # type: ignore[arg-type]
