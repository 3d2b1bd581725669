"""What the rules say of each node, and the small graph edits that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import new_initializer
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Record, Skip

Action = Literal[
    "folded into weights",
    "folded into the weights behind it",
    "folded into padding",
    "computed ahead of time",
    "written as one operator",
    "written as pooling",
    "written as a rectifier",
    "kept apart from its norm",
    "removed",
    "merged",
]


class Edit(Record):
    """One edit: the node that goes or changes, and what becomes of it."""

    node: str
    op_type: str
    action: Action
    sentence: str


@dataclass(frozen=True)
class Scope:
    """What the rules may do.

    Args:
        excluded: Names of nodes that stay as they are.
        fold_limit: Largest folded constant, in elements; what replaces constants as large may be larger.
        growth: A folded constant may have this many bytes more than the constants that it replaces.
        provider: Execution provider of the target.
    """

    excluded: frozenset[str]
    fold_limit: int
    growth: int
    provider: str


Finding = Edit | Skip
Rule = Callable[[ir.Model, Scope], Iterator[Finding]]
"""Edits the main graph in place; yields what it did, and what it would have done but for a reason."""


def edit(node: ir.Node, action: Action, sentence: str) -> Edit:
    return Edit(node=node.name or "", op_type=node.op_type, action=action, sentence=sentence)


def skip(node: ir.Node, code: Reason, sentence: str) -> Skip:
    return Skip(node=node.name or "", op_type=node.op_type, code=code, sentence=sentence)


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value` once, if it is no output of the graph and the node is in the same graph."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = next(iter(uses)).node
    producer = value.producer()
    return node if producer is not None and node.graph is producer.graph else None


def can_bypass(node: ir.Node, source: ir.Value) -> bool:
    """Whether `bypass` would leave the names of the graph's inputs and outputs as they are."""
    if not node.outputs[0].is_graph_output():
        return True
    producer = source.producer()
    return producer is not None and producer.graph is node.graph and not source.is_graph_output()


def bypass(node: ir.Node, source: ir.Value) -> None:
    """Removes `node`: whoever read its first output reads `source`, which must pass `can_bypass`."""
    output = node.outputs[0]
    assert node.graph is not None
    if output.is_graph_output():
        name = output.name
        output.replace_all_uses_with(source, replace_graph_outputs=True)
        output.name, source.name = f"{name}.bypassed", name
        source.shape, source.type = output.shape, output.type or source.type
    else:
        output.replace_all_uses_with(source)
    node.graph.remove(node, safe=True)


def replace_by_constants(node: ir.Node, arrays: list[np.ndarray[Any, Any]]) -> None:
    """Removes `node`: whoever read its outputs, none of which is an output of the graph, reads initializers."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    for output, array in zip(node.outputs, arrays, strict=True):
        if output.uses():
            output.replace_all_uses_with(new_initializer(graph, output.name or node.op_type, array))
    graph.remove(node, safe=True)
