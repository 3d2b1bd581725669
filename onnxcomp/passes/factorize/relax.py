"""Relaxing: which layers become whole again when a gate fails."""

from __future__ import annotations

from onnxcomp.passes.base import Evidence
from onnxcomp.passes.factorize.plan import FactorizePlan
from onnxcomp.passes.giving_back import given_back
from onnxcomp.report.reasons import Reason


def relaxed(plan: FactorizePlan, evidence: Evidence[FactorizePlan]) -> FactorizePlan | None:
    """The plan with its most costly layers whole; None when none would be factorised."""
    restored = given_back({layer.name: layer.loss for layer in plan.layers if layer.rank is not None}, evidence)
    if restored is None:
        return None
    why = "left whole because a gate failed"
    whole = {"rank": None, "energy": 1.0, "loss": 0.0, "code": Reason.RELAXED, "why": why}
    return plan.with_layers({x.name: x.model_copy(update=whole) for x in plan.layers if x.name in restored})
