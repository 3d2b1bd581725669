"""What each operator type of a model costs: nodes, MACs, bytes of weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import is_constant, qualified
from onnxcomp.ops.macs import macs

_CARRIES = frozenset({"Cast", "DequantizeLinear", "Flatten", "Identity", "Reshape", "Transpose", "Unsqueeze"})
"""Behind them a weight is still the weight: its bytes belong to whoever computes with it."""


@dataclass
class OperatorCost:
    """All nodes of one type, those in bodies of If, Loop and Scan included.

    Args:
        macs: Multiply-accumulates of one call; None when a shape is not known.
        bytes: Of the weights that they read first.
    """

    nodes: int = 0
    macs: int | None = 0
    bytes: int = 0


def by_operator(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, OperatorCost]:
    """The cost of each operator type, as in the file.

    Args:
        model: Constants as initializers.
        shapes: Of all values of the main graph, as a call has them.
    """
    shaped = clone(model)
    for made in (*shaped.graph.inputs, *(v for node in shaped.graph for v in node.outputs)):
        if (shape := shapes.get(made.name or "")) is not None:
            made.shape = ir.Shape(shape)
    result: defaultdict[str, OperatorCost] = defaultdict(OperatorCost)
    charged: set[int] = set()
    for node in shaped.graph.all_nodes():
        entry, count = result[qualified(node)], macs(node)
        entry.nodes += 1
        entry.macs = None if count is None or entry.macs is None else entry.macs + count
        for value in node.inputs:
            if value is not None and is_constant(value) and id(value) not in charged and value.const_value is not None:
                charged.add(id(value))
                result[qualified(_user(node))].bytes += value.const_value.nbytes
    return dict(result)


def _user(node: ir.Node) -> ir.Node:
    """The node that computes with a weight that `node` reads."""
    while node.op_type in _CARRIES and all(v is None or is_constant(v) for v in node.inputs):
        readers = node.outputs[0].uses()
        if not readers:
            break
        node = next(iter(readers)).node
    return node
