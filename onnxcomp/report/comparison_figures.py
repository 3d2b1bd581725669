"""The figures of a comparison as words, which the terminal and Markdown share. A comes first."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, log10

from onnxcomp.report.comparison import ModelComparison, OperatorPair
from onnxcomp.report.figures import factor, feeds_line, macs, size
from onnxcomp.report.structures import LayerPairs
from onnxcomp.report.text import printable

MAX_ROWS = 12
RESCALED = 0.1
"""Relative error from which on a value may well mean something else: equalised channels, smoothed activations."""

Rows = list[tuple[str, ...]]


def totals(c: ModelComparison) -> Iterator[tuple[str, str, str, str]]:
    """(what, A, B, change)."""
    yield "size", size(c.a.bytes), size(c.b.bytes), factor(c.a.bytes, c.b.bytes, "smaller")
    more = factor(c.a.parameters, c.b.parameters, "fewer")
    yield "parameters", f"{c.a.parameters:,}", f"{c.b.parameters:,}", more
    yield "weights", size(c.a.weight_bytes), size(c.b.weight_bytes), ""
    yield "MACs", macs(c.a.macs), macs(c.b.macs), factor(c.a.macs or 0, c.b.macs or 0, "fewer")
    yield "nodes", f"{c.a.nodes:,}", f"{c.b.nodes:,}", ""
    yield "opset", str(c.a.opset), str(c.b.opset), ""
    if c.metric is not None:
        change = f"{0.0 - c.metric.drop:+.4f}"
        yield printable(c.metric.name, 24), f"{c.metric.before:.4f}", f"{c.metric.after:.4f}", change


def telling(c: ModelComparison) -> list[OperatorPair]:
    """The types of operators that compute, weigh or differ."""
    return [o for o in c.operators if any(o.macs) or None in o.macs or any(o.bytes) or o.nodes[0] != o.nodes[1]]


def operator_rows(c: ModelComparison, most: int | None = MAX_ROWS) -> Rows:
    """(operator, nodes of A, of B, MACs of A, of B, weights of A, of B): what computes, weighs or differs."""
    pairs = telling(c)
    rows: Rows = [
        (
            printable(o.operator, 40),
            *map(str, o.nodes),
            *("" if m == 0 else macs(m) for m in o.macs),
            *("" if b == 0 else size(b) for b in o.bytes),
        )
        for o in pairs[:most]
    ]
    return rows + _more(len(pairs) - len(rows), "type", 6)


def kernel_rows(c: ModelComparison, most: int | None = MAX_ROWS) -> Rows:
    """(kernel, how many in A, in B, milliseconds in A, in B), the slowest first, and the sums."""
    kernels = c.profile.kernels
    rows: Rows = [
        (printable(k.operator, 40), *(str(n or "") for n in k.nodes), *(f"{ms:.3f}" if ms else "" for ms in k.ms))
        for k in kernels[:most]
    ]
    rows += _more(len(kernels) - len(rows), "type", 4)
    counts = (str(sum(k.nodes[i] for k in kernels)) for i in (0, 1))
    return [*rows, ("all kernels", *counts, *(f"{ms:.3f}" for ms in c.profile.total_ms))]


def layer_rows(layers: LayerPairs, most: int | None = MAX_ROWS) -> Rows:
    """(value, operator, relative error, the same in decibels), the worst first; none where all are equal."""
    if not any(x.error for x in layers.layers):
        return []
    rows: Rows = [
        (printable(x.name, 72), printable(x.op_type, 24), f"{x.error:.3g}", f"{_decibels(x.error):.1f} dB")
        for x in layers.layers[:most]
    ]
    return rows + _more(len(layers.layers) - len(rows), "value", 3)


def layer_line(layers: LayerPairs) -> str:
    """What was compared inside, and what was not."""
    compared = f"{len(layers.layers)} of {layers.matched}" if len(layers.layers) < layers.matched else "all of them"
    feeds = "1 feed" if layers.feeds == 1 else f"{layers.feeds} feeds"
    if not layers.matched:
        return f"values inside: B has none of A's {layers.values} by name, so layers can't be compared"
    sentence = f"values inside: B has {layers.matched} of A's {layers.values} by name; compared {compared} on {feeds}"
    if layers.reshaped:
        count = len(layers.reshaped)
        sentence += "; 1 has another shape" if count == 1 else f"; {count} have other shapes"
    if layers.layers and layers.layers[0].error == 0.0:
        sentence += "; they are equal"
    elif layers.layers and layers.layers[0].error > RESCALED:
        sentence += "; a value that a pass rescaled differs without harm if those behind it agree"
    return sentence


def basis_lines(c: ModelComparison) -> Iterator[str]:
    """What the figures stand on."""
    labels = "with labels" if c.evaluation.labels else "no labels"
    yield f"outputs on {feeds_line(c.evaluation)}, {labels}"
    yield f"kernels: medians of {min(c.profile.runs)} profiled calls; the profiler itself takes time with each kernel"
    yield f"{printable(c.host, 120)}; {c.duration_s:.0f} s"


def _decibels(error: float) -> float:
    return -10 * log10(error) if 0 < error < inf else (inf if error == 0 else -inf)


def _more(count: int, noun: str, columns: int) -> Rows:
    return [(f"… {count} more {noun}{'' if count == 1 else 's'}", *[""] * columns)] if count > 0 else []
