"""What the patterns share: a match, and small questions to a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, is_standard, new_initializer


@dataclass(frozen=True)
class Match:
    """Nodes that compute one operator, and the operator.

    Args:
        nodes: All of them; they go.
        result: What the last one gives.
        inputs: Of the operator; an array becomes an initializer.
    """

    op_type: str
    nodes: tuple[ir.Node, ...]
    result: ir.Value
    inputs: tuple[ir.Value | np.ndarray, ...]
    attributes: dict[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pattern:
    """How an operator is recognised.

    Args:
        opset: The first that has it.
        anchors: Operators of which every form holds exactly one.
        match: The match around such a node. It reads only.
    """

    op_type: str
    opset: int
    anchors: frozenset[str]
    match: Callable[[ir.Node], Match | None]


def is_closed(nodes: Iterable[ir.Node], result: ir.Value) -> bool:
    """Whether nobody else reads what the nodes compute, `result` aside."""
    own = {id(node) for node in nodes}
    return all(
        not value.is_graph_output() and all(id(use.node) in own for use in value.uses())
        for node in nodes
        for value in node.outputs
        if value is not result
    )


def write(match: Match) -> None:
    """Puts the operator in the place of the nodes, under the name of the last one."""
    last = match.result.producer()
    assert last is not None
    graph = last.graph
    assert isinstance(graph, ir.Graph)
    inputs = [
        new_initializer(graph, f"{match.result.name}.{i}", v) if isinstance(v, np.ndarray) else v
        for i, v in enumerate(match.inputs)
    ]
    made = ir.node(match.op_type, inputs, match.attributes, name=last.name)
    ir.convenience.replace_nodes_and_values(graph, last, match.nodes, [made], [match.result], made.outputs)


def reader(value: ir.Value) -> ir.Node | None:
    """The one standard node that reads `value`, however often, in the same graph; None for an output of the graph."""
    nodes = {id(use.node): use.node for use in value.uses()}
    producer = value.producer()
    if len(nodes) != 1 or value.is_graph_output() or producer is None:
        return None
    (node,) = nodes.values()
    return node if is_standard(node) and node.graph is producer.graph else None


def producer_of(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that computes `value`, if it is one of these standard operators."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types and is_standard(node) else None


def other_operand(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The operand of an Add or Mul beside `value`; `value` itself where it is both."""
    first, second = node.inputs[:2]
    return second if first is value else first


def number(value: ir.Value | None, rank: int) -> float | None:
    """A constant with one element that adds no axes to a tensor of `rank` or more axes."""
    array = constant(value)
    if array is None or array.size != 1 or array.ndim > rank or array.dtype.kind not in "fiu":
        return None
    return float(array.reshape(()))


def rank_of(value: ir.Value) -> int:
    """As far as it is known: 0 where it is not."""
    rank = None if value.shape is None else value.shape.rank()
    return 0 if rank is None else rank
