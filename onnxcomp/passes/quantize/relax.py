"""Relaxing: what to give back when a gate fails. Other ranges first, then the nodes that cost most or gain least."""

from __future__ import annotations

from collections.abc import Callable

from onnxcomp.passes.base import Evidence
from onnxcomp.passes.quantize.mixed import mixed
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.passes.quantize.units import weighted, without
from onnxcomp.report.reasons import DESCRIPTIONS, Reason

CHEAP_SHARE = 0.2
"""Share of the INT8 multiply-accumulates that one relaxing for latency may give up."""


def relaxed(plan: QuantPlan, evidence: Evidence[QuantPlan]) -> QuantPlan | None:
    """The plan with less in INT8 or with better ranges; None when no weighted node would be left in INT8."""
    if evidence.failed == "fusion":
        return _without(plan, frozenset(evidence.nodes), Reason.NOT_FUSED)
    if evidence.failed == "latency":
        return _without(plan, _cheap(plan) - frozenset(plan.pinned), Reason.BORDER_COST)
    if evidence.failed == "fidelity" and evidence.error_of is not None:
        best = _best_ranges(plan, evidence.error_of)
        return best if best.tensors != plan.tensors else mixed(best, evidence)
    return None


def _best_ranges(plan: QuantPlan, error_of: Callable[[QuantPlan], float]) -> QuantPlan:
    """The plan with the ranges whose outputs err least, and no alternatives left to try."""
    if not plan.alternatives:
        return plan
    candidates = [plan, *(plan.with_ranges(method) for method in plan.alternatives)]
    return min(candidates, key=error_of).model_copy(update={"alternatives": {}})


def _without(plan: QuantPlan, names: frozenset[str], reason: Reason) -> QuantPlan | None:
    return without(plan, names, reason, DESCRIPTIONS[reason])


def _cheap(plan: QuantPlan) -> frozenset[str]:
    """What gains least in INT8: the islands with the least work for each converted element, up to a share of the MACs.

    When one island is left, the quarter of its weighted nodes with the fewest MACs.
    """
    quantized = plan.quantized()
    left = [i for i in plan.islands if quantized & frozenset(i.nodes)]
    if len(left) > 1:
        order = sorted(left, key=lambda i: i.macs / max(1, i.border))
        budget = CHEAP_SHARE * sum(i.macs for i in order)
        chosen, spent = set(order[0].nodes), order[0].macs
        for island in order[1:-1]:
            spent += island.macs
            if spent > budget:
                break
            chosen |= set(island.nodes)
        return frozenset(chosen)
    nodes = sorted(weighted(plan), key=lambda n: plan.nodes[n].macs or 0)
    return frozenset(nodes[: max(1, len(nodes) // 4)]) if len(nodes) > 1 else frozenset()
