"""What `inspect` and `doctor` show: the record on stdout as --format says, and in the files of --report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from onnxcomp.cli.console import console
from onnxcomp.cli.show import html, json_text, print_renderable, write_stdout
from onnxcomp.report.files import write_file

if TYPE_CHECKING:
    from onnxcomp.report.diagnosis import Diagnosis
    from onnxcomp.report.inspection import Inspection
    from onnxcomp.report.inspection_figures import Order
    from onnxcomp.report.structures import Record

KINDS = {".html": "html", ".json": "json", ".md": "markdown"}
DIAGNOSIS_SUFFIXES = (".json", ".md")


def show_inspection(found: Inspection, nodes: Order | None, values: Mapping[str, Any]) -> None:
    """The tables and findings; warnings are part of them."""
    from onnxcomp.report.inspection_markdown import inspection_markdown
    from onnxcomp.report.inspection_terminal import render_inspection

    def table() -> object:
        return render_inspection(found, nodes=nodes, verbose=bool(values["verbose"]))

    _show(found, table, lambda: inspection_markdown(found, nodes), values, page=lambda: html(found))


def show_diagnosis(found: Diagnosis, values: Mapping[str, Any]) -> None:
    """A line for each check, and what to do; what it comes to goes last to stderr."""
    from onnxcomp.report.diagnosis_views import closing_line, diagnosis_markdown, render_diagnosis

    _show(found, lambda: render_diagnosis(found), lambda: diagnosis_markdown(found), values)
    if not values["quiet"]:
        console(stderr=True, no_color=values["no_color"]).print(closing_line(found), soft_wrap=True)


def _show(
    record: Record,
    table: Callable[[], object],
    markdown: Callable[[], str],
    values: Mapping[str, Any],
    page: Callable[[], str] | None = None,
) -> None:
    texts: dict[str, Callable[[], str]] = {"json": lambda: json_text(record), "markdown": markdown}
    texts |= {} if page is None else {"html": page}
    for path in values["reports"]:
        write_file(path, texts[KINDS[path.suffix]](), "report")
    if values["format_"] in texts:
        write_stdout(texts[values["format_"]]())
    elif not values["quiet"]:
        print_renderable(table(), values["no_color"])
