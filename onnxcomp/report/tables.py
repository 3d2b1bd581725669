"""The tables of an inspection: words to the left, figures to the right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text


def figure_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> Table:
    """A table whose first columns are words; nothing is cut, a name too long goes on in the next line."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(header):
        figures = index >= words
        table.add_column(name, justify="right" if figures else "left", overflow="fold", no_wrap=figures)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
