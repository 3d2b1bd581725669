"""The predicted latency of the model as a function of what the cells keep: the sum of its nodes, each from a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import ModelError
from onnxcomp.passes.prune.channel_costs import Axis, CostModel, NodeCost, latencies
from onnxcomp.runtime.latency_surface import Width, knots, surface_of
from onnxcomp.runtime.node_latency import NodeTable
from onnxcomp.runtime.node_spec import NodeSpec, Shape, spec_of

InputAxes = Mapping[str, Sequence[Axis | None]]
"""Value name → for each of its axes the cells that lie on it."""

Channels = Callable[[np.ndarray], np.ndarray]
"""Kept channels, int64 [points, axes] -> milliseconds, float64 [points]."""

SMALL = 0.002
"""Nodes below this share of the whole are not measured at other widths: their latency goes with their channels."""

MAX_WIDTHS = 2
"""The knots of a surface multiply: nodes with more widths (Concat) are small, and go with their channels."""

_COUNTING: dict[str, tuple[str, tuple[int, int]]] = {
    "Conv": ("group", (0, 1)),
    "ConvTranspose": ("group", (0, 1)),
    "LSTM": ("hidden_size", (2, 2)),
    "GRU": ("hidden_size", (2, 2)),
    "RNN": ("hidden_size", (2, 2)),
}
"""Attributes that count the channels of an axis (input, axis), when they are equal to its length."""


@dataclass(frozen=True)
class Modelled:
    """What `latency_model` made.

    Args:
        costs: Milliseconds, for `budget.select`.
        left_out: Nodes that could not be timed alone; their time belongs to the rest of `budget.Fit`.
    """

    costs: CostModel
    left_out: tuple[str, ...]


def latency_model(
    model: ir.Model, shapes: Mapping[str, Shape], axes: InputAxes, sizes: Sequence[int], table: NodeTable, unit: int
) -> Modelled:
    """Times the nodes of the main graph, each at the widths that a plan will ask for.

    Args:
        model: With the types of its values inferred.
        shapes: By value name, of a typical call.
        axes: Where the cells lie.
        sizes: Classes of each cell.
        table: Measures, and remembers.
        unit: Channels between the widths that are measured.
    """
    opset = model.graph.opset_imports.get("", 17)
    timed: list[tuple[NodeCost, NodeSpec, list[Width]]] = []
    left_out: list[str] = []
    for node in model.graph:
        name, spec = node.name or "", spec_of(node, shapes, opset)
        base = None if spec is None else _latency(table, spec)
        if spec is None or base is None:
            left_out.append(name)
            continue
        widths = widths_of(spec, [axes.get(v.name or "", ()) if v is not None else () for v in node.inputs])
        timed.append((NodeCost(name, base, tuple(widths)), spec, list(widths.values())))
    total = sum(cost.base for cost, _, _ in timed)
    prices = {
        cost.node: _price(table, cost, spec, widths, unit if cost.base >= SMALL * total else None)
        for cost, spec, widths in timed
        if widths
    }
    nodes = [cost for cost, _, _ in timed]
    price = latencies(nodes, lambda name, kept: prices[name](kept))
    return Modelled(CostModel(nodes, sizes, price), tuple(left_out))


def _latency(table: NodeTable, spec: NodeSpec) -> float | None:
    try:
        return table.latency(spec)
    except ModelError:
        return None


def _price(table: NodeTable, cost: NodeCost, spec: NodeSpec, widths: Sequence[Width], unit: int | None) -> Channels:
    """A measured surface; for a small node (`unit` None) its share; the base where other widths need other contents."""
    full = np.array([width.total for width in widths], np.float64)
    if any(port is not None and port.content is not None and port.dtype.startswith("INT") for port in spec.inputs):
        return lambda kept: np.full(len(kept), cost.base)
    if unit is None or len(widths) > MAX_WIDTHS:
        return lambda kept: np.asarray(cost.base * (kept / full).mean(axis=1))
    surface = surface_of(table, spec, widths, unit)
    try:
        surface(np.array([[knots(width.total, unit)[0] for width in widths]]))
    except ModelError:
        return lambda kept: np.full(len(kept), cost.base)
    return surface


def widths_of(spec: NodeSpec, inputs: Sequence[Sequence[Axis | None]]) -> dict[Axis, Width]:
    """The channel axes of a node: places with the same cells in the same proportion shrink together.

    Args:
        inputs: For each input, for each of its axes, the cells that lie on it.
    """
    found: dict[tuple[tuple[int, float], ...], tuple[Axis, Width]] = {}
    for index, held in enumerate(inputs):
        for position, axis in enumerate(held):
            if axis is None or not axis.parts:
                continue
            share = tuple((cell, each / axis.total) for cell, each in axis.parts)
            # The longest of them stands for all: what is shorter is a whole fraction of it (groups, packed gates).
            first, width = found.get(share, (axis, Width(axis.total, ())))
            longest = axis if axis.total > first.total else first
            found[share] = longest, Width(longest.total, (*width.places, (index, position)))
    return {axis: replace(width, attributes=_counting(spec, width)) for axis, width in found.values()}


def _counting(spec: NodeSpec, width: Width) -> tuple[str, ...]:
    name, place = _COUNTING.get(spec.op_type, ("", (-1, -1)))
    port = spec.inputs[place[0]] if place in width.places else None
    declared = dict(spec.attributes).get(name)
    return (name,) if port is not None and declared == port.shape[place[1]] else ()
