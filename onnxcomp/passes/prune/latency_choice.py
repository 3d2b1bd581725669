"""A latency budget: planned with a table of single nodes, measured on the whole model, planned again from the outcome.

The table knows nothing of fusions and of conversions between layouts; two or three rounds in which the pruned model
really runs make up for that. A plan that is not faster than the original is not handed out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.base import Context
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.budget import Budget, CellCurve, Fit, Scope, Selection, select
from onnxcomp.passes.prune.costs import cells_on
from onnxcomp.passes.prune.latency_costs import latency_model
from onnxcomp.passes.prune.obs import Removal
from onnxcomp.passes.prune.rewrite import rewrite
from onnxcomp.runtime.benchmark import measure_stable
from onnxcomp.runtime.node_latency import NodeTable
from onnxcomp.runtime.session import open_session

ROUNDS = 4
SECONDS = 1.5
NEAR = 0.05
"""A round that meets the limit and overshoots it by less than this is good enough."""


@dataclass(frozen=True)
class Timed:
    """A selection with what it measured, milliseconds."""

    selection: Selection
    milliseconds: float


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
    points = [(costs.total(costs.sizes), whole)]
    measured = {"original": whole}
    if whole <= limit:
        told = f"the original meets it already: measured {whole:.3g} ms, {limit:.3g} ms asked for"
        return _nothing(curves, whole, told, reached=True), measured
    tried: list[Timed] = []
    for number in range(ROUNDS):
        wanted = Budget("latency", limit, absolute=True)
        selection = select(curves, wanted, scope, costs, Fit.of(points))
        counts = np.array([selection.keep[cell.name] for cell in structure.cells], np.int64)
        if (counts == sizes).all() or any(timed.selection.keep == selection.keep for timed in tried):
            break  # nothing would be cut, or nothing new
        ctx.progress("measuring latency", number, ROUNDS)
        keep = {name: removals[name].kept(count) for name, count in selection.keep.items()}
        before, after = _measured(model, rewrite(model, analysis, keep)[0], ctx)
        milliseconds = whole * after / before
        measured[f"round {number + 1}"] = milliseconds
        tried.append(Timed(selection, milliseconds))
        points.append((costs.total(counts), milliseconds))
        if limit * (1 - NEAR) <= milliseconds <= limit:
            break
    return _best(tried, curves, whole, limit), measured


def _best(tried: Sequence[Timed], curves: Sequence[CellCurve], whole: float, limit: float) -> Selection:
    """Of the rounds that meet the limit the one with the least loss; else the fastest; nothing if that is no faster."""
    if not tried:
        told = f"no channel may go, so the latency stays: {whole:.3g} ms, {limit:.3g} ms asked for"
        return _nothing(curves, whole, told, reached=False)
    met = [timed for timed in tried if timed.milliseconds <= limit]
    best = min(met, key=lambda t: t.selection.loss) if met else min(tried, key=lambda t: t.milliseconds)
    told = f"measured: {best.milliseconds:.3g} ms of {whole:.3g} ms, {limit:.3g} ms asked for"
    if best.milliseconds >= whole:
        return _nothing(curves, whole, f"no cut that was tried is faster on this machine ({told})", reached=False)
    return replace(best.selection, before=whole, after=best.milliseconds, reached=bool(met), sentence=told)


def _nothing(curves: Sequence[CellCurve], whole: float, sentence: str, *, reached: bool) -> Selection:
    """Every cell keeps what it begins with."""
    keep = {curve.name: curve.allowed[0] for curve in curves}
    return Selection(keep, 0.0, whole, whole, reached, sentence)


def _measured(one: ir.Model, other: ir.Model, ctx: Context) -> tuple[float, float]:
    """10th percentiles of two models in turns, milliseconds."""
    config = ctx.session.interleaved()
    with open_session(one, config) as first, open_session(other, config) as second:
        runners = {"one": first.runner(ctx.feed), "other": second.runner(ctx.feed)}
        result = measure_stable(runners, min_seconds=SECONDS, max_seconds=10 * SECONDS)
    return result.stats("one").p10, result.stats("other").p10
