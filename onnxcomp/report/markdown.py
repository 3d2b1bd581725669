"""The report for a pull-request comment or a CI summary."""

from __future__ import annotations

from jinja2 import Environment, StrictUndefined

from onnxcomp.report.structures import Report
from onnxcomp.report.terminal import skip_lines
from onnxcomp.report.text import printable

TEMPLATE = """\
### onnxcomp {{ r.command }}: {{ r.verdict.value }}

{{ p(r.sentence) }}

| | before | after |
|---|---:|---:|
| size | {{ "%.2f MB" % (r.source.bytes / 1e6) }} | {{ "%.2f MB" % (r.result.bytes / 1e6) }} |
| parameters | {{ "{:,}".format(r.source.parameters) }} | {{ "{:,}".format(r.result.parameters) }} |
| nodes | {{ r.source.nodes }} | {{ r.result.nodes }} |
{% if r.benchmark %}| latency p10, {{ r.benchmark.threads }} threads{{ " (UNSTABLE)" if r.benchmark.verdict == "UNSTABLE" }} |\
{% for l in r.benchmark.latency.values() %} {{ "%.3f ms" % l.p10 }} |{% endfor %}
{% endif %}{% if r.metric %}| {{ p(r.metric.name) }} (n={{ r.metric.samples }}) | {{ "%.4f" % r.metric.before }} | {{ "%.4f" % r.metric.after }} |
{% endif %}{% for f in r.fidelity %}| output {{ p(f.output) }} | | cosine {{ "%.5f" % f.cosine }}, SQNR {{ "%.1f" % f.sqnr_db }} dB |
{% endfor %}
{% for s in r.steps %}* **{{ s.name }}**: {{ s.status.value }} — {{ p(s.why) }}
{% for line in skips(s.skips, 6) %}  * {{ p(line) }}
{% endfor %}{% endfor %}{% for n in r.notes %}{% if n.level == "warning" %}> {{ p(n.sentence) }}
{% endif %}{% endfor %}
"""


def markdown(report: Report) -> str:
    """GitHub-flavoured Markdown. Names from the model can't break out of their cell."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=False, autoescape=True)
    return environment.from_string(TEMPLATE).render(r=report, p=_cell, skips=skip_lines)


def _cell(text: object) -> str:
    return printable(text, 400).replace("|", "\\|").replace("`", "'").replace("[", "\\[")
