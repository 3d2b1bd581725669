"""The pages: a template, filled, with its style, its script, and a policy that allows nothing else.

Whatever a model, a recipe or a file name brings is text: every expression of the template goes through `printable`
(no control or hidden characters), then through the escaping of Jinja2; pictures escape in `svg.tag`. Should something
get through all the same, the policy still lets no script run and nothing load but the ones whose digest it names.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from types import ModuleType

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from onnxcomp.report import comparison_figures, figures, inspection_figures
from onnxcomp.report.comparison import ModelComparison
from onnxcomp.report.html import curves, headlines, models, pictures, sections, words
from onnxcomp.report.html.svg import tag
from onnxcomp.report.inspection import Inspection
from onnxcomp.report.structures import Record, Report
from onnxcomp.report.text import printable

PAGES: Mapping[type[Record], str] = {
    Report: "report.html",
    ModelComparison: "comparison.html",
    Inspection: "inspection.html",
}
"""Templates; each one fills the frame `base.html`."""

MODULES: Mapping[str, ModuleType] = {
    "compared": comparison_figures,
    "curves": curves,
    "figures": figures,
    "headlines": headlines,
    "looked": inspection_figures,
    "models": models,
    "pictures": pictures,
    "sections": sections,
    "words": words,
}
"""What the templates call."""

MAX_TEXT = 2000
"""Characters of one text; a longer one keeps its beginning and its end."""

_FOLDER = files(__package__ or "")


def render(record: Report | ModelComparison | Inspection) -> str:
    """One file for a browser, offline: light and dark, on paper, on a phone, by keyboard and without JavaScript.

    The same record gives the same bytes. Parts that it has nothing for are left out.
    """
    style, script = _read("style.css"), _read("script.js")
    page = _environment().get_template(PAGES[type(record)])
    return page.render(r=record, policy=policy(style, script), style=Markup(style), script=Markup(script)).lstrip()


def policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which one style sheet and one script work, and nothing is ever fetched.

    >>> policy("", "")[:33]
    "default-src 'none'; style-src 'sh"
    """
    allowed = {"style-src": _digest(style), "script-src": _digest(script), "img-src": "data:"}
    rules = ["default-src 'none'", *(f"{kind} {source}" for kind, source in allowed.items())]
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    environment.globals.update(MODULES)
    return environment


def prose(text: str) -> Markup:
    """A sentence in which commands stand between backticks.

    >>> prose("`onnxcomp doctor` says <more>")
    Markup('<code>onnxcomp doctor</code> says &lt;more&gt;')
    """
    parts = re.split(r"`([^`]+)`", printable(text, MAX_TEXT))
    return Markup("").join(tag("code", part) if index % 2 else escape(part) for index, part in enumerate(parts))


def _shown(value: object) -> object:
    return value if isinstance(value, Markup) else printable(value, MAX_TEXT)


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
