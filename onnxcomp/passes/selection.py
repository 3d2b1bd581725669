"""`--only` and `--exclude`: which nodes a pass may touch."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir

from onnxcomp.ops.attributes import qualified
from onnxcomp.report.reasons import Reason


def left_out(node: ir.Node, only: Sequence[str], exclude: Sequence[str]) -> Reason | None:
    """None if the node is selected; otherwise which option leaves it out. Patterns are globs of names or operator types.

    >>> left_out(ir.node("Conv", [ir.val("x")], name="stem"), only=(), exclude=("st*",))
    <Reason.EXCLUDED: 'excluded'>
    """

    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(node.name or "", p) or fnmatchcase(qualified(node), p) for p in patterns)

    if matches(exclude):
        return Reason.EXCLUDED
    return Reason.NOT_SELECTED if only and not matches(only) else None


def unselected(model: ir.Model, only: Sequence[str], exclude: Sequence[str]) -> frozenset[str]:
    """Names of the nodes that the options leave out."""
    if not only and not exclude:
        return frozenset()
    return frozenset(n.name or "" for n in model.graph if left_out(n, only, exclude) is not None)


def unmatched(model: ir.Model, patterns: Sequence[str]) -> list[str]:
    """Patterns that match no node at all: most likely a typing error."""
    nodes = list(model.graph.all_nodes())
    return [p for p in patterns if not any(fnmatchcase(n.name or "", p) or fnmatchcase(qualified(n), p) for n in nodes)]
