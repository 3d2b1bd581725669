"""What a verb shows: the report on stdout as --format says, the files of --report, the verdict last on stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxcomp.cli.console import console
from onnxcomp.errors import UsageError, WriteError
from onnxcomp.report.files import write_file

if TYPE_CHECKING:
    from onnxcomp.driver.result import Result
    from onnxcomp.report.comparison import ModelComparison
    from onnxcomp.report.inspection import Inspection
    from onnxcomp.report.structures import Benchmark, Record, Report


def show(report: Report, values: Mapping[str, Any]) -> None:
    """The report where it was asked for, and the verdict. Warnings are repeated on stderr if stdout goes elsewhere."""
    from onnxcomp.report.terminal import note_lines, render, verdict_line

    for path in values["reports"]:
        write_report(report, path)
    no_color, kind, quiet = values["no_color"], values["format_"], values["quiet"]
    err = console(stderr=True, no_color=no_color)
    if kind in FORMATS:
        write_stdout(FORMATS[kind](report))
    elif kind == "table" and not quiet:
        _print(render(report, verbose=bool(values["verbose"])), no_color)
    if not quiet:
        warnings = [n for n in report.notes if n.level == "warning"]
        if warnings and (kind != "table" or not _one_place()):
            err.print(note_lines(warnings))
        err.print(verdict_line(report), soft_wrap=True)


def show_plan(result: Result, output: Path | None, values: Mapping[str, Any]) -> None:
    """What a dry run found: the plan itself with -o or as JSON, else the table of what it would do."""
    assert result.plan is not None
    text = json_text(result.plan, indent=1)
    if output is not None:
        write_file(output, text, "plan")
    report = result.report if output is None else result.report.model_copy(update={"result_path": str(output)})
    if values["format_"] == "json" and output is None:
        write_stdout(text)
        values = {**values, "format_": "none"}
    show(report, values)


def show_benchmark(result: Benchmark, values: Mapping[str, Any]) -> None:
    """The table of `bench`, and whether it can be trusted."""
    from onnxcomp.report.markdown import benchmark_markdown
    from onnxcomp.report.terminal import benchmark_line, benchmark_table

    no_color, kind = values["no_color"], values["format_"]
    if kind == "json":
        write_stdout(json_text(result))
    elif kind == "markdown":
        write_stdout(benchmark_markdown(result))
    else:
        _print(benchmark_table(result), no_color)
    if not values["quiet"]:
        console(stderr=True, no_color=no_color).print(benchmark_line(result), soft_wrap=True)


def show_comparison(result: ModelComparison, values: Mapping[str, Any]) -> None:
    """The table of `compare`, its report files, and in one line what came out."""
    from onnxcomp.report.comparison_views import comparison_line, comparison_table

    no_color, kind = values["no_color"], values["format_"]
    for path in values["reports"]:
        write_file(path, COMPARISON_SUFFIXES[path.suffix](result), "report")
    if kind in COMPARISON_FORMATS:
        write_stdout(COMPARISON_FORMATS[kind](result))
    elif not values["quiet"]:
        _print(comparison_table(result, verbose=bool(values["verbose"])), no_color)
    if not values["quiet"]:
        from onnxcomp.report.terminal import note_lines

        err = console(stderr=True, no_color=no_color)
        warnings = [n for n in result.notes if n.level == "warning"]
        if warnings and (kind != "table" or not _one_place()):
            err.print(note_lines(warnings))
        err.print(comparison_line(result), soft_wrap=True)


def check_reports(values: Mapping[str, Any], suffixes: Iterable[str] = ()) -> None:
    """Refuses report paths that could not be written, before any work is done.

    Args:
        suffixes: That the verb can write; by default those of a report.

    Raises:
        UsageError: The suffix names no format of reports.
        WriteError: It is a folder, lies in none, or is another file of the same command.
    """
    others = [values.get(name) for name in ("output", "plan", "sensitivity", "recipe")]
    taken = {os.path.realpath(path) for path in others if path is not None}
    for path in values["reports"]:
        if os.path.realpath(path) in taken:
            raise WriteError(f"--report {path} is another file of this command", hint="name another one")
        taken.add(os.path.realpath(path))
        known = tuple(suffixes or SUFFIXES)
        if path.suffix not in known:
            near = get_close_matches(path.suffix, known, 1)
            raise UsageError(
                f"--report {path}: no report is written as {path.suffix or 'a file without suffix'}",
                hint="".join(f"did you mean {n}? " for n in near)
                + f"the suffix chooses the format: {', '.join(known)}",
            )
        if path.is_dir():
            raise WriteError(f"--report {path} is a folder", hint="name a file in it")
        if not path.absolute().parent.is_dir():
            raise WriteError(f"--report {path}: the folder does not exist", hint="make it first")


def write_report(report: Report, path: Path) -> None:
    """Writes the report as its suffix says.

    Raises:
        WriteError: It can't be written.
    """
    write_file(path, SUFFIXES[path.suffix](report), "report")


def write_stdout(text: str) -> None:
    """Writes data to stdout. A reader that went away is no error.

    Raises:
        WriteError: stdout can't take it, as on a full disk.
    """
    if sys.stdout is None:  # the caller closed it
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        raise WriteError(f"the report can't be written to stdout: {error.strerror or error}") from error


def _one_place() -> bool:
    """Whether stdout and stderr end in the same terminal, file or pipe, as in a CI log."""
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))
    except (AttributeError, OSError, ValueError):  # closed, or replaced by an object without a file
        return False


def _print(renderable: Any, no_color: bool) -> None:
    out = console(stderr=False, no_color=no_color)
    out.file = held = io.StringIO()  # colours and width are those of stdout; rich's own capture still writes to it
    out.print(renderable)
    write_stdout("".join(f"{line.rstrip(' ')}\n" for line in held.getvalue().splitlines()))  # tables pad their lines


print_renderable = _print
"""For records of other verbs."""


def _discard_stdout() -> None:
    """What is still in the buffer must not fail again when Python exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def json_text(record: Record, indent: int = 2) -> str:
    """A record as JSON that is harmless in a terminal, with its arrays of numbers on one line each."""
    from onnxcomp.report.text import harmless_json, on_one_line

    return harmless_json(on_one_line(record.model_dump_json(by_alias=True, indent=indent))) + "\n"


def _markdown(report: Report) -> str:
    from onnxcomp.report.markdown import markdown

    return markdown(report)


def html(record: Report | ModelComparison | Inspection) -> str:
    """The page of a record."""
    from onnxcomp.report.html import render

    return render(record)


def _comparison_markdown(result: ModelComparison) -> str:
    from onnxcomp.report.comparison_views import comparison_markdown

    return comparison_markdown(result)


FORMATS: Mapping[str, Callable[[Report], str]] = {"json": json_text, "markdown": _markdown}
SUFFIXES: Mapping[str, Callable[[Report], str]] = {".html": html, ".json": json_text, ".md": _markdown}
COMPARISON_FORMATS: Mapping[str, Callable[[ModelComparison], str]] = {
    "json": json_text,
    "markdown": _comparison_markdown,
}
COMPARISON_SUFFIXES: Mapping[str, Callable[[ModelComparison], str]] = {
    ".html": html,
    ".json": json_text,
    ".md": _comparison_markdown,
}
