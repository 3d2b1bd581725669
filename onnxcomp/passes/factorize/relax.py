"""Relaxing: which layers become whole again when a gate fails."""

from __future__ import annotations

from onnxcomp.passes.base import Evidence
from onnxcomp.passes.factorize.plan import FactorizePlan, LayerPlan
from onnxcomp.report.reasons import Reason

SAFETY = 0.7
"""Share of the allowed error that a relaxed plan aims at: losses of layers do not add up exactly."""

LEAST = 0.1
"""Share of the predicted loss that is given back at least, so that few attempts are needed."""


def relaxed(plan: FactorizePlan, evidence: Evidence[FactorizePlan]) -> FactorizePlan | None:
    """The plan with its most costly layers whole; None when none would be factorised."""
    cut = sorted((layer for layer in plan.layers if layer.rank is not None), key=lambda layer: -layer.loss)
    if not cut or evidence.failed not in ("fidelity", "latency"):
        return None
    total = sum(layer.loss for layer in cut)
    share = SAFETY * evidence.allowed / evidence.error if evidence.error > 0 else 0.5
    goal = total * min(share, 1 - LEAST)
    restored: dict[str, LayerPlan] = {}
    for layer in cut:
        if restored and total <= goal:
            break
        total -= layer.loss
        restored[layer.name] = whole(layer, Reason.RELAXED, "left whole because a gate failed")
    return plan.with_layers(restored) if len(restored) < len(cut) else None


def whole(layer: LayerPlan, code: Reason, why: str) -> LayerPlan:
    """The layer as it was."""
    return layer.model_copy(update={"rank": None, "energy": 1.0, "loss": 0.0, "code": code, "why": why})
