"""Constant folding: nodes whose inputs are constants, and arithmetic on the known part of shapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, int_attribute, is_constant, is_standard
from onnxcomp.ops.evaluator import CannotEvaluate, evaluate
from onnxcomp.passes.simplify.edits import replace_by_constant

DEFAULT_LIMIT = 2**20
"""Elements of a folded result at most (a 76-byte ConstantOfShape can ask for 64 GiB)."""

NEVER = frozenset({"QuantizeLinear", "DequantizeLinear", "RandomNormal", "RandomUniform", "Multinomial"})


def fold_constants(
    model: ir.Model, excluded: frozenset[str], limit: int = DEFAULT_LIMIT
) -> Iterator[tuple[ir.Node, str]]:
    """Evaluates what is constant, front to back, in place; yields each folded node with a sentence.

    A result larger than `limit` elements stays, unless it is no larger than the inputs that it replaces.
    """
    for node in tuple(model.graph):
        if node.name in excluded or node.op_type in NEVER or not is_standard(node) or not node.outputs:
            continue
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            continue
        results = _shape_results(node) or _results(node, limit)
        if results is None:
            continue
        replaced = [replace_by_constant(node, i, array) for i, array in enumerate(results)]
        if all(replaced):
            model.graph.remove(node, safe=True)
            yield node, f"{node.op_type} computed ahead of time"


def _results(node: ir.Node, limit: int) -> list[np.ndarray] | None:
    if (
        not node.inputs
        or not all(v is None or is_constant(v) for v in node.inputs)
        or all(v is None for v in node.inputs)
    ):
        return None
    try:
        return evaluate(node, [constant(v) for v in node.inputs], limit)
    except CannotEvaluate:
        return None


def _shape_results(node: ir.Node) -> list[np.ndarray] | None:
    """Shape and Size of known shapes, and Gather or Slice that pick known dimensions of partly known ones."""
    source = node.inputs[0] if node.inputs else None
    if source is None:
        return None
    if node.op_type in ("Shape", "Size"):
        dims = known_dims(source)
        if dims is None or None in dims:
            return None
        if node.op_type == "Size":
            return [np.asarray(int(np.prod(dims)), np.int64)]  # type: ignore[arg-type]
        return [np.asarray(_window(node, dims), np.int64)]
    producer = source.producer()
    if producer is None or producer.op_type != "Shape" or not is_standard(producer) or producer.inputs[0] is None:
        return None
    dims = known_dims(producer.inputs[0])
    if dims is None or node.op_type not in ("Gather", "Slice"):
        return None
    # −1 stands for "unknown": sizes are never negative, so it can't be mistaken for one.
    table = np.asarray([-1 if d is None else d for d in _window(producer, dims)], np.int64)
    others = [constant(v) for v in node.inputs[1:]]
    if any(o is None for o in others):
        return None
    try:
        picked = evaluate(node, [table, *others], len(table) + 1)
    except CannotEvaluate:
        return None
    return picked if (picked[0] >= 0).all() else None


def known_dims(value: ir.Value) -> list[int | None] | None:
    """The shape with None for dynamic dimensions; None if the rank is unknown."""
    return None if value.shape is None else [d if isinstance(d, int) else None for d in value.shape]


def _window(node: ir.Node, dims: list[int | None]) -> list[int | None]:
    """`start` and `end` of Shape (opset 15)."""
    end = int_attribute(node, "end", len(dims)) if "end" in node.attributes else len(dims)
    return dims[int_attribute(node, "start", 0) : end]
