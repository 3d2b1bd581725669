"""Constant folding: nodes whose inputs are constants, and arithmetic on the known part of shapes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, is_constant, is_standard, new_initializer
from onnxcomp.ops.evaluator import CannotEvaluate, TooLarge, evaluate
from onnxcomp.passes.simplify.edits import Finding, Scope, edit, replace_by_constants, skip
from onnxcomp.passes.simplify.labels import Labels, dimensions, reshape_target
from onnxcomp.report.reasons import Reason

DEFAULT_LIMIT = 2**20
"""Elements of a folded result at most (a 76-byte ConstantOfShape can ask for 64 GiB)."""

BUDGET = 2**27
"""Elements of all folded results together at most, above those of the model's own constants."""

Array = np.ndarray[Any, Any]
Results = dict[ir.Node, list[Array]]
"""What constant nodes compute, in topological order."""


def fold_constants(model: ir.Model, scope: Scope) -> Iterator[Finding]:
    """Evaluates what is constant, in place; also targets of Reshape that are known up to a copied dimension.

    A result with more elements than the limit and its inputs stays, and so does what would make the file larger.
    """
    labels = Labels()
    results: Results = {}
    budget = BUDGET + sum(v.const_value.size for v in model.graph.initializers.values() if v.const_value is not None)
    for node in tuple(model.graph):
        # Identity would become a copy of its constant; it is removed instead.
        if node.name in scope.excluded or not is_standard(node) or node.op_type == "Identity":
            continue
        labels.see(node)
        target = reshape_target(node, labels) if node.op_type == "Reshape" else None
        if target is not None:
            node.replace_input_with(1, new_initializer(model.graph, f"{node.outputs[0].name}.target", target))
            yield edit(node, "computed ahead of time", "its target shape is computed ahead of time")
        known = _known(node, labels)
        try:
            arrays = known or _evaluated(node, results, scope.fold_limit, budget)
        except TooLarge as refusal:
            yield skip(node, Reason.TOO_LARGE, f"{refusal}, the limit is {min(scope.fold_limit, budget):,}")
            continue
        if arrays is None:
            continue
        if any(v.is_graph_output() for v in node.outputs):
            yield skip(node, Reason.GRAPH_OUTPUT, "it gives an output of the model, which is constant")
        elif known:
            replace_by_constants(node, arrays)
            yield edit(node, "computed ahead of time", "the shapes that it works on are known")
        else:
            results[node] = arrays
            budget -= sum(a.size for a in arrays)
    for component in _components(results, scope.growth):
        yield from _replace(component, results, scope.growth)


def _known(node: ir.Node, labels: Labels) -> list[Array] | None:
    """What comes of shapes that are known although the tensors are not."""
    if node.op_type == "Size" and node.inputs[0] is not None:
        dims = dimensions(node.inputs[0]) or [None]
        sizes = [d for d in dims if isinstance(d, int)]
        return [np.asarray(prod(sizes), np.int64)] if len(sizes) == len(dims) else None
    arrays = [array for v in node.outputs if (array := labels.numbers(v)) is not None]
    return arrays if arrays and len(arrays) == len(node.outputs) else None


def _evaluated(node: ir.Node, results: Results, limit: int, budget: int) -> list[Array] | None:
    """The results of a node whose inputs are all constant; None if they are not, or can't be computed here.

    Raises:
        TooLarge: They would have more elements than the limit, and than the inputs; or more than the budget.
    """
    arrays: list[Array | None] = []
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if value is not None and producer in results:
            arrays.append(results[producer][value.index() or 0])
        elif value is None or is_constant(value):
            arrays.append(constant(value))
        else:
            return None
    if all(a is None for a in arrays):
        return None
    try:
        distinct = {id(a): a.size for a in arrays if a is not None}
        return evaluate(node, arrays, min(budget, max(limit, sum(distinct.values()))))
    except TooLarge:
        raise
    except CannotEvaluate:
        return None


def _components(results: Results, growth: int) -> list[list[ir.Node]]:
    """Nodes that must be judged together: three slices of a weight cost three thirds of it, and free it.

    Linked by what they compute for each other, and by the constants that they share and that are worth freeing.
    """
    leader: dict[ir.Node, ir.Node] = {node: node for node in results}

    def find(node: ir.Node) -> ir.Node:
        while leader[node] is not node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    first_reader: dict[ir.Value, ir.Node] = {}
    for node in results:
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer in results:
                leader[find(node)] = find(producer)
            elif value is not None and value.const_value is not None and value.const_value.nbytes > growth:
                leader[find(node)] = find(first_reader.setdefault(value, node))
    components: dict[ir.Node, list[ir.Node]] = {}
    for node in results:
        components.setdefault(find(node), []).append(node)
    return list(components.values())


def _replace(component: list[ir.Node], results: Results, growth: int) -> Iterator[Finding]:
    """Replaces all of a component, or else as much of it, from its front, as does not make the file larger."""
    whole = _growth(component, results) <= growth
    for group in [component] if whole else [[node] for node in component]:
        inside = set(group)
        if not all(v is None or is_constant(v) or v.producer() in inside for node in group for v in node.inputs):
            continue
        added = _growth(group, results)
        if added > growth:
            yield skip(group[0], Reason.TOO_LARGE, f"its constant result would make the model {added:,} bytes larger")
            continue
        # Readers first: what only they read then needs no initializer.
        for node in reversed(group):
            replace_by_constants(node, results[node])
        yield from (edit(node, "computed ahead of time", "all its inputs are known") for node in group)


def _growth(group: list[ir.Node], results: Results) -> int:
    """Bytes of the results that are read outside the group, less those of the constants that only the group reads."""
    inside = set(group)

    def only_inside(value: ir.Value) -> bool:
        return not value.is_graph_output() and all(use.node in inside for use in value.uses())

    added = sum(
        array.nbytes
        for node in group
        for value, array in zip(node.outputs, results[node], strict=True)
        if not only_inside(value)
    )
    read = {v for node in group for v in node.inputs if v is not None and is_constant(v) and only_inside(v)}
    return added - sum(v.const_value.nbytes for v in read if v.const_value is not None)
