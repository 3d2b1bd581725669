"""Operators that exporters write as arithmetic, recognised as the one operator that they are.

Left apart, the reductions of a layer norm lock every residual stream for pruning, and ONNX Runtime fuses only some of
the forms. Each operator exists from some opset on: the model is lifted to it, or the arithmetic is left as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from onnxcomp.model.patterns import gelu, layer_norm
from onnxcomp.model.patterns.match import Match, Pattern, write
from onnxcomp.ops.attributes import is_standard

PATTERNS: tuple[Pattern, ...] = (layer_norm.PATTERN, gelu.PATTERN)


def recognise(model: ir.Model) -> Counter[str]:
    """Rewrites what is recognised in the main graph, in place; how many of each operator.

    Only operators that the model's opset has (see `needed_opsets`). Shapes must be fresh; they are not refreshed.
    """
    found: Counter[str] = Counter()
    opset = model.opset_imports.get("", 0)
    for pattern in PATTERNS:
        for match in _matches(model.graph, pattern) if pattern.opset <= opset else ():
            write(match)
            found[match.op_type] += 1
    return found


def needed_opsets(model: ir.Model) -> tuple[int, ...]:
    """Opsets of the operators that would be recognised, the highest first."""
    needed = {p.opset for p in PATTERNS if next(_matches(model.graph, p), None) is not None}
    return tuple(sorted(needed, reverse=True))


def _matches(graph: ir.Graph, pattern: Pattern) -> Iterator[Match]:
    """In topological order; the graph may be rewritten between two of them."""
    for node in tuple(graph):
        if node.op_type in pattern.anchors and is_standard(node) and node.graph is graph:
            match = pattern.match(node)
            if match is not None:
                yield match
