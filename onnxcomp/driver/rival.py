"""Low rank is worth something only if it is better than what the same model gives without it, INT8 and all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxcomp.driver.latency import versus
from onnxcomp.driver.steps import STEP_SECONDS, StepResult, decide
from onnxcomp.driver.workbench import Workbench
from onnxcomp.model.save import weight_bytes
from onnxcomp.report.figures import size
from onnxcomp.report.structures import StepReport, StepStatus

FACTORS = "factorize"


@dataclass
class Progression:
    """What steps came to: the results of those that were kept, and the reports of all."""

    done: list[StepResult] = field(default_factory=list)
    reports: list[StepReport] = field(default_factory=list)

    def model(self, start: ir.Model) -> ir.Model:
        return self.done[-1].model if self.done else start


def against_whole_layers(
    bench: Workbench, start: ir.Model, found: Progression, later: Callable[[ir.Model], Progression] | None
) -> Progression:
    """The steps that stand: the steps behind a factorisation that was kept are run without it too, and the two models
    are measured beside each other; a factorisation that is not better is undone.

    Args:
        start: What the first step started from.
        found: The steps with the factorisation.
        later: Runs the steps behind it on a model; None if there are none.
    """
    at = next((i for i, result in enumerate(found.done) if result.report.name == FACTORS), None)
    if at is None or later is None:
        return found
    before = Progression(found.done[:at])
    rival, low, factors = later(before.model(start)), found.done[-1].model, found.done[at].report
    if not rival.done:
        return _noted(found, factors, "without the factors no later step would have been kept")
    model = rival.done[-1].model
    names = " and ".join(result.report.name for result in rival.done)
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
        return _noted(found, factors, told)
    undone = {"status": StepStatus.UNDONE, "why": f"not better than the whole layers: {told}"}
    first = found.reports.index(factors)
    return Progression(
        [*before.done, *rival.done],
        [*found.reports[:first], factors.model_copy(update=undone), *rival.reports],
    )


def _noted(found: Progression, factors: StepReport, told: str) -> Progression:
    report = factors.model_copy(update={"summary": (*factors.summary, told)})
    return Progression(
        [replace(r, report=report) if r.report is factors else r for r in found.done],
        [report if r is factors else r for r in found.reports],
    )
