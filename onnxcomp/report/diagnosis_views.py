"""A diagnosis in a terminal and as Markdown."""

from __future__ import annotations

from collections import Counter

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from onnxcomp.report.diagnosis import Diagnosis, Status
from onnxcomp.report.markdown import rendered
from onnxcomp.report.text import printable

MARKS: dict[Status, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "warning": ("!", "bold yellow"),
    "problem": ("✗", "bold red"),
}

TEMPLATE = """\
### onnxcomp doctor

| | check | found | what to do |
|---|---|---|---|
{% for c in d.checks %}| {{ c.status }} | {{ p(c.name) }} | {{ p(c.found) }} | {{ p(c.advice) }} |
{% endfor %}"""


def render_diagnosis(found: Diagnosis) -> RenderableType:
    """A line for each check; what to do under what was found."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in found.checks:
        mark, style = MARKS[check.status]
        word = mark if check.status == "ok" else f"{mark} {check.status}"
        told = Text(printable(check.found, 400))
        if check.advice:
            told.append(f"\n→ {printable(check.advice, 400)}", style)
        table.add_row(Text(word, style), Text(check.name), told)
    return table


def closing_line(found: Diagnosis) -> Text:
    """READY, or NOT READY with how many problems."""
    counts = Counter(check.status for check in found.checks)
    told = ", ".join(f"{counts[s]} {s}{'s' * (counts[s] > 1)}" for s in ("problem", "warning") if counts[s])
    if found.exit_code:
        return Text.assemble(("NOT READY", "bold red"), f"  {told}: see what to do above")
    return Text.assemble(("READY", "bold green"), f"  {told or 'everything is in order'}")


def diagnosis_markdown(found: Diagnosis) -> str:
    """GitHub-flavoured Markdown."""
    return rendered(TEMPLATE, d=found)
