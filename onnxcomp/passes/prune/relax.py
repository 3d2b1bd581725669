"""Relaxing: which cells get their channels back when a gate fails."""

from __future__ import annotations

from onnxcomp.passes.base import Evidence
from onnxcomp.passes.giving_back import given_back
from onnxcomp.passes.prune.plan import CellPlan, PrunePlan


def relaxed(plan: PrunePlan, evidence: Evidence[PrunePlan]) -> PrunePlan | None:
    """The plan with its most costly cells whole again; None when none would be cut."""
    restored = given_back({cell.name: cell.loss for cell in plan.cells if cell.cut}, evidence)
    if restored is None:
        return None
    return plan.with_cells(
        {c.name: whole(c, "given back because a gate failed") for c in plan.cells if c.name in restored}
    )


def whole(cell: CellPlan, why: str) -> CellPlan:
    """The cell with all of its channels."""
    return cell.model_copy(update={"keep": tuple(range(cell.size)), "loss": 0.0, "why": why})
