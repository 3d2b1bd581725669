"""Who makes each value, and who reads it: every name made once, every name that is read made by someone, no cycles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

import onnx

from onnxcomp.errors import DAMAGED, ModelError
from onnxcomp.report.text import printable

Container: TypeAlias = onnx.GraphProto | onnx.FunctionProto


@dataclass(frozen=True)
class _Body:
    """What a graph and the body of a function have in common."""

    title: str
    inputs: Sequence[str]
    initializers: Sequence[str]
    nodes: Sequence[onnx.NodeProto]
    outputs: Sequence[str]


@dataclass(frozen=True)
class _Reads:
    """What a body takes from outside.

    Args:
        free: Name → the node that reads it, for names that the body itself does not make.
        unsorted: It, or a body inside it, is not in topological order.
    """

    free: dict[str, onnx.NodeProto]
    unsorted: bool


def check_names(proto: onnx.ModelProto) -> bool:
    """Checks the names of the graph, of its subgraphs and of its functions.

    Args:
        proto: With subgraphs that don't nest deeper than Python recurses.

    Returns:
        Whether some graph is not in topological order.

    Raises:
        ModelError: A name made twice or by nobody, a cycle of nodes or of functions.
    """
    bodies = [_of_graph(proto.graph, "the graph")] + [
        _Body(f"the function '{printable(f.name)}'", list(f.input), [], list(f.node), list(f.output))
        for f in proto.functions
    ]
    unsorted = False
    for body in bodies:
        reads = _check(body)
        for name, node in reads.free.items():
            raise ModelError(
                f"{describe(node)} reads '{printable(name)}', which nothing in {body.title} makes", hint=DAMAGED
            )
        unsorted |= reads.unsorted
    _check_functions(proto)
    return unsorted


def describe(node: onnx.NodeProto) -> str:
    """How messages name a node, which may itself have no name.

    >>> describe(onnx.helper.make_node("Relu", ["x"], ["y"]))
    "the Relu that makes 'y'"
    """
    kind = printable(node.op_type) or "node without an operator"
    if node.name:
        return f"the {kind} '{printable(node.name)}'"
    return f"the {kind} that makes '{printable(node.output[0])}'" if node.output else f"a {kind} without outputs"


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies in the attributes of a node (If, Loop, Scan)."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _of_graph(graph: onnx.GraphProto, title: str) -> _Body:
    return _Body(
        title,
        [v.name for v in graph.input],
        [t.name for t in graph.initializer],
        list(graph.node),
        [v.name for v in graph.output],
    )


def _check(body: _Body) -> _Reads:
    _refuse_repeated(body.inputs, "input", body)
    _refuse_repeated(body.initializers, "initializer", body)
    # Before IR version 4 every initializer was also an input, so these two may share names; node outputs may not.
    given = {*body.inputs, *body.initializers}
    maker = _makers(body, given)
    free: dict[str, onnx.NodeProto] = {}
    unsorted = False
    needs: dict[int, set[int]] = {}
    for index, node in enumerate(body.nodes):
        read: dict[str, onnx.NodeProto] = {name: node for name in node.input if name}
        for graph in subgraphs(node):
            inner = _check(_of_graph(graph, f"a subgraph of {describe(node)}"))
            read |= inner.free
            unsorted |= inner.unsorted
        needs[index] = {maker[name] for name in read if name in maker}
        for name, reader in read.items():
            if name not in maker and name not in given:
                free.setdefault(name, reader)
    for name in body.outputs:
        if name not in maker and name not in given:
            raise ModelError(
                f"the output '{printable(name)}' of {body.title} is made by nothing inside it", hint=DAMAGED
            )
    if any(producer >= index for index, producers in needs.items() for producer in producers):
        unsorted = True
        _refuse_cycle(needs, body)
    return _Reads(free, unsorted)


def _makers(body: _Body, given: set[str]) -> dict[str, int]:
    """Value name → index of the node that makes it."""
    maker: dict[str, int] = {}
    for index, node in enumerate(body.nodes):
        for name in node.output:
            if not name:
                continue
            if name in maker or name in given:
                other = describe(body.nodes[maker[name]]) if name in maker else "an input or initializer"
                raise ModelError(
                    f"'{printable(name)}' is made twice in {body.title}: by {other} and by {describe(node)}",
                    hint=DAMAGED,
                )
            maker[name] = index
    return maker


def _refuse_repeated(names: Iterable[str], kind: str, body: _Body) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise ModelError(f"an {kind} of {body.title} has no name", hint=DAMAGED)
        if name in seen:
            raise ModelError(f"the {kind} '{printable(name)}' occurs twice in {body.title}", hint=DAMAGED)
        seen.add(name)


def _refuse_cycle(needs: dict[int, set[int]], body: _Body) -> None:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        ring = ", ".join(describe(body.nodes[index]) for index in error.args[1][:4])
        raise ModelError(f"{body.title} has a cycle, so it can't be computed: {ring}", hint=DAMAGED) from None


def _check_functions(proto: onnx.ModelProto) -> None:
    """Refuses functions defined twice, or that call themselves, directly or through others: inlining would not end."""
    calls: dict[tuple[str, str, str], set[tuple[str, str, str]]] = {}
    for function in proto.functions:
        key = (function.domain, function.name, function.overload)
        if key in calls:
            raise ModelError(f"the function '{printable(function.name)}' is defined twice", hint=DAMAGED)
        calls[key] = set(_callees(function.node))
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        raise ModelError(
            f"the function '{printable(error.args[1][0][1])}' calls itself, directly or through others",
            hint=DAMAGED,
        ) from None


def _callees(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str, str]]:
    for node in nodes:
        yield node.domain, node.op_type, node.overload
        for graph in subgraphs(node):
            yield from _callees(graph.node)
