"""The pictures of a report: bars, a strip over the graph, columns of kept channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from markupsafe import Markup

from onnxcomp.report.html.svg import picture, tag
from onnxcomp.report.structures import Channels, Stretch

MAX_STRETCHES = 1500
MAX_COLUMNS = 400
FEW_COLUMNS = 10
"""Fewer say nothing that the table does not."""


def bar(value: float, full: float, css: str, interval: tuple[float, float] | None = None) -> Markup:
    """A bar of `value` on a scale that ends at `full`; `interval`: where the value lies at 95 %, as a whisker."""
    share = _share(value, full)
    shapes = [tag("rect", x=0, y=0, width=100 * share, height=10, class_=css)]
    if interval is not None:
        low, high = (100 * _share(end, full) for end in interval)
        path = f"M{low:.2f} 5H{high:.2f}M{low:.2f} 2V8M{high:.2f} 2V8"
        shapes.append(tag("path", d=path, class_="whisker"))
    return picture(100, 10, *shapes, css="bar")


def share_bar(value: float, full: float, css: str = "after") -> Markup:
    """A part of a whole, on a track that shows the whole."""
    track = tag("rect", x=0, y=0, width=100, height=10, class_="track")
    return picture(
        100, 10, track, tag("rect", x=0, y=0, width=100 * _share(value, full), height=10, class_=css), css="bar"
    )


def kept_bar(size: int, kept: int, largest: int) -> Markup:
    """Channels that stay and channels that go, as long as the layer is wide beside the widest."""
    whole, part = 100 * _share(size, largest), 100 * _share(kept, largest)
    return picture(
        100,
        10,
        tag("rect", x=0, y=0, width=whole, height=10, class_="gone"),
        tag("rect", x=0, y=0, width=part, height=10, class_="after"),
        css="bar",
    )


def columns(cells: Sequence[Channels]) -> Markup:
    """How much of each cell stays, in the order of the graph; empty for a few cells or far too many."""
    if not FEW_COLUMNS <= len(cells) <= MAX_COLUMNS:
        return Markup("")
    shapes: list[Markup] = []
    for index, cell in enumerate(cells):
        kept = 100 * _share(cell.kept, cell.size)
        title = tag("title", f"{cell.name}: {cell.kept} of {cell.size} channels kept")
        shapes.append(tag("rect", title, x=index + 0.12, y=0, width=0.76, height=100, class_="gone"))
        shapes.append(tag("rect", title, x=index + 0.12, y=100 - kept, width=0.76, height=kept, class_="after"))
    label = f"Share of the channels that stays, for {len(cells)} cells in the order of the graph"
    return picture(len(cells), 100, *shapes, css="columns", label=label)


def strip(stretches: Sequence[Stretch], by: Literal["nodes", "macs"]) -> Markup:
    """The graph from its inputs to its outputs: what runs in integers, and what in floats.

    Args:
        by: What a length stands for: the number of nodes, or their multiply-accumulates.
    """
    widths = [float(getattr(s, by)) for s in stretches]
    total = sum(widths)
    if not total or len(stretches) > MAX_STRETCHES:
        return Markup("")
    shapes, x = [], 0.0
    for stretch, width in zip(stretches, widths, strict=True):
        length = 1000 * width / total
        if length:
            title = tag("title", _stretch(stretch))
            css = "int8" if stretch.integer else "float"
            shapes.append(tag("rect", title, x=x, y=0, width=length, height=10, class_=css))
        x += length
    label = f"{integer_share(stretches, by):.0%} of the {WORDS[by]} in integers, in the order of the graph"
    return picture(1000, 10, *shapes, css="strip", label=label)


WORDS = {"nodes": "nodes", "macs": "MACs"}


def integer_share(stretches: Iterable[Stretch], by: Literal["nodes", "macs"]) -> float:
    """Share of the nodes, or of the multiply-accumulates, that run in integers."""
    weights = [(s.integer, int(getattr(s, by))) for s in stretches]
    return sum(w for integer, w in weights if integer) / (sum(w for _, w in weights) or 1)


def _stretch(s: Stretch) -> str:
    where = s.first if s.first == s.last else f"{s.first} … {s.last}"
    return f"{'INT8' if s.integer else 'float'}: {s.nodes} node{'' if s.nodes == 1 else 's'}, {where}"


def _share(value: float, full: float) -> float:
    return min(max(value / full, 0.0), 1.0) if full else 0.0
