"""In which order the classes of each cell go, and what that costs: from weights, activations, or second moments."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.accumulators import Moments
from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.stream import channel_moments
from onnxcomp.ops.linear import LinearView
from onnxcomp.passes.base import Context
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.importance import WITH_DATA, Importance, curve, scores
from onnxcomp.passes.prune.obs import CellUses, Removal, Use, observe_uses


def ranked(model: ir.Model, analysis: Analysis, importance: Importance, ctx: Context) -> dict[str, Removal]:
    """The order of removal of every cell, by its name.

    Args:
        importance: One of `WITH_DATA` needs `ctx.calibration`.
    """
    cells = analysis.structure.cells
    if importance == "obs" and ctx.calibration is not None:
        uses = [cell_uses(model, analysis, index) for index in range(len(cells))]
        found = observe_uses(
            model,
            [u for u in uses if u.uses],
            ctx.calibration,
            ctx.session,
            progress=lambda done, total: ctx.progress("ranking channels", done, total),
        )
        # A cell that no linear node reads (its channels end in a product of activations, or in a recurrence).
        rest = [i for i, u in enumerate(uses) if not u.uses]
        return found | {cells[i].name: Removal(*curve(scores(model, analysis, i, "l1", {}))) for i in rest}
    moments = _moments(model, ctx.calibration, ctx) if importance in WITH_DATA and ctx.calibration is not None else {}
    return {
        cell.name: Removal(*curve(scores(model, analysis, index, importance, moments)))
        for index, cell in enumerate(cells)
    }


def cell_uses(model: ir.Model, analysis: Analysis, cell: int) -> CellUses:
    """The linear nodes that read the channels of a cell, with the class of each of their input channels."""
    structure, uses = analysis.structure, []
    own = structure.cells[cell]
    for node in model.graph:
        view = LinearView.of(node) if node.name in own.consumers else None
        axes = None if view is None else structure.atoms.axes.get(view.input)
        held = None if view is None or not axes else structure.membership(axes[view.axis])
        if held is not None and (held[0] == cell).any():
            uses.append(Use(node.name or "", np.where(held[0] == cell, held[1], -1)))
    return CellUses(own.name, own.size, tuple(uses))


def _moments(model: ir.Model, reader: Reader, ctx: Context) -> dict[str, Moments]:
    """Mean and variance of the channels that each linear node reads, by its name."""
    views = [view for node in model.graph if (view := LinearView.of(node)) is not None]
    inner = [v for v in views if not v.input.is_graph_input()]
    result: dict[str, Moments] = {}
    for axis in sorted({v.axis for v in inner}):
        these = [v for v in inner if v.axis == axis]
        found = channel_moments(model, _names(v.input for v in these), reader, ctx.session, axis=axis)
        result |= {v.node.name or "": found[v.input.name or ""] for v in these}
    return result


def _names(values: Iterable[ir.Value]) -> list[str]:
    return list(dict.fromkeys(value.name or "" for value in values))
