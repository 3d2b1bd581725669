"""Where words go: data to stdout, everything else to stderr; colour, width and progress as the terminal wants them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from onnxcomp.cli.help import plain

WIDTH = 80
Progress = Callable[[str, int, int | None], None]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the program with 1, which means a failed gate here; the job's own exit code shall stand."""
        self.quiet = True


def console(*, stderr: bool, no_color: bool) -> Console:
    """A console that obeys --no-color, NO_COLOR and TERM=dumb: there its text has no control codes at all.

    As wide as the terminal, in a pipe as COLUMNS says, and never below 80 columns: cut figures are worse than wrapped.
    """
    stream = (sys.stderr if stderr else sys.stdout) or io.StringIO()  # None when the caller closed it
    columns = os.environ.get("COLUMNS", "")
    result = _Console(
        file=stream,
        color_system=None if no_color or plain() else "auto",
        highlight=False,
        markup=False,
        emoji=False,
        width=None if stream.isatty() else int(columns) if columns.isdecimal() else WIDTH,
    )
    result.width = max(result.width, WIDTH)
    return result


@contextmanager
def progress(values: Mapping[str, Any]) -> Iterator[Progress]:
    """A callback (stage, done, total) that draws a bar on stderr; in a pipe or under CI it prints each stage once."""
    err = console(stderr=True, no_color=bool(values.get("no_color")))
    if values.get("quiet"):
        yield lambda stage, done, total: None
    elif not err.file.isatty() or err.is_dumb_terminal or os.environ.get("CI"):
        yield _lines(err)
    else:
        with _bars(err) as callback:
            yield callback


def _lines(err: Console) -> Progress:
    seen: set[str] = set()

    def line(stage: str, done: int, total: int | None) -> None:
        if stage not in seen:
            seen.add(stage)
            err.print(Text(f"· {stage}", "dim"))

    return line


@contextmanager
def _bars(err: Console) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=err, transient=True) as bars:
        current: tuple[str, TaskID] | None = None

        def draw(stage: str, done: int, total: int | None) -> None:
            nonlocal current
            if current is None or current[0] != stage:
                if current is not None:
                    bars.remove_task(current[1])
                current = stage, bars.add_task(stage, total=total)
            bars.update(current[1], completed=done, total=total)

        yield draw
