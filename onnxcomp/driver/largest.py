"""The largest cut that passes the gates, found by bisection."""

from __future__ import annotations

from typing import Any, Protocol

import onnx_ir as ir

from onnxcomp.driver.steps import StepResult, run_step
from onnxcomp.driver.workbench import Workbench
from onnxcomp.passes.base import Pass
from onnxcomp.report.structures import Attempt, StepStatus

TRIALS = 5
SMALLEST, FIRST = 0.1, 0.6
"""Shares of the MACs that may remain: the least that is tried, and the first trial."""

NEAR = 0.02
"""Shares this close to each other are not worth another trial."""


class Cut(Pass[Any], Protocol):
    """A pass with a budget of multiply-accumulates."""

    def with_macs(self, share: float) -> Cut:
        """The same pass with another budget, that knows what this one found out."""
        ...


def largest_cut(step: Cut, model: ir.Model, bench: Workbench) -> StepResult:
    """Cuts `model` as far as the gates allow, in at most five trials; each is judged like any step."""
    low, high, share = SMALLEST, 1.0, FIRST
    best: StepResult | None = None
    attempts: list[Attempt] = []
    for _ in range(TRIALS):
        step = step.with_macs(share)
        result = run_step(step, model, bench, exact=False, most=1)
        attempts += [
            a.model_copy(update={"description": f"{share:.0%} of the MACs may remain"}) for a in result.report.attempts
        ]
        if result.report.status is StepStatus.KEPT:
            best, high = result, share
            if result.plan is not None and result.plan.shortfall() is not None:
                break  # this was all that may go
        else:
            low = share
            if result.report.status is StepStatus.NOTHING_TO_DO:
                break
        if high - low < NEAR:
            break
        share = (low + high) / 2
    chosen = best if best is not None else result
    report = chosen.report.model_copy(update={"attempts": tuple(attempts)})
    return StepResult(chosen.model, report, chosen.plan)
