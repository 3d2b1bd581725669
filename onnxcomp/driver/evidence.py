"""What a pass is told when its step fails a gate: how far off it was, and how to try other plans."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxcomp.driver.workbench import Workbench
from onnxcomp.evaluate.judge import Judge, Judgement
from onnxcomp.evaluate.sensitivity import Memory, affordable_feeds
from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import clone
from onnxcomp.model.shapes import bind
from onnxcomp.passes.base import Evidence, Pass
from onnxcomp.passes.latency_rounds import relative_latencies

FEWEST, MOST = 8, 24
"""Feeds that other plans are tried on, by what their work allows."""

PLANS = 64
"""Plans that are tried, about."""


def fidelity_evidence(
    step: Pass[Any], model: ir.Model, plan: Any, bench: Workbench, judgement: Judgement
) -> Evidence[Any]:
    """Evidence that `plan`, applied to `model`, was not close enough to the original.

    Errors of other plans are taken on feeds that were learned from, where there are some: those that judge teach
    nothing. They are remembered on disk, so that an interrupted job goes on where it was.
    """
    allowed = 1.0 - bench.judge.gates.min_cosine if bench.judge.gates.min_cosine is not None else judgement.error / 2
    reader = bench.calibration if bench.calibration is not None else bench.evaluation
    judge = Judge(bench.loaded.model, reader, bench.context.session, bench.judge.gates)
    bound = clone(model)
    bind(bound, bench.context.shapes)
    feeds = max(FEWEST, affordable_feeds(cost(bound).macs, PLANS, MOST))
    memory = Memory.of("plans", model, reader, feeds)

    def error_of(other: Any) -> float:
        bench.clock.report("trying other plans", 0, None)
        key = hashlib.sha256(other.model_dump_json(exclude={"units"}).encode()).hexdigest()
        known = memory.get(key, 1)
        if known is not None:
            return known[0]
        error = judge.quick_error(step.apply(model, other, bench.context), feeds)
        memory.put(key, [error])
        return error

    def latencies_of(others: Sequence[Any]) -> list[float]:
        built = [step.apply(model, other, bench.context) for other in others]
        return relative_latencies(step.apply(model, plan, bench.context), built, bench.context)

    return Evidence(
        "fidelity",
        error=judgement.error,
        allowed=allowed,
        error_of=error_of,
        latencies_of=latencies_of if bench.target_is_host else None,
        progress=bench.clock.report,
    )
