"""How large a model becomes when its functions are inlined: forty that call each other twice make 10¹² nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter

import onnx

from onnxcomp.model.naming import subgraphs

Key = tuple[str, str, str]


def inlined_nodes(proto: onnx.ModelProto) -> int:
    """Nodes of the graph, those of its subgraphs included, with every call replaced by the nodes of its function.

    Args:
        proto: With functions that don't call themselves, directly or through others.
    """
    bodies = {(f.domain, f.name, f.overload): list(_calls(f.node)) for f in proto.functions}
    sizes: dict[Key, int] = {}
    for key in TopologicalSorter({key: set(calls) & bodies.keys() for key, calls in bodies.items()}).static_order():
        sizes[key] = sum(sizes.get(call, 1) for call in bodies[key])
    return sum(sizes.get(call, 1) for call in _calls(proto.graph.node))


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[Key]:
    """What each node names as its operator, which may be a function."""
    for node in nodes:
        yield node.domain, node.op_type, node.overload
        for graph in subgraphs(node):
            yield from _calls(graph.node)
