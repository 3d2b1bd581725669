"""How many channels of each cell go: ranking, allowed counts, budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.base import Context
from onnxcomp.passes.prune import costs
from onnxcomp.passes.prune.alignment import allowed_counts, rounded
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.budget import Budget, CellCurve, select
from onnxcomp.passes.prune.cells import Cell
from onnxcomp.passes.prune.channel_costs import CostModel
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.latency_choice import choose_by_latency
from onnxcomp.passes.prune.obs import Removal
from onnxcomp.passes.selection import unselected
from onnxcomp.report.reasons import Reason


@dataclass(frozen=True)
class Choice:
    """What is removed.

    Args:
        removals: Order and losses of each cell.
        counts: Classes that each cell keeps.
        held: Cells that may not be cut, with the reason.
        sentence: Budget and prediction in words.
        reached: The prediction meets the budget.
        measured: Latencies that were measured for it.
    """

    removals: Mapping[str, Removal]
    counts: Mapping[str, int]
    held: Mapping[str, Reason]
    sentence: str
    reached: bool
    measured: dict[str, float] = field(default_factory=dict)

    def keep(self, without: frozenset[str] = frozenset()) -> dict[str, np.ndarray]:
        """Cell → classes that stay, ascending, for the cells that lose some and are not among `without`."""
        return {
            name: removal.kept(self.counts[name])
            for name, removal in self.removals.items()
            if self.counts[name] < len(removal.order) and name not in without
        }


def choose(
    model: ir.Model, analysis: Analysis, removals: dict[str, Removal], config: PruneConfig, ctx: Context
) -> Choice:
    """Spends the budget.

    Args:
        removals: Order and losses of each cell, as `ranking.ranked` finds them.
    """
    held = _held(model, analysis, ctx)
    asked = [cell.name not in held for cell in analysis.structure.cells]
    unit = ctx.target.channel_multiple if config.round_to == "auto" else config.round_to
    curves = [
        _curve(cell, index, analysis, config, unit, removals[cell.name], cell.name in held)
        for index, cell in enumerate(analysis.structure.cells)
    ]
    for curve in curves:
        if len(curve.allowed) == 1 and curve.allowed[0] == curve.size:
            held.setdefault(curve.name, Reason.ALIGNMENT)
    budget, measured = config.budget(), dict[str, float]()
    if budget.kind == "latency":
        selection, measured = choose_by_latency(model, analysis, curves, removals, budget, config.scope, unit, ctx)
    elif budget.kind == "ratio" and any(asked):
        # A share of the channels that may be touched: what the user leaves out must not be paid for by the others.
        selection = select([c for c, own in zip(curves, asked, strict=True) if own], budget, config.scope)
    else:
        selection = select(curves, budget, config.scope, _model_of(budget, model, analysis))
    counts = {curve.name: selection.keep.get(curve.name, curve.size) for curve in curves}
    return Choice(removals, counts, held, selection.sentence, selection.reached, measured)


def _model_of(budget: Budget, model: ir.Model, analysis: Analysis) -> CostModel | None:
    """What a budget counts in."""
    if budget.kind == "macs":
        return costs.multiplications(model, analysis)
    return costs.parameters(model, analysis.structure) if budget.kind == "params" else None


def _held(model: ir.Model, analysis: Analysis, ctx: Context) -> dict[str, Reason]:
    """Cells that the user leaves out: one of their nodes is excluded, or a maker is not among the selected ones."""
    excluded = unselected(model, (), ctx.exclude)
    left = unselected(model, ctx.only, ())
    result = {}
    for cell in analysis.structure.cells:
        if excluded & {*cell.producers, *cell.consumers}:
            result[cell.name] = Reason.EXCLUDED
        elif left & set(cell.producers):
            result[cell.name] = Reason.NOT_SELECTED
    return result


def _curve(
    cell: Cell, index: int, analysis: Analysis, config: PruneConfig, unit: int, removal: Removal, held: bool
) -> CellCurve:
    each = _channels_per_class(analysis, index)
    allowed = (cell.size,) if held else allowed_counts(cell.size, unit, each, config.max_ratio)
    # A residual sum couples nodes of several names: what one of them is spared, all are.
    matching = ([share for p, share in config.ratios.items() if fnmatchcase(n, p)] for n in cell.producers)
    shares = [found[0] for found in matching if found]
    if shares and not held:
        wanted = cell.size - int(cell.size * min(shares) + 1e-9)
        allowed = (rounded(max(1, wanted), allowed),)
    return CellCurve(cell.name, cell.size, removal.loss, allowed, key=_key(cell, index, analysis))


def _channels_per_class(analysis: Analysis, cell: int) -> int:
    """Channels of a class on the weights that make it (on those that read it, if none does)."""
    places = analysis.places[cell]
    made = [place.each for place in places if not place.contracted]
    return min(made or [place.each for place in places] or [1])


def _key(cell: Cell, index: int, analysis: Analysis) -> str:
    """Equal for cells that lie on weights of equal shapes in the same way."""
    lies = sorted((str(place.weight.shape), place.axis, place.contracted) for place in analysis.places[index])
    return repr((cell.size, lies))
