"""Two pictures of choices: a range on an activation's histogram, a rank on a layer's spectrum."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import log1p, log10
from typing import NamedTuple

from markupsafe import Markup

from onnxcomp.report.html.svg import picture, tag
from onnxcomp.report.structures import ActivationRange, Layer

WIDTH, HEIGHT = 1000.0, 100.0
"""Units of a picture, which is stretched to the room that it gets."""

FAINTEST = 1e-4
"""Share of the energy at which a spectrum ends below."""


class Block(NamedTuple):
    """A part of a histogram's bin, between two values; `height`: 0 to 1, `clipped`: beyond the range."""

    left: float
    right: float
    height: float
    clipped: bool


def blocks(r: ActivationRange) -> Iterator[Block]:
    """The bins that hold values, on a logarithmic scale of counts; a bin that an end of the range cuts is two."""
    full = log1p(max(r.counts, default=0)) or 1.0
    low, high = r.chosen
    for index, count in enumerate(r.counts):
        if not count:
            continue
        # The first and the last bin reach further than what was seen.
        left, right = max(r.start + index * r.width, r.low), min(r.start + (index + 1) * r.width, r.high)
        edges = sorted({left, right, *(end for end in (low, high) if left < end < right)})
        for start, end in pairwise(edges):
            middle = (start + end) / 2
            yield Block(start, end, log1p(count) / full, not low <= middle <= high)


def histogram(r: ActivationRange) -> Markup:
    """What was seen, with the range that is represented behind it and what lies beyond in another colour: faint where
    the operator that alone reads it flattens that too."""
    low, high = r.chosen
    first, last = min(r.low, low), max(r.high, high)
    width = (last - first) or 1.0

    def x(value: float) -> float:
        return WIDTH * (value - first) / width

    found = list(blocks(r))
    ends = f"M{x(low):.1f} 0V{HEIGHT:g}M{x(high):.1f} 0V{HEIGHT:g}"
    shapes = [tag("rect", x=x(low), y=0, width=x(high) - x(low), height=HEIGHT, class_="track")]
    for css, wanted in (("after", False), ("clipped" if r.clipped or not r.through else "flat", True)):
        outline = "".join(
            f"M{x(b.left):.1f} {HEIGHT:g}V{HEIGHT * (1 - 0.94 * b.height):.1f}H{x(b.right):.1f}V{HEIGHT:g}Z"
            for b in found
            if b.clipped is wanted
        )
        if outline:
            shapes.append(tag("path", d=Markup(outline), class_=css))
    shapes.append(tag("path", d=ends, class_="whisker"))
    label = f"Histogram of {r.name}, with the range that is represented"
    return picture(WIDTH, HEIGHT, *shapes, css="histogram", label=label)


def spectrum(layer: Layer) -> Markup:
    """Share of the energy that each rank loses, from all of it down to `FAINTEST` on a logarithmic scale, with the
    rank that was chosen and the one at which two factors are as large as the whole."""
    full = max(layer.ranks, default=1)

    def x(rank: float) -> float:
        return WIDTH * min(rank / full, 1.0)

    points = [
        (0.0, 0.0),
        *((x(rank), _depth(1 - kept)) for rank, kept in zip(layer.ranks, layer.energies, strict=True)),
    ]
    line = "L".join(f"{left:.1f} {down:.1f}" for left, down in points)
    shapes = [
        tag("path", d=Markup(f"M{line}V{HEIGHT:g}H0Z"), class_="gone"),
        tag("path", d=Markup(f"M{line}"), class_="line"),
        tag("path", d=f"M{x(layer.break_even):.1f} 0V{HEIGHT:g}", class_="even"),
    ]
    told = f"break-even at rank {layer.break_even:.0f} of {full}"
    if layer.rank is not None:
        shapes.append(tag("path", d=f"M{x(layer.rank):.1f} 0V{HEIGHT:g}", class_="chosen"))
        told = f"rank {layer.rank} loses {1 - layer.energy:.2g} of the energy, {told}"
    return picture(WIDTH, HEIGHT, *shapes, css="spectrum", label=f"Spectrum of {layer.name}: {told}")


def _depth(lost: float) -> float:
    return HEIGHT * min(log10(max(lost, FAINTEST)) / log10(FAINTEST), 1.0)
