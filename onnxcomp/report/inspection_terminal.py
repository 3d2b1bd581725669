"""An inspection as a terminal of 80 columns shows it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from onnxcomp.report.inspection import Inspection, Prospect
from onnxcomp.report.inspection_figures import (
    NODE_HEADER,
    OPERATOR_HEADER,
    PROSPECT_HEADER,
    Order,
    headline,
    left_lines,
    node_rows,
    opening,
    operator_rows,
    prospect_rows,
    tensor_lines,
)
from onnxcomp.report.structures import Note
from onnxcomp.report.tables import figure_table
from onnxcomp.report.terminal import note_lines
from onnxcomp.report.text import printable

MAX_REASONS = 6


def render_inspection(found: Inspection, *, nodes: Order | None = None, verbose: bool = False) -> RenderableType:
    """The tables and findings. `nodes`: a table of them too, in this order; `verbose`: nothing is cut."""
    findings = [Note(level=f.level, sentence=f.sentence) for f in found.findings]
    parts: list[RenderableType] = [
        Text(printable(found.model.name, 76), "bold"),
        Text(headline(found)),
        *(Text(line, "dim") for line in tensor_lines(found)),
        note_lines([*findings, *found.notes]),
        figure_table(OPERATOR_HEADER, operator_rows(found, None) if verbose else operator_rows(found)),
    ]
    if nodes is not None:
        rows = node_rows(found, nodes)
        parts.append(figure_table(NODE_HEADER, rows, words=3))
    parts.append(figure_table(PROSPECT_HEADER, prospect_rows(found)))
    parts += [_prospect(p, None if verbose else MAX_REASONS) for p in found.prospects]
    elsewhere = "" if found.target_is_host else " (not this machine)"
    run = "the model was run once" if found.executed else "nothing was run"
    parts.append(Text(f"for target {found.target}{elsewhere}; {run}; {found.duration_s:.1f} s", "dim"))
    return Group(*parts)


def _prospect(prospect: Prospect, most: int | None) -> RenderableType:
    lines = [Text(printable(line, 200)) for line in prospect.detail]
    lines += [Text(line, "dim") for line in left_lines(prospect, most)]
    head = Text(opening(prospect), "bold" if not prospect.not_examined else "yellow")
    return Group(head, *(Padding(line, (0, 0, 0, 2), expand=False) for line in lines))
