"""Low rank is worth something only if it is better than what the same model gives without it, INT8 and all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from onnxcomp.driver.latency import versus
from onnxcomp.driver.steps import EXACT, STEP_SECONDS, StepResult, decide, run_step
from onnxcomp.driver.workbench import Workbench
from onnxcomp.model.save import weight_bytes
from onnxcomp.passes.base import Pass
from onnxcomp.report.figures import size
from onnxcomp.report.structures import StepReport, StepStatus

FACTORS = "factorize"


@dataclass(frozen=True)
class Kept:
    """A step that was kept, with the pass that made it."""

    step: Pass[Any]
    result: StepResult


def against_whole_layers(
    bench: Workbench, start: ir.Model, done: Sequence[Kept], steps: Sequence[StepReport]
) -> tuple[list[StepResult], list[StepReport]]:
    """The steps that stand: where steps were kept on top of a factorisation, they are run without it too, and the two
    models are measured beside each other; a factorisation that is not better is undone.

    Args:
        start: What the first step started from.
        done: The steps that were kept; `steps`: the reports of all.
    """
    results, reports = [kept.result for kept in done], list(steps)
    at = next((i for i, kept in enumerate(done) if kept.step.name == FACTORS), None)
    later = [] if at is None else done[at + 1 :]
    if at is None or not later:
        return results, reports
    rival, model = list(results[:at]), results[at - 1].model if at else start
    for kept in later:
        result = run_step(kept.step, model, bench, exact=kept.step.name in EXACT)
        if result.report.status is StepStatus.KEPT:
            rival.append(result)
            model = result.model
    low, factors = results[-1].model, results[at].report
    names = " and ".join(kept.step.name for kept in later)
    if len(rival) == at:
        told = f"without the factors, {names} would not have been kept: there is nothing to compare with"
        return _noted(results, reports, factors, told)
    timing = versus(bench, model, low, STEP_SECONDS)
    better, _ = decide(
        timing, weight_bytes(model) / max(1, weight_bytes(low)), bench.options.goal, False, bench.target_is_host
    )
    errors = [bench.judge.judge(m).error for m in (low, model)]
    doubt = "" if timing.verdict == "VALID" else " (latency not proven)"
    told = (
        f"after {names}, low rank against whole layers: {size(weight_bytes(low))} to {size(weight_bytes(model))} of "
        f"weights, {timing.speedup['after']:.2f} × as fast{doubt}, lowest cosine {1 - errors[0]:.4f} to "
        f"{1 - errors[1]:.4f}"
    )
    if better:
        return _noted(results, reports, factors, told)
    undone = {"status": StepStatus.UNDONE, "why": f"not better than the whole layers: {told}"}
    replaced = {r.name: r for r in (kept.report for kept in rival)}
    reports = [
        r.model_copy(update=undone) if r is factors else replaced.get(r.name, r) if r.status is StepStatus.KEPT else r
        for r in reports
    ]
    return rival, reports


def _noted(
    results: list[StepResult], reports: list[StepReport], factors: StepReport, told: str
) -> tuple[list[StepResult], list[StepReport]]:
    report = factors.model_copy(update={"summary": (*factors.summary, told)})
    return (
        [replace(r, report=report) if r.report is factors else r for r in results],
        [report if r is factors else r for r in reports],
    )
