"""`--only` and `--exclude`: which nodes a pass may touch."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir

from onnxcomp.ops.attributes import is_constant, qualified
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.text import printable


def left_out(node: ir.Node, only: Sequence[str], exclude: Sequence[str]) -> Reason | None:
    """None if the node is selected; otherwise which option leaves it out. Patterns are globs of names or operators.

    >>> left_out(ir.node("Conv", [ir.val("x")], name="stem"), only=(), exclude=("st*",))
    <Reason.EXCLUDED: 'excluded'>
    """
    if any(_matches(node, pattern) for pattern in exclude):
        return Reason.EXCLUDED
    return Reason.NOT_SELECTED if only and not any(_matches(node, pattern) for pattern in only) else None


def no_weight(
    node: ir.Node, only: Sequence[str], exclude: Sequence[str], quantized: str = "is quantised already"
) -> tuple[Reason, str] | None:
    """Why a node that multiplies by its second input is left alone: not selected, or that is no constant weight.

    Args:
        quantized: What to say of a weight that is quantised.
    """
    reason = left_out(node, only, exclude)
    if reason is not None:
        return reason, DESCRIPTIONS[reason]
    source, weight = (*node.inputs, None, None)[:2]
    if source is None or weight is None:
        return Reason.UNSUPPORTED_FORM, "an input is missing"
    name = repr(printable(weight.name or ""))
    producer = weight.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return Reason.ALREADY_QUANTIZED, f"weight {name} {quantized}"
    if not is_constant(weight):
        if is_constant(source):
            return Reason.UNSUPPORTED_FORM, "the constant is the first operand"
        if node.op_type == "MatMul":
            return Reason.TWO_ACTIVATIONS, "both operands are computed at run time"
        return Reason.NOT_CONSTANT, f"weight {name} is computed at run time"
    return None


def unselected(model: ir.Model, only: Sequence[str], exclude: Sequence[str]) -> frozenset[str]:
    """Names of the nodes that the options leave out."""
    if not only and not exclude:
        return frozenset()
    return frozenset(n.name or "" for n in model.graph if left_out(n, only, exclude) is not None)


def unmatched(model: ir.Model, patterns: Sequence[str]) -> list[str]:
    """Patterns that match no node at all: most likely a typing error."""
    nodes = list(model.graph.all_nodes())
    return [pattern for pattern in patterns if not any(_matches(node, pattern) for node in nodes)]


def _matches(node: ir.Node, pattern: str) -> bool:
    # A node whose name has brackets is matched by its name, although it is no glob of itself.
    return node.name == pattern or any(fnmatchcase(name, pattern) for name in (node.name or "", qualified(node)))
