"""The function through which alone a value is seen: what it flattens need not be represented.

HardSwish makes 0 of everything below −3, SiLU almost 0 of everything below −8: a range that covers such values spends
integers on nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import float_attribute, is_standard

Function = Callable[[np.ndarray], np.ndarray]


def seen_through(value: ir.Value) -> Function | None:
    """The activation that is all that reads `value`: x → f(x), or x → x·f(x) where a product reads it too."""
    nodes = [use.node for use in value.uses()]
    gates = [n for n in nodes if n.op_type in GATES and is_standard(n)]
    if value.is_graph_output() or len(gates) != 1:
        return None
    function = GATES[gates[0].op_type](gates[0])
    others = [n for n in nodes if n is not gates[0]]
    if not others:
        return function
    both = {id(value), id(gates[0].outputs[0])}
    product = others[0].op_type == "Mul" and {id(v) for v in others[0].inputs} == both
    return (lambda x: x * function(x)) if product and len(others) == 1 else None


def gate(value: ir.Value) -> str:
    """The operator of that function; empty where there is none."""
    return next((u.node.op_type for u in value.uses() if u.node.op_type in GATES), "") if seen_through(value) else ""


def _sigmoid(node: ir.Node) -> Function:
    return lambda x: 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))


def _hard_sigmoid(node: ir.Node) -> Function:
    alpha, beta = float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5)
    return lambda x: np.clip(alpha * x + beta, 0.0, 1.0)


def _hard_swish(node: ir.Node) -> Function:
    return lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0)


def _leaky_relu(node: ir.Node) -> Function:
    alpha = float_attribute(node, "alpha", 0.01)
    return lambda x: np.where(x >= 0.0, x, alpha * x)


GATES: dict[str, Callable[[ir.Node], Function]] = {
    "Sigmoid": _sigmoid,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "LeakyRelu": _leaky_relu,
}
