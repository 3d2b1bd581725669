"""The report for a pull-request comment or a CI summary: the verdict and its figures open, the rest folded."""

from __future__ import annotations

import re
from collections.abc import Iterator

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
from onnxcomp.report.structures import Benchmark, OutputFidelity, Report
from onnxcomp.report.text import printable

MAX_OUTPUTS = 12

REPORT = """\
### onnxcomp {{ r.command }}: {{ r.verdict.value }}

{{ p(r.sentence) }}{% if r.result_path %} → {{ p(r.result_path) }}{% endif %}

{% for g in r.gates %}* {{ "✓" if g.passed else "✗" }} {{ p(g.name) }} is {{ "%.4f" % g.value }}, \
wanted {{ p(g.wanted) }}
{% endfor %}{% for n in notes(r, "warning") %}* **!** {{ p(n.sentence) }}
{% endfor %}

| | {{ "reference | model" if r.command == "verify" else "before | after" }} | |
|---|---:|---:|---:|
{% for row in rows(r) %}| {{ row | map("cell") | join(" | ") }} |
{% endfor %}
{% if r.fidelity %}| output | cosine | SQNR | max abs. difference | arg-max agrees |
|---|---:|---:|---:|---:|
{% for f in outputs(r) %}| {{ p(f.output) }} | {{ "%.5f" % f.cosine }} | {{ "%.1f dB" % f.sqnr_db }} | \
{{ "%.3g" % f.max_abs }} | {{ "" if f.top1_agreement is none else "%.2f %%" % (100 * f.top1_agreement) }} |
{% endfor %}{% if r.fidelity | length > max_outputs %}
… and {{ r.fidelity | length - max_outputs }} outputs that are closer: see the JSON report
{% endif %}{% endif %}
<sub>{% for line in data(r) %}{{ p(line) }}{{ "; " if not loop.last }}{% endfor %}</sub>

{% if r.steps %}<details><summary>Steps: \
{% for s in r.steps %}{{ plain(s.name) }} {{ s.status.value }}{{ ", " if not loop.last }}{% endfor %}</summary>

{% for s in r.steps %}* **{{ p(s.name) }}**: {{ s.status.value }}, {{ p(s.why) }}
{% for line in s.summary %}  * {{ p(line) }}
{% endfor %}{% for row in cells(s, 12) %}  * {{ p(row[0]) }}: {{ row[2] }} of {{ row[1] }} channels kept
{% endfor %}{% for row in layers(s, 12) %}  * {{ p(row[0]) }} ({{ row[1] }}): rank {{ row[2] }}, break-even at \
{{ row[3] }}, {{ row[4] }} of its energy kept
{% endfor %}{% for line in skips(s, 8) %}  * {{ p(line) }}
{% endfor %}{% endfor %}
</details>
{% endif %}{% if operators(r) %}<details><summary>Operators whose number changed: {{ operators(r) | length }}</summary>

| operator | before | after |
|---|---:|---:|
{% for row in operators(r) %}| {{ row | map("cell") | join(" | ") }} |
{% endfor %}
</details>
{% endif %}<details><summary>Versions and digests</summary>

{% for name, version in r.versions.items() %}* {{ p(name) }} {{ p(version) }}
{% endfor %}{% for name, sha in digests(r) %}* {{ name }} {{ p(sha) }}
{% endfor %}{% for n in notes(r, "info") %}* {{ p(n.sentence) }}
{% endfor %}
</details>
"""

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
        notes=lambda r, level: [note for note in r.notes if note.level == level],
        outputs=_outputs,
        max_outputs=MAX_OUTPUTS,
        digests=_digests,
        plain=printable,  # Markdown does not look into a summary
        rows=summary_rows,
        data=data_lines,
        skips=skip_lines,
        operators=changed_operators,
        cells=channel_rows,
        layers=layer_rows,
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _outputs(report: Report) -> list[OutputFidelity]:
    """The outputs in their order; of a great many the least close ones."""
    if len(report.fidelity) <= MAX_OUTPUTS:
        return list(report.fidelity)
    return sorted(report.fidelity, key=lambda f: f.cosine)[:MAX_OUTPUTS]


def _digests(report: Report) -> Iterator[tuple[str, str]]:
    """(what, SHA-256) of the models and the data."""
    held = (
        ("reference" if report.command == "verify" else "original", report.source),
        ("model" if report.command == "verify" else "result", report.result),
        ("calibration feeds", report.calibration),
        ("evaluation feeds", report.evaluation),
    )
    return ((name, facts.sha256) for name, facts in held if facts is not None and facts.sha256)


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
