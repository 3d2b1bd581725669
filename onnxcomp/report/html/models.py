"""What the pages of `inspect` and `compare` show: rows for their tables, ordered and capped."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from onnxcomp.report.comparison import ModelComparison, OperatorPair
from onnxcomp.report.comparison_figures import telling
from onnxcomp.report.html.words import MAX_NODES, MAX_ROWS
from onnxcomp.report.inspection import Inspection, NodeRow, OperatorRow


def operator_pairs(c: ModelComparison) -> list[OperatorPair]:
    """The types of operators that compute, weigh or differ; capped."""
    return telling(c)[:MAX_ROWS]


def nodes(found: Inspection) -> list[tuple[int, NodeRow]]:
    """(place in the graph, node), those with most multiply-accumulates first, then most weights; capped."""
    placed = list(enumerate(found.nodes, 1))
    return sorted(placed, key=lambda p: (-(p[1].macs or 0), -p[1].weight_bytes))[:MAX_NODES]


def passes_of(found: Inspection) -> Mapping[str, str]:
    """Node → the passes that could change it, in words; empty for the others."""
    by_node: defaultdict[str, list[str]] = defaultdict(list)
    for prospect in found.prospects:
        for name in prospect.nodes:
            by_node[name].append(prospect.name)
    return defaultdict(str, {name: ", ".join(dict.fromkeys(passes)) for name, passes in by_node.items()})


def totals(rows: Sequence[NodeRow | OperatorRow]) -> tuple[int, int]:
    """(multiply-accumulates, bytes of weights) of all."""
    return sum(row.macs or 0 for row in rows), sum(row.weight_bytes for row in rows)


def kinds(rows: Sequence[tuple[int, NodeRow]]) -> list[tuple[str, int]]:
    """(operator, nodes) to choose among, the most frequent first."""
    return Counter(row.op_type for _, row in rows).most_common(MAX_ROWS)
