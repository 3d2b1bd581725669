"""What a pass is told when its step fails a gate: how far off it was, and how to try other plans."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import onnx_ir as ir

from onnxcomp.calibration.readers import Reader
from onnxcomp.driver.workbench import Workbench
from onnxcomp.evaluate.judge import Judge, Judgement
from onnxcomp.evaluate.sensitivity import Memory, affordable_feeds
from onnxcomp.model.cost import cost
from onnxcomp.passes.base import Evidence, Pass
from onnxcomp.passes.latency_rounds import relative_latencies

FEWEST, MOST = 8, 24
"""Feeds that other plans are tried on, by what their work allows."""

PLANS = 64
"""Plans that are tried, about."""


@dataclass(frozen=True)
class Trials:
    """Other plans of one step, tried: what they lose and how long they take.

    Errors are taken on feeds that were learned from, where there are some: those that judge teach nothing. They are
    remembered on disk, so that an interrupted job goes on where it was.

    Args:
        step: The pass; `model`: what it is applied to; `bench`: the job.
    """

    step: Pass[Any]
    model: ir.Model
    bench: Workbench

    def evidence(self, plan: Any, judgement: Judgement) -> Evidence[Any]:
        """Evidence that `plan` was not close enough to the original."""
        gates = self.bench.judge.gates
        return Evidence(
            "fidelity",
            error=judgement.error,
            allowed=1.0 - gates.min_cosine if gates.min_cosine is not None else judgement.error / 2,
            error_of=self._error,
            latencies_of=partial(self._latencies, plan) if self.bench.target_is_host else None,
            progress=self.bench.clock.report,
        )

    def _error(self, plan: Any) -> float:
        self.bench.clock.report("trying other plans", 0, None)
        key = hashlib.sha256(plan.model_dump_json(exclude={"units", "histograms"}).encode()).hexdigest()
        known = self._memory.get(key, 1)
        if known is not None:
            return known[0]
        error = self._judge.quick_error(self._built(plan), self._feeds)
        self._memory.put(key, [error])
        return error

    def _latencies(self, plan: Any, others: Sequence[Any]) -> list[float]:
        return relative_latencies(self._built(plan), [self._built(other) for other in others], self.bench.context)

    def _built(self, plan: Any) -> ir.Model:
        return self.step.apply(self.model, plan, self.bench.context)

    @property
    def _reader(self) -> Reader:
        return self.bench.calibration if self.bench.calibration is not None else self.bench.evaluation

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.bench.loaded.model, self._reader, self.bench.context.session, self.bench.judge.gates)

    @cached_property
    def _feeds(self) -> int:
        return max(FEWEST, affordable_feeds(cost(self.model, self.bench.context.shapes).macs, PLANS, MOST))

    @cached_property
    def _memory(self) -> Memory:
        return Memory.of("plans", self.model, self._reader, self._feeds)
