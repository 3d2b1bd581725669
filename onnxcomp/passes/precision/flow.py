"""What flows where: float32 values, what counts positions, the constants of masks, and connected regions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from onnxcomp.ops.attributes import bodies, constant, is_constant, is_standard
from onnxcomp.ops.halves import COUNTING, EXACT_INTEGERS, MASKING, TYPE_BLIND, Half
from onnxcomp.ops.kernels import HEAVY_OPERATORS

LARGE = 1024
"""Elements of constants that make a region worth converting by their bytes alone."""


def is_float32(value: ir.Value | None) -> bool:
    """True for a float32 tensor; sequences and optionals are none."""
    return value is not None and value.dtype == ir.DataType.FLOAT and isinstance(value.type, ir.TensorType | None)


def is_cast(node: ir.Node | None) -> bool:
    return node is not None and node.op_type == "Cast" and is_standard(node)


def takes_any(node: ir.Node) -> bool:
    """True for nodes that read 32 and 16 bits alike, and to the same effect."""
    return node.op_type in TYPE_BLIND and is_standard(node)


def handed_out(graph: ir.Graph) -> frozenset[ir.Value]:
    """Values of the graph that a body inside it gives out as its own results, which no use shows."""
    own = {*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)}
    return frozenset(own.intersection(v for node in graph for body in bodies(node) for v in _results(body)))


def _results(body: ir.Graph) -> Iterator[ir.Value]:
    yield from body.outputs
    for node in body:
        for inner in bodies(node):
            yield from _results(inner)


def counted(graph: ir.Graph) -> frozenset[ir.Node]:
    """Nodes that compute float32 values from wide integers alone: positions, sizes, times."""
    numbers: set[ir.Value] = set()
    result: set[ir.Node] = set()
    for node in graph:
        if is_cast(node):
            source = node.inputs[0]
            if source in numbers or _is_wide_integer(source):
                numbers.update(node.outputs)
            continue
        floats = [v for v in node.inputs if is_float32(v)]
        counts = node.op_type == "Range" or (
            node.op_type in COUNTING
            and any(v in numbers for v in floats)
            and all(v in numbers or is_constant(v) for v in floats)
        )
        if counts and is_standard(node) and is_float32(node.outputs[0]):
            numbers.update(node.outputs)
            result.add(node)
    return frozenset(result)


def _is_wide_integer(value: ir.Value | None) -> bool:
    dtype = None if value is None else value.dtype
    return dtype is not None and dtype.is_integer() and dtype not in EXACT_INTEGERS


def masks(graph: ir.Graph, half: Half) -> tuple[frozenset[ir.Value], frozenset[ir.Value]]:
    """Constants beyond the type that only tell a Softmax what to pass over, and the values on their way to it.

    e^(x − max) is zero for the largest negative 16-bit number as it is for −3.4e38, so such a constant can be clamped;
    as an infinity it would make NaN of a row that is masked everywhere.
    """
    constants: set[ir.Value] = set()
    way: set[ir.Value] = set()
    for value in graph.initializers.values():
        array = constant(value) if is_float32(value) else None
        if array is None or not array.size or value.is_graph_output():
            continue
        if not max(array.max(), -array.min()) > half.largest:
            continue
        found = _way_to_softmax(value)
        if found is not None:
            constants.add(value)
            way |= found
    return frozenset(constants), frozenset(way)


def _way_to_softmax(start: ir.Value) -> set[ir.Value] | None:
    """Values behind `start`; None unless all of them end in a Softmax."""
    seen, queue, arrived = {start}, deque([start]), False
    while queue:
        value = queue.popleft()
        if value.is_graph_output() or not value.uses():
            return None
        for use in value.uses():
            node = use.node
            if node.op_type == "Softmax" and is_standard(node):
                arrived = True
            elif node.op_type in MASKING and is_standard(node) and node.graph is start.graph:
                fresh = [v for v in node.outputs if v not in seen]
                seen.update(fresh)
                queue.extend(fresh)
            else:
                return None
    return seen if arrived else None


def regions(nodes: Sequence[ir.Node]) -> Iterator[list[ir.Node]]:
    """Nodes that hand values to each other, as connected sets."""
    inside = set(nodes)
    left = dict.fromkeys(nodes)
    while left:
        start = next(iter(left))
        del left[start]
        region, queue = [start], deque([start])
        while queue:
            for other in _neighbours(queue.popleft()):
                if other in inside and other in left:
                    del left[other]
                    region.append(other)
                    queue.append(other)
        yield region


def _neighbours(node: ir.Node) -> Iterator[ir.Node]:
    for value in node.inputs:
        producer = value.producer() if value is not None and is_float32(value) else None
        if producer is not None:
            yield producer
    for value in node.outputs:
        if is_float32(value):
            yield from (use.node for use in value.uses())


def is_worth(region: Sequence[ir.Node]) -> bool:
    """Whether a region computes something heavy, or holds weights."""
    if any(node.op_type in HEAVY_OPERATORS for node in region):
        return True
    weights = {v for node in region for v in node.inputs if is_constant(v) and is_float32(v)}
    return sum(v.const_value.size for v in weights if v is not None and v.const_value is not None) >= LARGE
