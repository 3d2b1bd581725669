"""The pass: channels out, shapes fixed, the rest refitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import PlanError
from onnxcomp.evaluate.equivalence import Equivalence
from onnxcomp.passes.base import Context, Evidence, Proof, header, require_data
from onnxcomp.passes.prune import costs
from onnxcomp.passes.prune.analysis import Analysis, analyse
from onnxcomp.passes.prune.choice import Choice, choose
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.equivalence import check
from onnxcomp.passes.prune.importance import Importance
from onnxcomp.passes.prune.obs import Removal
from onnxcomp.passes.prune.plan import CellPlan, PrunePlan
from onnxcomp.passes.prune.ranking import ranked
from onnxcomp.passes.prune.relax import relaxed
from onnxcomp.passes.prune.rewrite import rewrite
from onnxcomp.passes.prune.skips import skips
from onnxcomp.passes.refitted import refitted
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.runtime.call_shapes import doubled

MAX_CULPRITS = 8
"""Cells that are locked because the proof failed with them, before the whole plan is given up."""


class Prune:
    """Removes channels from any graph; what is left computes what the original computes with those channels masked,
    and is then refitted to the original's activations."""

    name = "prune"
    needs_calibration = False
    plan_type = PrunePlan

    def __init__(self, config: PruneConfig | None = None) -> None:
        self.config = config or PruneConfig()
        self._known: _Known | None = None
        self._refitted = ""

    def with_macs(self, share: float) -> Prune:
        """The same pass with another budget, that knows what this one found out."""
        other = Prune(self.config.model_copy(update={"macs": share, "ratio": None, "params": None, "latency": None}))
        other._known = self._known
        return other

    def plan(self, model: ir.Model, ctx: Context) -> PrunePlan:
        """Finds the cells, ranks their channels, spends the budget, and proves the outcome.

        Raises:
            UsageError: Something was asked for that needs calibration feeds.
        """
        has_data = ctx.calibration is not None
        require_data(self.config.needs_data(), ctx)
        analysis = self._analysis(model, ctx)
        choice = choose(model, analysis, self._removals(model, analysis, ctx), self.config, ctx)
        keep, culprits = self._proved(model, analysis, choice, ctx)
        held = {**choice.held, **culprits}
        macs, params = _shares(model, analysis, {name: len(classes) for name, classes in keep.items()})
        return PrunePlan(
            **header(self.name, model, ctx, skips(model, analysis, held)),
            cells=tuple(_cells(analysis, choice, keep, held)),
            importance=self.config.ranking(has_data),
            refit=self.config.refitting(has_data),
            budget=choice.sentence,
            reached=choice.reached,
            macs=macs,
            params=params,
            measured=choice.measured,
        )

    def apply(self, model: ir.Model, plan: PrunePlan, ctx: Context) -> ir.Model:
        """Removes what the plan does not keep, and refits the rest on the calibration feeds.

        Raises:
            PlanError: The plan was made for another model.
        """
        analysis = self._analysis(model, ctx)
        check_plan(plan, analysis)
        pruned, kept = rewrite(model, analysis, plan.keep())
        result, self._refitted = refitted(model, pruned, kept, plan.refit if kept else "none", ctx)
        return result

    def prove(self, before: ir.Model, after: ir.Model, plan: PrunePlan, ctx: Context) -> Proof:
        """The mask equivalence of what was removed, on the typical feed and on a larger batch."""
        analysis = self._analysis(before, ctx)
        found = self._check(before, analysis, plan.keep(), ctx)
        if found.complaint is not None:
            return Proof(passed=False, sentences=(f"mask equivalence: {found.complaint}",))
        counts = {cell.name: len(cell.keep) for cell in plan.cells}
        shares = _shares(before, analysis, counts)
        return Proof(passed=True, sentences=tuple(_summary(plan, shares, found, self._refitted)))

    def relax(self, plan: PrunePlan, evidence: Evidence[PrunePlan]) -> PrunePlan | None:
        """The plan with the cells that cost most (fidelity) or gain least (latency) whole again."""
        return relaxed(plan, evidence)

    def _analysis(self, model: ir.Model, ctx: Context) -> Analysis:
        """Of this model, made once."""
        if self._known is None or self._known.model is not model:
            self._known = _Known(model, analyse(model, ctx.feed, ctx.session))
        return self._known.analysis

    def _removals(self, model: ir.Model, analysis: Analysis, ctx: Context) -> dict[str, Removal]:
        """The ranking, made once: it does not depend on the budget."""
        assert self._known is not None
        importance = self.config.ranking(ctx.calibration is not None)
        if importance not in self._known.rankings:
            self._known.rankings[importance] = ranked(model, analysis, importance, ctx)
        return self._known.rankings[importance]

    def _check(self, model: ir.Model, analysis: Analysis, keep: Mapping[str, np.ndarray], ctx: Context) -> Equivalence:
        feeds = [ctx.feed, doubled(model, ctx.feed, every=False)]
        return check(model, analysis, keep, feeds, replace(ctx.session, optimization="basic"))

    def _proved(
        self, model: ir.Model, analysis: Analysis, choice: Choice, ctx: Context
    ) -> tuple[dict[str, np.ndarray], dict[str, Reason]]:
        """What stays, without the cells with which the proof fails; nothing is cut where too many do."""
        culprits: dict[str, Reason] = {}
        while True:
            keep = choice.keep(frozenset(culprits))
            found = self._culprit(model, analysis, keep, ctx)
            if found is None:
                return keep, culprits
            if len(culprits) == MAX_CULPRITS:
                return {}, culprits | dict.fromkeys(keep, Reason.NOT_PROVED)
            culprits[found] = Reason.NOT_PROVED

    def _culprit(self, model: ir.Model, analysis: Analysis, keep: Mapping[str, np.ndarray], ctx: Context) -> str | None:
        """The cell with which the proof fails, found by halving; None where it holds."""
        names = list(keep)
        if not names or self._check(model, analysis, keep, ctx).complaint is None:
            return None
        while len(names) > 1:
            half = names[: len(names) // 2]
            failed = self._check(model, analysis, {n: keep[n] for n in half}, ctx).complaint is not None
            names = half if failed else names[len(names) // 2 :]
        return names[0]


@dataclass(frozen=True)
class _Known:
    """What was found out about a model, whatever the budget."""

    model: ir.Model
    analysis: Analysis
    rankings: dict[Importance, dict[str, Removal]] = field(default_factory=dict)


def check_plan(plan: PrunePlan, analysis: Analysis) -> None:
    """Every cell of the plan is there in the model, with its size, and once in the plan.

    Raises:
        PlanError: It is not.
    """
    sizes = {cell.name: cell.size for cell in analysis.structure.cells}
    seen: set[str] = set()
    for cell in plan.cells:
        if cell.name in seen:
            raise PlanError(f"the plan's cell {cell.name!r} is there twice", hint="leave one of them out")
        seen.add(cell.name)
        if sizes.get(cell.name) != cell.size:
            raise PlanError(
                f"the plan's cell {cell.name!r} of {cell.size} does not exist in this model",
                hint="make a new plan with --dry-run",
            )


def _cells(
    analysis: Analysis, choice: Choice, keep: Mapping[str, np.ndarray], held: Mapping[str, Reason]
) -> list[CellPlan]:
    result = []
    for cell in analysis.structure.cells:
        removal, kept = choice.removals[cell.name], keep.get(cell.name)
        why = "" if kept is not None else DESCRIPTIONS[held.get(cell.name, Reason.NOT_NEEDED)]
        result.append(
            CellPlan(
                name=cell.name,
                size=cell.size,
                keep=tuple(range(cell.size)) if kept is None else tuple(int(k) for k in kept),
                exact=cell.exact,
                loss=0.0 if kept is None else float(removal.loss[cell.size - len(kept)]),
                order=tuple(int(k) for k in removal.order),
                producers=cell.producers,
                consumers=cell.consumers,
                coupled_by=cell.coupled_by,
                why=why,
            )
        )
    return result


def _shares(model: ir.Model, analysis: Analysis, counts: Mapping[str, int]) -> tuple[float | None, float | None]:
    """Predicted shares of the MACs and of the parameters that remain; None where there are none to begin with.

    Args:
        counts: Classes that cells keep; one that is not named stays whole.
    """
    kept = np.array([counts.get(cell.name, cell.size) for cell in analysis.structure.cells], np.int64)
    found = costs.multiplications(model, analysis), costs.parameters(model, analysis.structure)
    macs, params = (c.total(kept) / c.total(c.sizes) if c.total(c.sizes) else None for c in found)
    return macs, params


def _summary(
    plan: PrunePlan, shares: tuple[float | None, float | None], found: Equivalence, refitted: str
) -> list[str]:
    cut = [cell for cell in plan.cells if cell.cut]
    gone, all_of = sum(c.size - len(c.keep) for c in cut), sum(c.size for c in plan.cells)
    approximate = sum(not cell.exact for cell in cut)
    sentences = [f"{gone} of {all_of} channels removed in {len(cut)} of {len(plan.cells)} cells"]
    macs, params = shares
    if macs is not None and params is not None:
        sentences.append(f"predicted: {macs:.1%} of the MACs and {params:.1%} of the parameters remain")
    if len(cut) > approximate:
        sentences.append(f"mask equivalence holds: largest difference {found.difference:.2g} of what is allowed")
    if not found.changed and len(cut) > approximate:
        sentences.append("masking the removed channels changed no output: they did not matter on these feeds")
    if approximate:
        sentences.append(f"{approximate} cells lie under a norm over channels: not masked, only run")
    return sentences + ([refitted] if refitted else [])
