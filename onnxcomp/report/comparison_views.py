"""Two models side by side, in a terminal of 80 columns and in Markdown."""

from __future__ import annotations

import re

from rich.console import Group, RenderableType
from rich.text import Text

from onnxcomp.report import comparison_figures as figures
from onnxcomp.report.comparison import ModelComparison
from onnxcomp.report.markdown import benchmark_markdown, rendered
from onnxcomp.report.structures import Verdict
from onnxcomp.report.terminal import STYLES, benchmark_table, fidelity_table, note_lines, plain_table
from onnxcomp.report.text import printable

OPERATORS = ("operator", "A", "B", "MACs A", "MACs B", "weights A", "weights B")
KERNELS = ("kernel", "A", "B", "ms A", "ms B")
LAYERS = ("value", "operator", "‖a−b‖²/‖a‖²", "")

TEMPLATE = """\
### onnxcomp compare

{{ p(c.sentence()) }}

| | A: {{ p(c.names[0]) }} | B: {{ p(c.names[1]) }} | |
|---|---:|---:|---:|
{% for row in totals %}| {{ row | map("cell") | join(" | ") }} |
{% endfor %}
{% for line in basis %}* {{ p(line) }}
{% endfor %}{% for n in c.notes %}* {{ "**!**" if n.level == "warning" else "·" }} {{ p(n.sentence) }}
{% endfor %}
| output | cosine | SQNR | max abs. difference | arg-max agrees |
|---|---:|---:|---:|---:|
{% for f in c.fidelity %}| {{ p(f.output) }} | {{ "%.5f" % f.cosine }} | {{ "%.1f dB" % f.sqnr_db }} | \
{{ "%.3g" % f.max_abs }} | {{ "" if f.top1_agreement is none else "%.2f %%" % (100 * f.top1_agreement) }} |
{% endfor %}
{% for head, rows in tables %}| {{ head | map("cell") | join(" | ") }} |
|---|{{ "---:|" * (head | length - 1) }}
{% for row in rows %}| {{ row | map("cell") | join(" | ") }} |
{% endfor %}
{% endfor %}{% if inside %}{{ p(inside) }}
{% endif %}"""


def comparison_table(c: ModelComparison, *, verbose: bool = False) -> RenderableType:
    """Totals, operators, outputs, latency, kernels, values inside, and what must not stay silent."""
    most = None if verbose else figures.MAX_ROWS
    parts: list[RenderableType] = [
        Text(f"A  {printable(c.names[0], 70)}\nB  {printable(c.names[1], 70)}"),
        plain_table(("", "A", "B", ""), figures.totals(c)),
        plain_table(OPERATORS, figures.operator_rows(c, most)),
        fidelity_table(c.fidelity),
        benchmark_table(c.benchmark),
        plain_table(KERNELS, figures.kernel_rows(c, most)),
    ]
    if c.layers is not None:
        if c.layers.layers:
            parts.append(plain_table(LAYERS, figures.layer_rows(c.layers, most)))
        parts.append(Text(figures.layer_line(c.layers), "dim"))
    parts += [Text(line, "dim") for line in figures.basis_lines(c)]
    if c.notes:
        parts += [Text(), note_lines(c.notes)]
    return Group(*parts)


def comparison_line(c: ModelComparison) -> Text:
    """`COMPARED  small.onnx beside m.onnx: 3.66 × smaller, …`."""
    return Text.assemble(("COMPARED", STYLES[Verdict.DONE]), f"  {printable(c.sentence(), 2000)}")


def comparison_markdown(c: ModelComparison) -> str:
    """GitHub-flavoured Markdown; names from the models can't break out of their cells."""
    layers = c.layers
    tables = [(OPERATORS, figures.operator_rows(c)), (KERNELS, figures.kernel_rows(c))]
    if layers is not None and layers.layers:
        tables.append((LAYERS, figures.layer_rows(layers)))
    text = rendered(
        TEMPLATE,
        c=c,
        totals=list(figures.totals(c)),
        basis=list(figures.basis_lines(c)),
        tables=tables,
        inside="" if layers is None else figures.layer_line(layers),
    )
    return re.sub(r"\n{3,}", "\n\n", f"{text.rstrip()}\n\n{benchmark_markdown(c.benchmark)}").rstrip() + "\n"
