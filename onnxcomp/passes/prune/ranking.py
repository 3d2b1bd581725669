"""In which order the classes of each cell go, and what that costs: from weights, activations, or second moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.accumulators import Moments
from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.stream import channel_moments
from onnxcomp.evaluate.sensitivity import Memory, affordable_feeds
from onnxcomp.model.cost import macs_by_node
from onnxcomp.ops.linear import LinearView
from onnxcomp.passes.base import Context
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.importance import WITH_DATA, Importance, curve, scores
from onnxcomp.passes.prune.obs import CellUses, Removal, Use
from onnxcomp.passes.prune.obs_sensitivity import FRACTIONS, observe_sensitivity
from onnxcomp.passes.prune.obs_sensitivity import curve as error_curve

MOST_FEEDS = 64
"""Feeds that the sensitivity of a cell is measured on."""


def ranked(model: ir.Model, analysis: Analysis, importance: Importance, ctx: Context) -> dict[str, Removal]:
    """The order of removal of every cell, by its name.

    Args:
        importance: One of `WITH_DATA` needs `ctx.calibration`.
    """
    cells = analysis.structure.cells
    if importance == "obs" and ctx.calibration is not None:
        return _by_sensitivity(model, analysis, ctx.calibration, ctx)
    moments = _moments(model, ctx.calibration, ctx) if importance in WITH_DATA and ctx.calibration is not None else {}
    return {
        cell.name: Removal(*curve(scores(model, analysis, index, importance, moments)))
        for index, cell in enumerate(cells)
    }


def _by_sensitivity(model: ir.Model, analysis: Analysis, reader: Reader, ctx: Context) -> dict[str, Removal]:
    """Greedy OBS inside each cell; between cells, what the model's outputs lose when a cell alone is cut."""
    cells = analysis.structure.cells
    views = _views(model)
    uses = [cell_uses(views, analysis, index) for index in range(len(cells))]
    known = [u for u in uses if u.uses]
    macs = sum(macs_by_node(model, analysis.shapes).values())
    feeds = affordable_feeds(macs, len(known) * len(FRACTIONS), MOST_FEEDS)
    removals, errors = observe_sensitivity(
        model,
        known,
        reader,
        ctx.session,
        feeds=feeds,
        memory=Memory.of("pruning_sensitivity", model, reader, feeds),
        progress=lambda done, total: ctx.progress("measuring the sensitivity of channels", done, total),
    )
    result = {name: Removal(removal.order, error_curve(removal, errors[name])) for name, removal in removals.items()}
    for index, use in enumerate(uses):
        # A product of activations or a recurrence reads it: its share of the norm stands for the error.
        if not use.uses:
            order, loss = curve(scores(model, analysis, index, "l1", {}))
            result[use.name] = Removal(order, loss / max(float(loss[-1]), 1e-300))
    return result


def cell_uses(views: Mapping[str, LinearView], analysis: Analysis, cell: int) -> CellUses:
    """The linear nodes that read the channels of a cell, with the class of each of their input channels.

    Args:
        views: By name of the node.
    """
    structure, uses = analysis.structure, []
    own = structure.cells[cell]
    for name in own.consumers:
        view = views.get(name)
        axes = None if view is None else structure.atoms.axes.get(view.input)
        held = None if view is None or not axes else structure.membership(axes[view.axis])
        if held is not None and (held[0] == cell).any():
            uses.append(Use(name, np.where(held[0] == cell, held[1], -1)))
    return CellUses(own.name, own.size, tuple(uses))


def _moments(model: ir.Model, reader: Reader, ctx: Context) -> dict[str, Moments]:
    """Mean and variance of the channels that each linear node reads, by its name."""
    inner = [v for v in _views(model).values() if not v.input.is_graph_input()]
    result: dict[str, Moments] = {}
    for axis in sorted({v.axis for v in inner}):
        these = [v for v in inner if v.axis == axis]
        found = channel_moments(model, _names(v.input for v in these), reader, ctx.session, axis=axis)
        result |= {v.node.name or "": found[v.input.name or ""] for v in these}
    return result


def _views(model: ir.Model) -> dict[str, LinearView]:
    """The linear nodes by name."""
    return {node.name or "": view for node in model.graph if (view := LinearView.of(node)) is not None}


def _names(values: Iterable[ir.Value]) -> list[str]:
    return list(dict.fromkeys(value.name or "" for value in values))
