"""Operators in numpy: what constant folding needs. For shapes, weights and small tables, not for activations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import is_standard
from onnxcomp.ops.evaluations import DTYPES, EVALUATIONS, Array, CannotEvaluate, Evaluation, Inputs, TooLarge

__all__ = ["EVALUATIONS", "CannotEvaluate", "TooLarge", "evaluate", "move"]


def evaluate(node: ir.Node, arrays: Inputs, max_elements: int) -> list[Array]:
    """The outputs of `node` on constant inputs.

    Args:
        node: A node of ai.onnx, opset ≥ 7.
        arrays: Its inputs in order; None for an omitted one.
        max_elements: Refuse results with more elements than this, before computing them.

    Raises:
        TooLarge: More elements than allowed.
        CannotEvaluate: No rule, or an unsupported form.
    """
    rule = EVALUATIONS.get(node.op_type) if is_standard(node) else None
    if rule is None:
        raise CannotEvaluate(f"no rule for {node.op_type}")
    if any(a is not None and a.dtype not in DTYPES for a in arrays):
        raise CannotEvaluate(f"{node.op_type} on strings or sub-byte numbers")
    return _outputs(node, rule, arrays, max_elements)


def move(node: ir.Node, labels: Inputs, max_elements: int) -> list[Array]:
    """The outputs of an operator that only moves elements, on inputs of dtype object; for the rest as `evaluate`."""
    rule = EVALUATIONS.get(node.op_type) if is_standard(node) else None
    if rule is None or not rule.moves:
        raise CannotEvaluate(f"{node.op_type} does more than move elements")
    return _outputs(node, rule, labels, max_elements)


def _outputs(node: ir.Node, rule: Evaluation, arrays: Inputs, max_elements: int) -> list[Array]:
    try:
        elements = rule.size(node, arrays)
        if elements > max_elements:
            raise TooLarge(f"its result has {elements:,} elements")
        with np.errstate(all="ignore"):
            result = rule.function(node, arrays)
    # What numpy says of operands that no valid model has; the runtime will say it better.
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise CannotEvaluate(f"{node.op_type}: {error}") from error
    outputs = result if isinstance(result, list) else [result]
    if len(outputs) != len(node.outputs):
        raise CannotEvaluate(f"{node.op_type} with {len(node.outputs)} outputs")
    return [np.asarray(o, order="C") for o in outputs]
