"""Multiply-accumulates of one call, operator by operator.

Operators that are not here count as none: they do not multiply-accumulate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import onnx_ir as ir

from onnxcomp.ops.attributes import int_attribute, qualified, string_attribute

Shape = tuple[int, ...]
Formula = Callable[[ir.Node, Sequence[Shape | None], Shape], int]
"""(node, input shapes, shape of the first output) -> MACs."""


class UnknownShape(Exception):
    """A shape that the formula needs is not known, or there is no formula for a heavy operator."""


def _need(shapes: Sequence[Shape | None], index: int) -> Shape:
    shape = shapes[index] if index < len(shapes) else None
    if shape is None:
        raise UnknownShape
    return shape


def _conv(weight: int) -> Formula:
    """Each output value sums C_in/groups · kH · kW products; w: [out, in/groups, kH, kW], input `weight`."""
    return lambda node, inputs, output: prod(output) * prod(_need(inputs, weight)[1:])


def _conv_transpose(node: ir.Node, inputs: Sequence[Shape | None], output: Shape) -> int:
    """Each input value spreads into out/groups · kH · kW products; w: [in, out/groups, kH, kW]."""
    return prod(_need(inputs, 0)) * prod(_need(inputs, 1)[1:])


def _matmul(node: ir.Node, inputs: Sequence[Shape | None], output: Shape) -> int:
    """Each output value sums as many products as the contracted axis of the first input is long."""
    return prod(output) * _need(inputs, 0)[-2 if int_attribute(node, "transA", 0) else -1]


def _einsum(node: ir.Node, inputs: Sequence[Shape | None], output: Shape) -> int:
    """Operands − 1 products for each assignment of the indices; with `...` the size is not counted."""
    terms = string_attribute(node, "equation", "").replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for i, term in enumerate(terms):
        shape = _need(inputs, i)
        if len(term) != len(shape) or "." in term:
            raise UnknownShape
        sizes |= dict(zip(term, shape, strict=True))
    return (len(terms) - 1) * prod(sizes.values())


def _recurrent(node: ir.Node, inputs: Sequence[Shape | None], output: Shape) -> int:
    """w: [directions, gates·hidden, in], r: [directions, gates·hidden, hidden]; x: [time, batch, in] in any layout."""
    x = _need(inputs, 0)
    return x[0] * x[1] * (prod(_need(inputs, 1)) + prod(_need(inputs, 2)))


def _uncounted(node: ir.Node, inputs: Sequence[Shape | None], output: Shape) -> int:
    raise UnknownShape


FORMULAS: dict[str, Formula] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _matmul,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _uncounted,
    "DeformConv": _uncounted,
    "com.microsoft:FusedMatMul": _matmul,
    "com.microsoft:FusedGemm": _matmul,
    "com.microsoft:FusedConv": _conv(1),
    "com.microsoft:QLinearConv": _conv(3),
    "com.microsoft:QGemm": _matmul,
    "com.microsoft:MatMulIntegerToFloat": _matmul,
    "com.microsoft:DynamicQuantizeMatMul": _matmul,
    "com.microsoft:MatMulNBits": _matmul,
    "com.microsoft:DynamicQuantizeLSTM": _uncounted,
    "com.microsoft:Attention": _uncounted,
    "com.microsoft:QAttention": _uncounted,
    "com.microsoft:MultiHeadAttention": _uncounted,
    "com.microsoft:GroupQueryAttention": _uncounted,
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
    try:
        return None if output is None else formula(node, [static_shape(v) for v in node.inputs], output)
    except UnknownShape:
        return None


def static_shape(value: ir.Value | None) -> Shape | None:
    """The shape as numbers, or None when the rank or any dimension is unknown."""
    if value is None or value.shape is None:
        return None
    dims = tuple(d for d in value.shape if isinstance(d, int))
    return dims if len(dims) == len(value.shape) else None
