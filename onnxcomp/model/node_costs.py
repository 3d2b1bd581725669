"""What each node weighs: its MACs in a call of given shapes, and the bytes of the constants that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import qualified
from onnxcomp.ops.macs import macs

Dims = tuple[int | str | None, ...]


@dataclass(frozen=True)
class NodeCost:
    """One node, those in bodies included.

    Args:
        shape: Of its first output, as in the call where that is known, else as declared.
        macs: None where a shape is unknown.
        weight_bytes: Of the initializers that no node before it reads.
    """

    name: str
    op_type: str
    shape: Dims | None
    macs: int | None
    weight_bytes: int


def node_costs(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> list[NodeCost]:
    """The cost of every node, in the order of the graph.

    Args:
        model: Canonical; not changed.
        shapes: Of all values in one call, as far as they are known.
    """
    shaped = clone(model)
    for value in (*shaped.graph.inputs, *(v for node in shaped.graph.all_nodes() for v in node.outputs)):
        shape = shapes.get(value.name or "")
        if shape is not None:
            value.shape = ir.Shape(list(shape))
    seen: set[int] = set()
    return [
        NodeCost(node.name or "", qualified(node), dims(node.outputs[0].shape), macs(node), _weight_bytes(node, seen))
        for node in shaped.graph.all_nodes()
        if node.op_type != "Constant" and node.outputs
    ]


def dims(shape: ir.Shape | None) -> Dims | None:
    """A shape as data: symbols by name, None for a dimension that has neither."""
    if shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value if d.value else None for d in shape)


def _weight_bytes(node: ir.Node, seen: set[int]) -> int:
    total = 0
    for value in node.inputs:
        if value is not None and value.is_initializer() and value.const_value is not None and id(value) not in seen:
            seen.add(id(value))
            total += value.const_value.nbytes
    return total
