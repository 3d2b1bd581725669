"""Relaxing: which cells get their channels back when a gate fails."""

from __future__ import annotations

from onnxcomp.passes.base import Evidence
from onnxcomp.passes.prune.plan import CellPlan, PrunePlan

SAFETY = 0.7
"""Share of the allowed error that a relaxed plan aims at: losses of cells do not add up exactly."""

LEAST = 0.1
"""Share of the predicted loss that is given back at least, so that few attempts are needed."""


def relaxed(plan: PrunePlan, evidence: Evidence[PrunePlan]) -> PrunePlan | None:
    """The plan with its most costly cells whole again; None when none would be cut."""
    cut = sorted((cell for cell in plan.cells if cell.cut), key=lambda cell: -cell.loss)
    if not cut or evidence.failed not in ("fidelity", "latency"):
        return None
    total = sum(cell.loss for cell in cut)
    share = SAFETY * evidence.allowed / evidence.error if evidence.error > 0 else 0.5
    goal = total * min(share, 1 - LEAST)
    restored: dict[str, CellPlan] = {}
    for cell in cut:
        if restored and total <= goal:
            break
        total -= cell.loss
        restored[cell.name] = whole(cell, "given back because a gate failed")
    return plan.with_cells(restored) if len(restored) < len(cut) else None


def whole(cell: CellPlan, why: str) -> CellPlan:
    """The cell with all of its channels."""
    return cell.model_copy(update={"keep": tuple(range(cell.size)), "loss": 0.0, "why": why})
