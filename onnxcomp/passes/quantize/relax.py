"""Relaxing: what to give back when a gate fails. Other ranges first, then the nodes that cost most or gain least."""

from __future__ import annotations

from collections.abc import Callable

from onnxcomp.passes.base import Evidence
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.report.reasons import DESCRIPTIONS, Reason

MAX_GROUPS = 32
"""Sensitivity is measured for at most so many groups of neighbouring nodes: one session each."""

CHEAP_SHARE = 0.2
"""Share of the INT8 multiply-accumulates that one relaxing for latency may give up."""

SAFETY = 0.6
"""Share of the allowed error that a relaxed plan aims at: errors of nodes do not add up exactly."""


def relaxed(plan: QuantPlan, evidence: Evidence[QuantPlan]) -> QuantPlan | None:
    """The plan with less in INT8 or with better ranges; None when no weighted node would be left in INT8."""
    if evidence.failed == "fusion":
        return _without(plan, frozenset(evidence.nodes), Reason.NOT_FUSED)
    if evidence.failed == "latency":
        return _without(plan, _cheap(plan), Reason.BORDER_COST)
    if evidence.failed == "fidelity" and evidence.error_of is not None:
        best = _best_ranges(plan, evidence.error_of)
        if best.tensors != plan.tensors:
            return best
        plan = best
        measured = plan if plan.sensitivity else plan.model_copy(update={"sensitivity": _sensitivity(plan, evidence)})
        return _without(measured, _sensitive(measured, evidence), Reason.RELAXED)
    return None


def _best_ranges(plan: QuantPlan, error_of: Callable[[QuantPlan], float]) -> QuantPlan:
    """The plan with the ranges whose outputs err least, and no alternatives left to try."""
    if not plan.alternatives:
        return plan
    candidates = [plan, *(plan.with_ranges(method) for method in plan.alternatives)]
    return min(candidates, key=error_of).model_copy(update={"alternatives": {}})


def _weighted(plan: QuantPlan) -> list[str]:
    """INT8 nodes that hold weights, in the plan's (topological) order."""
    return [n for n, d in plan.nodes.items() if d.precision == "int8" and d.op_type in ("Conv", "Gemm", "MatMul")]


def _without(plan: QuantPlan, names: frozenset[str], reason: Reason) -> QuantPlan | None:
    """`plan` with `names` in float; None if that changes nothing, or leaves no weighted node."""
    names &= plan.quantized()
    if not names:
        return None
    result = plan.with_float(names, reason, DESCRIPTIONS[reason])
    return result if _weighted(result) else None


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
    nodes = sorted(_weighted(plan), key=lambda n: plan.nodes[n].macs or 0)
    return frozenset(nodes[: max(1, len(nodes) // 4)]) if len(nodes) > 1 else frozenset()


def _sensitivity(plan: QuantPlan, evidence: Evidence[QuantPlan]) -> dict[str, float]:
    """One-in: the error of the outputs with only one group of neighbouring weighted nodes in INT8."""
    assert evidence.error_of is not None
    order = _weighted(plan)
    size = -(-len(order) // MAX_GROUPS)
    result: dict[str, float] = {}
    for start in range(0, len(order), size):
        group = order[start : start + size]
        others = plan.quantized() - frozenset(group)
        error = evidence.error_of(plan.with_float(others, Reason.RELAXED, ""))
        result |= dict.fromkeys(group, error / len(group))
    return result


def _sensitive(plan: QuantPlan, evidence: Evidence[QuantPlan]) -> frozenset[str]:
    """The fewest nodes whose errors, taken as additive, bring the total under the allowed error."""
    order = sorted(_weighted(plan), key=lambda n: -plan.sensitivity.get(n, 0.0))
    total = sum(plan.sensitivity.get(n, 0.0) for n in order)
    if total <= 0 or evidence.error <= 0:
        return frozenset(order[: max(1, len(order) // 4)])
    remaining = total
    chosen: list[str] = []
    goal = total * min(0.9, SAFETY * evidence.allowed / evidence.error)
    for name in order:
        if remaining <= goal and chosen:
            break
        chosen.append(name)
        remaining -= plan.sensitivity.get(name, 0.0)
    return frozenset(chosen)
