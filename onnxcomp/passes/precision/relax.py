"""Relaxing: which nodes become float32 again when a gate fails."""

from __future__ import annotations

from onnxcomp.passes.base import Evidence
from onnxcomp.passes.giving_back import given_back
from onnxcomp.passes.precision.plan import PrecisionPlan

MAX_GROUPS = 16
"""Errors are measured for at most so many groups of neighbouring nodes: one session each."""


def relaxed(plan: PrecisionPlan, evidence: Evidence[PrecisionPlan]) -> PrecisionPlan | None:
    """The plan without the groups of nodes whose 16 bits cost most; None when none would be left.

    Latency is nothing that giving back nodes would help: every border adds casts.
    """
    if evidence.failed != "fidelity" or evidence.error_of is None:
        return None
    if not plan.sensitivity:
        plan = plan.model_copy(update={"sensitivity": _sensitivity(plan, evidence)})
    restored = given_back({n: plan.sensitivity.get(n, 0.0) for n in plan.nodes if n in plan.changes()}, evidence)
    return None if restored is None else plan.with_float(frozenset(restored))


def _sensitivity(plan: PrecisionPlan, evidence: Evidence[PrecisionPlan]) -> dict[str, float]:
    """The error of the outputs with only one group of neighbours in 16 bits, shared out to its nodes."""
    assert evidence.error_of is not None
    halved = plan.changes()
    order = [name for name in plan.nodes if name in halved]
    size = -(-len(order) // MAX_GROUPS)
    result: dict[str, float] = {}
    for start in range(0, len(order), size):
        group = order[start : start + size]
        error = evidence.error_of(plan.with_float(halved - frozenset(group)))
        result |= dict.fromkeys(group, error / len(group))
    return result
