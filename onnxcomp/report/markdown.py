"""The report for a pull-request comment or a CI summary."""

from __future__ import annotations

import re

from jinja2 import Environment, StrictUndefined

from onnxcomp.report.figures import (
    changed_operators,
    channel_rows,
    data_lines,
    layer_rows,
    measured_on,
    skip_lines,
    summary_rows,
)
from onnxcomp.report.structures import Benchmark, Report
from onnxcomp.report.text import printable

REPORT = """\
### onnxcomp {{ r.command }}: {{ r.verdict.value }}

{{ p(r.sentence) }}{% if r.result_path %} → {{ p(r.result_path) }}{% endif %}

| | {{ "reference | model" if r.command == "verify" else "before | after" }} | |
|---|---:|---:|---:|
{% for row in rows(r) %}| {{ row | map("cell") | join(" | ") }} |
{% endfor %}
{% for line in data(r) %}* {{ p(line) }}
{% endfor %}
{% if r.fidelity %}| output | cosine | SQNR | max abs. difference | arg-max agrees |
|---|---:|---:|---:|---:|
{% for f in r.fidelity %}| {{ p(f.output) }} | {{ "%.5f" % f.cosine }} | {{ "%.1f dB" % f.sqnr_db }} | \
{{ "%.3g" % f.max_abs }} | {{ "" if f.top1_agreement is none else "%.2f %%" % (100 * f.top1_agreement) }} |
{% endfor %}
{% endif %}{% for g in r.gates %}* {{ "✓" if g.passed else "✗" }} {{ p(g.name) }} is {{ "%.4f" % g.value }}, \
wanted {{ p(g.wanted) }}
{% endfor %}{% for n in r.notes %}* {{ "**!**" if n.level == "warning" else "·" }} {{ p(n.sentence) }}
{% endfor %}
{% for s in r.steps %}* **{{ p(s.name) }}**: {{ s.status.value }}, {{ p(s.why) }}
{% for line in s.summary %}  * {{ p(line) }}
{% endfor %}{% for row in cells(s, 12) %}  * {{ p(row[0]) }}: {{ row[2] }} of {{ row[1] }} channels kept
{% endfor %}{% for row in layers(s, 12) %}  * {{ p(row[0]) }} ({{ row[1] }}): rank {{ row[2] }}, break-even at \
{{ row[3] }}, {{ row[4] }} of its energy kept
{% endfor %}{% for line in skips(s, 8) %}  * {{ p(line) }}
{% endfor %}{% endfor %}
{% if operators(r) %}| operator | before | after |
|---|---:|---:|
{% for row in operators(r) %}| {{ row | map("cell") | join(" | ") }} |
{% endfor %}{% endif %}"""

BENCHMARK = """\
| model | p10 | median | p90 | p99 | speed-up |
|---|---:|---:|---:|---:|---:|
{% for name, l in b.latency.items() %}| {{ p(name) }} | \
{{ "%.3f | %.3f | %.3f | %.3f" % (l.p10, l.median, l.p90, l.p99) }} | \
{% if name in b.speedup %}{{ "%.2f (%.2f–%.2f)" % ((b.speedup[name],) + b.interval[name]) }}{% else %}1.00{% endif %} |
{% endfor %}
{{ b.verdict }}: milliseconds, {{ p(where) }}{% if b.reason %}; {{ p(b.reason) }}{% endif %}
"""


def markdown(report: Report) -> str:
    """GitHub-flavoured Markdown. Names from the model can't break out of their cell, nor format, nor link."""
    text = rendered(
        REPORT,
        r=report,
        rows=summary_rows,
        data=data_lines,
        skips=skip_lines,
        operators=changed_operators,
        cells=channel_rows,
        layers=layer_rows,
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def benchmark_markdown(result: Benchmark) -> str:
    """The table of `bench`."""
    return rendered(BENCHMARK, b=result, where=measured_on(result))


def rendered(template: str, **values: object) -> str:
    """A template with its values; what comes from a model goes through the filter `cell` or the function `p`."""
    # autoescape turns < > & into entities, which Markdown shows as they were meant.
    environment = Environment(undefined=StrictUndefined, autoescape=True, keep_trailing_newline=True)
    environment.filters["cell"] = _cell
    return environment.from_string(template).render(p=_cell, **values)


def _cell(text: object) -> str:
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", printable(text, 600))
