"""An inspection as words and rows, which the terminal and Markdown share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from onnxcomp.report.figures import count_macs, reason_lines, size
from onnxcomp.report.inspection import Dims, Inspection, NodeRow, OperatorRow, Prospect, TensorFacts
from onnxcomp.report.structures import Skip
from onnxcomp.report.text import plural, printable

Order = Literal["macs", "graph"]

OPERATOR_HEADER = ("operator", "nodes", "MACs", "share", "weights", "share")
NODE_HEADER = ("node", "operator", "output", "MACs", "share", "weights", "share")
PROSPECT_HEADER = ("pass", "could change", "of MACs", "of weights", "left alone")

NAME, OPERATOR, SHAPE = 20, 12, 15
"""Widths with which the table of nodes fits 80 columns."""

MAX_OPERATORS = 20
MAX_TENSORS = 6


def all_macs(found: Inspection) -> str:
    """Of one call, as far as shapes are known."""
    total = sum(row.macs for row in found.operators)
    return count_macs(total) if total or not found.model.macs_unknown else "unknown"


def headline(found: Inspection) -> str:
    """`4.75 MB, 1,171,841 parameters, 23.1 M MACs, 330 nodes`."""
    facts = found.model
    macs, known = all_macs(found), facts.macs_unknown == 0
    without = "" if known or macs == "unknown" else f" (without {plural(facts.macs_unknown, 'node')})"
    counted = f"{macs} MACs{without}"
    return f"{size(facts.bytes)}, {facts.parameters:,} parameters, {counted}, {plural(facts.nodes, 'node')}"


def tensor_lines(found: Inspection) -> Iterator[str]:
    """Inputs and outputs: `input x: float 1×3×224×224`."""
    for word, tensors in (("input", found.inputs), ("output", found.outputs)):
        for tensor in tensors[:MAX_TENSORS]:
            yield f"{word} {printable(tensor.name, 40)}: {_tensor(tensor)}"
        if len(tensors) > MAX_TENSORS:
            yield f"… {len(tensors) - MAX_TENSORS} {word}s more"


def operator_rows(found: Inspection, most: int | None = MAX_OPERATORS) -> list[tuple[str, ...]]:
    """(operator, nodes, MACs, share, weights, share), the most costly first; those without either may be summed up."""
    macs, held = _totals(found.operators)
    rows: list[tuple[str, ...]] = [
        (
            printable(row.op_type, 24),
            f"{row.nodes:,}",
            counted(row.macs, row.uncounted),
            share(row.macs, macs),
            size(row.weight_bytes) if row.weight_bytes else "",
            share(row.weight_bytes, held),
        )
        for row in found.operators[:most]
    ]
    left = found.operators[len(rows) :]
    if left:
        rows.append((f"… {len(left)} types more", f"{sum(row.nodes for row in left):,}", "", "", "", ""))
    return rows


def node_rows(found: Inspection, order: Order, most: int | None = None) -> list[tuple[str, ...]]:
    """(node, operator, output, MACs, share, weights, share) in the order of the graph, or the most costly first."""
    macs, held = _totals(found.nodes)
    nodes: Sequence[NodeRow] = found.nodes
    if order == "macs":
        nodes = sorted(nodes, key=lambda n: (-(n.macs or 0), -n.weight_bytes))
    return [
        (
            printable(n.name, NAME),
            printable(n.op_type, OPERATOR),
            printable(dims_text(n.shape), SHAPE),
            counted(n.macs or 0, n.macs is None),
            share(n.macs or 0, macs),
            size(n.weight_bytes) if n.weight_bytes else "",
            share(n.weight_bytes, held),
        )
        for n in nodes[:most]
    ]


def prospect_rows(found: Inspection) -> list[tuple[str, ...]]:
    """(pass, nodes it could change, share of the MACs, of the bytes of weights, nodes left alone)."""
    return [
        (p.name, "not examined", "", "", "")
        if p.not_examined
        else (p.name, _nodes(len(p.nodes)), _share(p.macs_share), _share(p.bytes_share), _left(p.skips))
        for p in found.prospects
    ]


def opening(prospect: Prospect) -> str:
    """`static INT8 (onnxcomp quantize --mode static)`, and why it was not examined."""
    head = f"{prospect.name} (onnxcomp {prospect.command})"
    return f"{head}: not examined, {prospect.not_examined}" if prospect.not_examined else head


def left_lines(prospect: Prospect, most: int | None) -> list[str]:
    """Why the model as a whole is left alone, or nodes by reason, at most `most` reasons; without a limit by name."""
    whole = [f"nothing can be done [{s.code}] {printable(s.sentence, 300)}" for s in prospect.skips if not s.node]
    return whole + reason_lines([s for s in prospect.skips if s.node], most)


def dims_text(shape: Dims | None) -> str:
    """1×3×N; `?` for what is unknown.

    >>> dims_text((1, "N", None))
    '1×N×?'
    """
    if shape is None:
        return "?"
    return "×".join("?" if d is None else str(d) for d in shape) or "scalar"


def share(part: int, whole: int) -> str:
    """Per cent with one digit; nothing where there is nothing."""
    return f"{100 * part / whole:.1f}%" if part and whole else ""


def counted(macs: int, unknown: int | bool) -> str:
    """Multiply-accumulates of which some may be unknown; nothing where there are none."""
    if unknown:
        return f"> {count_macs(macs)}" if macs else "unknown"
    return count_macs(macs) if macs else ""


def _share(part: float | None) -> str:
    return "none" if part is None else f"{100 * part:.1f}%"


def _nodes(count: int) -> str:
    return plural(count, "node") if count else "nothing"


def _left(skips: Sequence[Skip]) -> str:
    return _nodes(len(skips)) if all(s.node for s in skips) else "all of it"


def _tensor(tensor: TensorFacts) -> str:
    return f"{tensor.dtype} {printable(dims_text(tensor.shape), 120)}"


def _totals(rows: Iterable[NodeRow | OperatorRow]) -> tuple[int, int]:
    counted = [(row.macs or 0, row.weight_bytes) for row in rows]
    return sum(macs for macs, _ in counted), sum(held for _, held in counted)
