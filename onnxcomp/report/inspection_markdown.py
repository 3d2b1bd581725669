"""An inspection for a pull-request comment or a CI summary."""

from __future__ import annotations

from onnxcomp.report.inspection import Inspection
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
from onnxcomp.report.markdown import rendered

TEMPLATE = """\
### onnxcomp inspect: {{ p(i.model.name) }}

{{ p(head) }}

{% for line in tensors %}* {{ p(line) }}
{% endfor %}{% for f in i.findings %}* {{ "**!**" if f.level == "warning" else "·" }} {{ p(f.sentence) }}
{% endfor %}{% for n in i.notes %}* {{ "**!**" if n.level == "warning" else "·" }} {{ p(n.sentence) }}
{% endfor %}
{% for header, words, rows in tables %}| {{ header | map("cell") | join(" | ") }} |
|{{ "---|" * words }}{{ "---:|" * (header | length - words) }}
{% for row in rows %}| {{ row | map("cell") | join(" | ") }} |
{% endfor %}
{% endfor %}{% for s in i.prospects %}* **{{ p(opening(s)) }}**
{% for line in s.detail %}  * {{ p(line) }}
{% endfor %}{% for line in reasons(s, 8) %}  * {{ p(line) }}
{% endfor %}{% endfor %}"""


def inspection_markdown(found: Inspection, nodes: Order | None = None) -> str:
    """GitHub-flavoured Markdown; `nodes`: with a table of them, in this order."""
    tables: list[tuple[tuple[str, ...], int, list[tuple[str, ...]]]] = [(OPERATOR_HEADER, 1, operator_rows(found))]
    if nodes is not None:
        tables.append((NODE_HEADER, 3, node_rows(found, nodes)))
    tables.append((PROSPECT_HEADER, 1, prospect_rows(found)))
    text = rendered(
        TEMPLATE,
        i=found,
        head=headline(found),
        tensors=list(tensor_lines(found)),
        tables=tables,
        opening=opening,
        reasons=left_lines,
    )
    return text.rstrip() + "\n"
