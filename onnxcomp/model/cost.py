"""What a model weighs: parameters, bytes, MACs; for each node and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxcomp.model import shapes as shape_inference
from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import qualified
from onnxcomp.ops.macs import macs


@dataclass(frozen=True)
class Cost:
    """Totals of a model. What is in the bodies of If, Loop and Scan counts once.

    Args:
        parameters: Elements of all floating-point and quantised weights, shared ones counted once; scales and zero
            points of quantisation are not parameters, nor are integer constants such as shapes and indices.
        weight_bytes: Bytes of all initializers and constants.
        macs: Multiply-accumulates of one call at the bound shapes.
        macs_unknown: Heavy nodes whose MACs are not known, because a shape is not.
        operators: Nodes by operator type.
        by_node: MACs by node name.
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
    by_node: Counter[str] = Counter()
    total = unknown = 0
    operators: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        if node.op_type != "Constant":
            operators[qualified(node)] += 1
        count = macs(node)
        if count is None:
            unknown += 1
        elif count:
            total += count
            by_node[node.name or ""] += count
    return Cost(
        parameters=_parameters(_graphs(model)),
        weight_bytes=sum(t.nbytes for t in constants(model)),
        macs=total,
        macs_unknown=unknown,
        nodes=sum(operators.values()),
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        by_node=dict(by_node),
    )


def macs_by_node(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Multiply-accumulates of the nodes of the main graph.

    Args:
        shapes: Of all values, as a call has them: inference does not find them all.
    """
    shaped = clone(model)
    for value in (*shaped.graph.inputs, *(v for node in shaped.graph for v in node.outputs)):
        shape = shapes.get(value.name or "")
        if shape is not None:
            value.shape = ir.Shape(shape)
    return {node.name or "": macs(node) or 0 for node in shaped.graph}


def constants(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every constant tensor once: initializers and Constant nodes of the graph, its bodies and the functions."""
    return (tensor for tensor, _ in _constants(_graphs(model)))


def subgraph_share(model: ir.Model) -> float:
    """Share of the parameters that sit inside If, Loop or Scan bodies, 0 to 1."""
    total = _parameters(_graphs(model))
    return _parameters(model.graph.subgraphs()) / total if total else 0.0


GraphLike = ir.Graph | ir.Function


def _graphs(model: ir.Model) -> Iterator[GraphLike]:
    yield from model.graphs()
    for function in model.functions.values():
        yield function
        yield from function.subgraphs()


def _constants(graphs: Iterable[GraphLike]) -> Iterator[tuple[ir.TensorProtocol, ir.Value]]:
    """Tensors, each once, with the value that they are the content of."""
    seen: set[int] = set()
    for graph in graphs:
        held = list(graph.initializers.values()) if isinstance(graph, ir.Graph) else []
        found = [(v.const_value, v) for v in held if v.const_value is not None]
        for node in graph:
            attribute = node.attributes.get("value") if node.op_type == "Constant" else None
            if attribute is not None and attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                found.append((attribute.as_tensor(), node.outputs[0]))
        for tensor, value in found:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor, value


def _parameters(graphs: Iterable[GraphLike]) -> int:
    return sum(tensor.size for tensor, value in _constants(graphs) if _is_parameter(tensor, value))


def _is_parameter(tensor: ir.TensorProtocol, value: ir.Value) -> bool:
    uses = [(qualified(use.node), use.idx) for use in value.uses()]
    if any(index in _BIASES.get(op_type, ()) for op_type, index in uses):
        return True
    if uses and all(index in _QUANTISATION.get(op_type, ()) for op_type, index in uses):
        return False
    # Strings have no width.
    small = tensor.dtype not in (ir.DataType.BOOL, ir.DataType.STRING) and tensor.dtype.bitwidth <= 8
    return tensor.dtype.is_floating_point() or small


_BINARY = (1, 2, 4, 5, 6, 7)
_UNARY = (1, 2, 3, 4)

_QUANTISATION: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": _BINARY,
    "QLinearMatMul": _BINARY,
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "com.microsoft:QuantizeLinear": (1, 2),
    "com.microsoft:DequantizeLinear": (1, 2),
    "com.microsoft:QLinearConv": _BINARY,
    "com.microsoft:QLinearAdd": _BINARY,
    "com.microsoft:QLinearMul": _BINARY,
    "com.microsoft:QGemm": (1, 2, 4, 5, 7, 8),
    "com.microsoft:QLinearSigmoid": _UNARY,
    "com.microsoft:QLinearLeakyRelu": _UNARY,
    "com.microsoft:QLinearSoftmax": _UNARY,
    "com.microsoft:QLinearAveragePool": _UNARY,
    "com.microsoft:QLinearGlobalAveragePool": _UNARY,
    # y's, then (x, its scale, its zero point) for each operand.
    "com.microsoft:QLinearConcat": tuple(i for i in range(3000) if i % 3 != 2),
    "com.microsoft:DynamicQuantizeMatMul": (2, 3),
    "com.microsoft:MatMulIntegerToFloat": (2, 3, 4, 5),
    "com.microsoft:MatMulNBits": (2, 3),
}
"""Inputs of quantised operators that hold scales and zero points."""

_BIASES: dict[str, tuple[int, ...]] = {
    "DequantizeLinear": (0,),
    "QLinearConv": (8,),
    "com.microsoft:QLinearConv": (8,),
    "com.microsoft:QGemm": (6,),
}
"""Inputs of quantised operators that hold weights or biases, of whatever integer type."""
