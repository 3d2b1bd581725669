"""Where words go: data to stdout, everything else to stderr; colour, width and progress as the terminal wants them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from onnxcomp.errors import UsageError, WriteError
from onnxcomp.report.structures import Report


def console(*, stderr: bool, no_color: bool) -> Console:
    """A console that obeys --no-color, NO_COLOR, CI and TERM=dumb; 80 columns where there is no terminal."""
    plain = no_color or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 100
    return Console(
        stderr=stderr, no_color=plain, highlight=False, width=width, soft_wrap=False, emoji=False, markup=True
    )


@contextmanager
def progress(values: dict[str, Any]) -> Iterator[Any]:
    """A callback (stage, done, total) that draws bars on stderr; in a pipe or under CI it prints each stage once."""
    if values.get("quiet"):
        yield lambda stage, done, total: None
        return
    err = console(stderr=True, no_color=values.get("no_color", False))
    if not err.is_terminal or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        seen: set[str] = set()

        def line(stage: str, done: int, total: int | None) -> None:
            if stage not in seen:
                seen.add(stage)
                err.print(f"· {stage}", style="dim")

        yield line
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(stage: str, done: int, total: int | None) -> None:
            for other, task in list(tasks.items()):
                if other != stage:
                    bars.remove_task(task)
                    del tasks[other]
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield draw


def show(report: Report, values: dict[str, Any]) -> None:
    """The report on stdout in the chosen format, the files of --report, and the verdict as the last line of stderr."""
    from onnxcomp.report.terminal import print_report, verdict_line

    for path in values.get("reports", ()):
        write_report(report, path)
    kind = values.get("format_", "table")
    out = console(stderr=False, no_color=values.get("no_color", False))
    if kind != "table":
        sys.stdout.write(_text(report, "json" if kind == "json" else "md"))
    elif not values.get("quiet"):
        print_report(report, out, verbose=bool(values.get("verbose")))
    sys.stdout.flush()
    if not values.get("quiet"):
        console(stderr=True, no_color=values.get("no_color", False)).print(verdict_line(report))


def check_reports(values: dict[str, Any]) -> None:
    """Refuses report paths that could not be written, before any work is done."""
    for path in values.get("reports", ()):
        if path.suffix not in (".json", ".md"):
            raise UsageError(f"--report {path}: the suffix {path.suffix!r} is no format", hint="use .json or .md")
        if not path.absolute().parent.is_dir():
            raise WriteError(f"--report {path}: the folder does not exist", hint="make it first")


def write_report(report: Report, path: Path) -> None:
    """Writes the report atomically.

    Raises:
        WriteError: It can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(_text(report, path.suffix[1:]), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(f"report {path} can't be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _text(report: Report, kind: str) -> str:
    from onnxcomp.report.markdown import markdown

    return report.model_dump_json(by_alias=True, indent=2) + "\n" if kind == "json" else markdown(report)
