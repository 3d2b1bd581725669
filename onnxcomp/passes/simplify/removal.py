"""Nodes that do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from onnxcomp.model.shapes import trusted
from onnxcomp.ops.attributes import constant, int_attribute, ints_attribute, is_standard
from onnxcomp.passes.simplify.edits import Finding, Scope, bypass, can_bypass, edit, skip
from onnxcomp.report.reasons import Reason


def _dropout(node: ir.Node) -> bool:
    """Inference only, and nobody reads the mask."""
    training = node.inputs[2] if len(node.inputs) > 2 else None
    mode = constant(training)
    mask_used = any(v.uses() or v.is_graph_output() for v in node.outputs[1:])
    return (training is None or (mode is not None and not mode.any())) and not mask_used


def _same_shape(node: ir.Node) -> bool:
    """Expand, Tile or Reshape to the shape that the input has already."""
    before, after = trusted(node.inputs[0]), trusted(node.outputs[0])
    return before is not None and after is not None and before.is_static() and before == after


def _identity_transpose(node: ir.Node) -> bool:
    perm = ints_attribute(node, "perm", ())
    return bool(perm) and list(perm) == list(range(len(perm)))


def _same_dtype(node: ir.Node) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype is not None and int(source.dtype) == int_attribute(node, "to", 0)


def _no_pads(node: ir.Node) -> bool:
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return pads is not None and not pads.any()


def _one_operand(node: ir.Node) -> bool:
    return len(node.inputs) == 1


DOES_NOTHING: dict[str, Callable[[ir.Node], bool]] = {
    "Identity": lambda node: True,
    "Dropout": _dropout,
    "Cast": _same_dtype,
    "Transpose": _identity_transpose,
    "Reshape": _same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Pad": _no_pads,
    "Concat": _one_operand,
    "Sum": _one_operand,
    "Mean": _one_operand,
    "Max": _one_operand,
    "Min": _one_operand,
}
"""Operator → whether this node returns its first input unchanged."""


def remove_idle(model: ir.Model, scope: Scope) -> Iterator[Finding]:
    """Removes nodes that return their input, in place."""
    for node in tuple(model.graph):
        test = DOES_NOTHING.get(node.op_type) if is_standard(node) else None
        source = node.inputs[0] if node.inputs else None
        if test is None or source is None or node.name in scope.excluded or not test(node):
            continue
        if can_bypass(node, source):
            bypass(node, source)
            yield edit(node, "removed", "it changes nothing")
        else:
            yield skip(node, Reason.GRAPH_OUTPUT, "it gives an output of the model its name")
