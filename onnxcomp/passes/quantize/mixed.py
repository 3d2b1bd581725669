"""Mixed precision: the units that become float again so that the rest holds its gate, at the least latency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxcomp.evaluate.allocation import knapsack
from onnxcomp.passes.base import Evidence
from onnxcomp.passes.quantize.plan import QuantPlan, Unit
from onnxcomp.passes.quantize.units import measure, without
from onnxcomp.report.reasons import DESCRIPTIONS, Reason

MARGIN = 0.9
"""Share of the allowed error that is aimed at: the feeds that judge are not those that the choice was made on."""

TRIALS = 6
"""Budgets that are tried: the errors of units don't add up exactly, so what a choice loses has to be measured."""

RETURNS = 8
"""Float units that are tried in INT8 again, at most, once a choice holds."""

LEAST = 1e-4
"""Slowdown of a unit that measured none: of two choices the one with less in float is the simpler."""


def mixed(plan: QuantPlan, evidence: Evidence[QuantPlan]) -> QuantPlan | None:
    """The plan with the cheapest units in float with which the error is as allowed; None when no weighted node would be
    left in INT8.

    With e_u the error of unit u alone and t_u the latency that it costs in float, minimise Σ t_u over the float
    units so that Σ e_u over the others is at most a budget (a knapsack); the budget is found by bisection on what the
    chosen plans really lose. Then units go back to INT8, the slowest in float first, while the error allows it.
    """
    assert evidence.error_of is not None
    units = plan.units or measure(plan, evidence)
    plan = plan.model_copy(update={"units": units})
    free = [
        u
        for u in units
        if u.precision == "auto" and plan.changes().intersection(u.nodes) and not set(plan.pinned).intersection(u.nodes)
    ]
    total = sum(u.error for u in free)
    whole = evidence.error_of(plan)
    if total <= 0 or whole <= 0 or evidence.error <= 0:
        return None
    allowed = MARGIN * whole * min(1.0, evidence.allowed / evidence.error)
    low, high, share = 0.0, 1.0, allowed / whole
    best: list[Unit] | None = None
    last: list[Unit] = []
    for trial in range(TRIALS):
        evidence.progress("choosing the units in float", trial, TRIALS)
        chosen = _cheapest(free, plan, share * total)
        candidate = _in_float(plan, chosen)
        if candidate is not None and evidence.error_of(candidate) <= allowed:
            best, low = chosen, share
        else:
            high = share
        last = chosen if candidate is not None and best is None else last
        share = (low + high) / 2
    if best is None:
        return _in_float(plan, last)
    for unit in sorted(best, key=lambda u: -_cost(u, plan))[:RETURNS]:
        fewer = [u for u in best if u is not unit]
        candidate = _in_float(plan, fewer)
        if candidate is not None and evidence.error_of(candidate) <= allowed:
            best = fewer
    return _in_float(plan, best)


def _cheapest(units: Sequence[Unit], plan: QuantPlan, budget: float) -> list[Unit]:
    """The units in float: the least latency so that the errors of the others sum to at most `budget`."""
    errors = [np.array([unit.error, 0.0]) for unit in units]
    slowdowns = [np.array([0.0, _cost(unit, plan)]) for unit in units]
    found = knapsack(errors, slowdowns, budget)
    return [unit for unit, choice in zip(units, found.choices, strict=True) if choice]


def _cost(unit: Unit, plan: QuantPlan) -> float:
    """Share of the latency that the unit costs in float; of the multiply-accumulates, where no latency is known."""
    if unit.slowdown is not None:
        return max(unit.slowdown - 1.0, LEAST)
    macs = {name: decision.macs or 0 for name, decision in plan.nodes.items()}
    return max(sum(macs.get(n, 0) for n in unit.nodes) / max(1, sum(macs.values())), LEAST)


def _in_float(plan: QuantPlan, units: Sequence[Unit]) -> QuantPlan | None:
    names = frozenset(name for unit in units for name in unit.nodes)
    return without(plan, names, Reason.RELAXED, DESCRIPTIONS[Reason.RELAXED])
