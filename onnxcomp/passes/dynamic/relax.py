"""Relaxing: which layers compute in float again when a gate fails."""

from __future__ import annotations

from onnxcomp.passes.base import Evidence
from onnxcomp.passes.dynamic.plan import DynamicPlan
from onnxcomp.passes.giving_back import given_back
from onnxcomp.passes.one_in import one_in
from onnxcomp.report.reasons import DESCRIPTIONS, Reason


def relaxed(plan: DynamicPlan, evidence: Evidence[DynamicPlan]) -> DynamicPlan | None:
    """The plan with less in INT8; None when no layer would be left.

    For fidelity the layers that cost the outputs most go first; for latency the smallest half, which gains least.
    """
    if evidence.failed == "fusion":
        named = frozenset(x.name for x in plan.integer() if set(x.nodes) & set(evidence.nodes))
        return _without(plan, named, Reason.NOT_FUSED)
    if evidence.failed == "latency":
        order = sorted(plan.integer(), key=lambda layer: layer.elements)
        return _without(plan, frozenset(x.name for x in order[: -(-len(order) // 2)]), Reason.SLOWER)
    measured = _measured(plan, evidence)
    losses = {layer.name: layer.loss or 0.0 for layer in measured.integer()}
    restored = given_back(losses, evidence)
    return None if restored is None else _without(measured, frozenset(restored), Reason.RELAXED)


def _measured(plan: DynamicPlan, evidence: Evidence[DynamicPlan]) -> DynamicPlan:
    """With the loss of each layer; without a way to measure, by its share of the weights."""
    layers = plan.integer()
    error_of = evidence.error_of
    if all(layer.loss is not None for layer in layers):
        return plan
    if error_of is None:
        return plan.with_losses({layer.name: float(layer.elements) for layer in layers})
    return plan.with_losses(one_in([x.name for x in layers], lambda names: error_of(plan.only(names))))


def _without(plan: DynamicPlan, names: frozenset[str], code: Reason) -> DynamicPlan | None:
    result = plan.without(names, code, DESCRIPTIONS[code])
    return result if result.integer() and result.integer() != plan.integer() else None
