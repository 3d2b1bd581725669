"""Units of mixed precision, measured on ONNX Runtime sessions: what each loses in INT8, and what it gains in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxcomp.passes.base import Evidence
from onnxcomp.passes.quantize.plan import QuantPlan, Unit
from onnxcomp.report.reasons import Reason

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})

MAX_UNITS = 48
"""Neighbours are measured together where there would be more."""

TOGETHER = 8
"""Plans whose latencies are measured in turns: so many sessions are open at once."""

Keep = Callable[[Sequence[Unit]], None]


def weighted(plan: QuantPlan) -> list[str]:
    """INT8 nodes that hold weights, in the plan's (topological) order."""
    return [n for n, d in plan.nodes.items() if d.precision == "int8" and d.op_type in WEIGHTED]


def without(plan: QuantPlan, names: frozenset[str], reason: Reason, sentence: str) -> QuantPlan | None:
    """`plan` with `names` in float; None if that changes nothing, or leaves no weighted node."""
    names &= plan.changes()
    result = plan.with_float(names, reason, sentence)
    return result if names and weighted(result) else None


def groups(plan: QuantPlan) -> list[tuple[str, ...]]:
    """The nodes of each unit: a weighted node and the INT8 nodes behind it, up to the next weighted one. Those are
    fused with it, or would be converted back and forth without it. An embedding table is a unit of its own."""
    found: list[list[str]] = []
    for name, decision in plan.nodes.items():
        if decision.precision == "int8":
            if not found or (decision.op_type in WEIGHTED and WEIGHTED & {plan.nodes[n].op_type for n in found[-1]}):
                found.append([])
            found[-1].append(name)
    size = -(-len(found) // MAX_UNITS)
    joined = [tuple(n for group in found[i : i + size] for n in group) for i in range(0, len(found), size or 1)]
    return [*joined, *((name,) for name in plan.tables)]


def measure(
    plan: QuantPlan, evidence: Evidence[QuantPlan], known: Sequence[Unit] = (), keep: Keep | None = None
) -> tuple[Unit, ...]:
    """Every unit of `plan`: the error with only this unit in INT8 (one-in), and the latency that it saves, borders and
    all, because the whole model runs without it (leave-one-out).

    What the error falls by without a unit is no guide: where the outputs are off already it is noise. (Measured on
    PP-OCRv4 recognition: a correlation of −0.25 with the error of the unit alone.)

    Args:
        evidence: Measures other plans.
        known: Units that need no measuring.
        keep: Called with all units known so far, whenever there are new ones: long work can be taken up again.
    """
    assert evidence.error_of is not None
    before = {unit.nodes: unit for unit in known}
    wanted = groups(plan)
    done = {nodes: before[nodes] for nodes in wanted if nodes in before}
    missing = [nodes for nodes in wanted if nodes not in done]
    if not missing:
        return tuple(done[nodes] for nodes in wanted)
    for start in range(0, len(missing), TOGETHER):
        part = missing[start : start + TOGETHER]
        rests = [plan.with_float(frozenset(nodes), Reason.RELAXED, "") for nodes in part]
        slowdowns: Sequence[float | None] = (
            evidence.latencies_of(rests) if evidence.latencies_of else [None] * len(rests)
        )
        for nodes, slowdown in zip(part, slowdowns, strict=True):
            evidence.progress("measuring units of mixed precision", len(done), len(wanted))
            alone = plan.with_float(plan.changes() - frozenset(nodes), Reason.RELAXED, "")
            done[nodes] = Unit(nodes=nodes, error=evidence.error_of(alone), slowdown=slowdown)
        if keep is not None:
            keep([done[nodes] for nodes in wanted if nodes in done])
    return tuple(done[nodes] for nodes in wanted)
