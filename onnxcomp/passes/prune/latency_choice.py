"""A latency budget: planned with a table of single nodes, measured on the whole model, planned again from the outcome.

The table knows nothing of fusions and of conversions between layouts; two or three rounds in which the pruned model
really runs make up for that. A plan that is not faster than the original is not handed out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxcomp.evaluate.allocation import Fit
from onnxcomp.passes.base import Context
from onnxcomp.passes.latency_rounds import Proposal, Rounds, in_rounds, measured
from onnxcomp.passes.latency_rounds import two_latencies as _measured
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.budget import Budget, CellCurve, Scope, Selection, select
from onnxcomp.passes.prune.costs import cells_on
from onnxcomp.passes.prune.latency_costs import latency_model
from onnxcomp.passes.prune.obs import Removal
from onnxcomp.passes.prune.rewrite import rewrite
from onnxcomp.runtime.node_latency import NodeTable


def choose_by_latency(
    model: ir.Model,
    analysis: Analysis,
    curves: Sequence[CellCurve],
    removals: dict[str, Removal],
    budget: Budget,
    scope: Scope,
    unit: int,
    ctx: Context,
) -> tuple[Selection, dict[str, float]]:
    """Counts that meet the budget as measured, and all measurements in milliseconds.

    Args:
        budget: Of kind "latency".
        unit: Channels between the widths at which nodes are measured.
    """
    structure = analysis.structure
    axes = {
        value.name or "": [cells_on(structure, atoms) for atoms in held] for value, held in structure.atoms.axes.items()
    }
    sizes = [cell.size for cell in structure.cells]
    ctx.progress("timing single nodes", 0, None)
    costs = latency_model(model, analysis.shapes, axes, sizes, NodeTable(ctx.session), max(unit, 4)).costs
    whole, _ = _measured(model, model, ctx)
    limit = budget.limit if budget.absolute else budget.limit * whole
    if whole <= limit:
        told = f"the original meets it already: measured {whole:.3g} ms, {limit:.3g} ms asked for"
        return _nothing(curves, whole, told, reached=True), {"original": whole}

    def propose(fit: Fit) -> Proposal[Selection] | None:
        selection = select(curves, Budget("latency", limit, absolute=True), scope, costs, fit)
        counts = np.array([selection.keep[cell.name] for cell in structure.cells], np.int64)
        if (counts == sizes).all():
            return None
        keep = {name: removals[name].kept(count) for name, count in selection.keep.items()}
        return Proposal(
            selection,
            key=selection.keep,
            modelled=costs.total(counts),
            loss=selection.loss,
            build=lambda: rewrite(model, analysis, keep)[0],
        )

    rounds = in_rounds(model, costs.total(costs.sizes), whole, limit, propose, ctx, _measured)
    return _best(rounds, curves, whole, limit), measured(rounds.tried, whole)


def _best(rounds: Rounds[Selection], curves: Sequence[CellCurve], whole: float, limit: float) -> Selection:
    """The best round; nothing if that is no faster."""
    if rounds.best is None:
        told = f"no channel may go, so the latency stays: {whole:.3g} ms, {limit:.3g} ms asked for"
        return _nothing(curves, whole, told, reached=False)
    proposal, milliseconds = rounds.best
    told = f"measured: {milliseconds:.3g} ms of {whole:.3g} ms, {limit:.3g} ms asked for"
    if milliseconds >= whole:
        return _nothing(curves, whole, f"no cut that was tried is faster on this machine ({told})", reached=False)
    return replace(proposal.choice, before=whole, after=milliseconds, reached=milliseconds <= limit, sentence=told)


def _nothing(curves: Sequence[CellCurve], whole: float, sentence: str, *, reached: bool) -> Selection:
    """Every cell keeps what it begins with."""
    keep = {curve.name: curve.allowed[0] for curve in curves}
    return Selection(keep, 0.0, whole, whole, reached, sentence)
