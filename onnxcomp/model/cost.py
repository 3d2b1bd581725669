"""What a model weighs: parameters, bytes, MACs; for each node and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from onnxcomp.model import shapes as shape_inference
from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import qualified
from onnxcomp.ops.macs import macs


@dataclass(frozen=True)
class Cost:
    """Totals of a model.

    Args:
        parameters: Elements of all floating-point and quantised weights, shared ones counted once, bodies of If and Loop included.
        weight_bytes: Bytes of all initializers and constants.
        macs: Multiply-accumulates of one call at the bound shapes.
        macs_unknown: Heavy nodes whose MACs are not known, because a shape is not.
        operators: Nodes by operator type, bodies included.
        by_node: MACs by node name (main graph).
    """

    parameters: int
    weight_bytes: int
    macs: int
    macs_unknown: int
    nodes: int
    operators: dict[str, int]
    by_node: dict[str, int]


def cost(model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None) -> Cost:
    """Counts `model`; `shapes` binds dynamic inputs first (on a copy)."""
    if shapes:
        model = clone(model)
        shape_inference.bind(model, shapes)
    by_node: dict[str, int] = {}
    unknown = 0
    operators: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        if node.op_type != "Constant":
            operators[qualified(node)] += 1
        count = macs(node)
        if count is None:
            unknown += 1
        elif count and node.name:
            by_node[node.name] = by_node.get(node.name, 0) + count
    tensors = list(constants(model))
    return Cost(
        parameters=sum(t.size for t in tensors if _is_parameter(t)),
        weight_bytes=sum(t.nbytes for t in tensors),
        macs=sum(by_node.values()),
        macs_unknown=unknown,
        nodes=sum(operators.values()),
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        by_node=by_node,
    )


def constants(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every constant tensor once: initializers and Constant nodes of the main graph, its bodies and the functions."""
    seen: set[int] = set()
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and id(value.const_value) not in seen:
                seen.add(id(value.const_value))
                yield value.const_value
    for graph in (*model.graphs(), *model.functions.values()):
        for node in graph:
            attribute = node.attributes.get("value") if node.op_type == "Constant" else None
            if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()


def subgraph_share(model: ir.Model) -> float:
    """Share of the parameters that sit inside If, Loop or Scan bodies, 0 to 1."""
    total = sum(t.size for t in constants(model) if _is_parameter(t))
    if not total:
        return 0.0
    inside = 0
    for graph in model.graph.subgraphs():
        if graph is model.graph:
            continue
        inside += sum(v.const_value.size for v in graph.initializers.values() if v.const_value is not None)
        inside += sum(
            prod(n.attributes["value"].as_tensor().shape)
            for n in graph
            if n.op_type == "Constant" and "value" in n.attributes
        )
    return min(1.0, inside / total)


def _is_parameter(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype.is_floating_point() or (
        tensor.dtype.bitwidth <= 8 and tensor.dtype not in (ir.DataType.BOOL, ir.DataType.STRING)
    )
