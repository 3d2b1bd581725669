"""The ways to quantise: static, dynamic, weights alone, 16-bit floats; and the best measured one of those that fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import onnx_ir as ir
from pydantic import BaseModel

from onnxcomp.driver.latency import measure
from onnxcomp.driver.options import Goal
from onnxcomp.driver.registry import checked, pass_of
from onnxcomp.driver.steps import GAIN, STEP_SECONDS, StepResult, lacks_data, not_run, run_step
from onnxcomp.driver.workbench import Workbench
from onnxcomp.errors import UsageError
from onnxcomp.model.cost import cost
from onnxcomp.model.save import weight_bytes
from onnxcomp.passes.base import Pass, Plan
from onnxcomp.passes.dynamic.config import DynamicConfig
from onnxcomp.passes.precision.precision import PrecisionConfig
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.weight_only.config import WeightOnlyConfig
from onnxcomp.report.figures import size
from onnxcomp.report.structures import StepStatus
from onnxcomp.report.text import meant

NEAR: Mapping[Goal, float] = {"balanced": 1.15, "latency": GAIN, "size": GAIN}
"""How much slower than the fastest (with "size", larger than the smallest) a candidate may be that is better
otherwise."""

LEAST_SHARE = 0.5
"""Share of the weights or of the multiply-accumulates that a candidate must change to be worth a measurement."""


@dataclass(frozen=True)
class Mode:
    """A way to quantise.

    Args:
        config: Of its pass; `options`: names of the options that it takes; `own`: values of this mode, where none are
            given.
    """

    config: type[BaseModel]
    options: tuple[str, ...] = ()
    own: Mapping[str, str] = field(default_factory=dict)

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What of the options that were given is meant for this mode."""
        return dict(self.own) | {name: given[name] for name in self.options if name in given}


MODES: Mapping[str, Mode] = {
    "static": Mode(QuantizeConfig, ("ranges", "smooth", "correct", "sensitivity"), {"correct": "none"}),
    "dynamic": Mode(DynamicConfig),
    "weight-only": Mode(WeightOnlyConfig, ("bits", "block", "method")),
    "fp16": Mode(PrecisionConfig, own={"dtype": "fp16"}),
    "bf16": Mode(PrecisionConfig, own={"dtype": "bf16"}),
}

CANDIDATES: Mapping[str, tuple[str, ...]] = {
    "cpu": ("static", "dynamic", "weight-only"),
    "cuda": ("fp16", "weight-only"),
    "tensorrt": ("static", "fp16"),
    "qnn": ("static",),
}
"""What `auto` tries, by execution provider of the target."""


def check_options(mode: str, given: Mapping[str, Any]) -> None:
    """There is such a mode, and every option that was given means something in it.

    Raises:
        UsageError: There is none, or one does not.
    """
    if mode != "auto" and mode not in MODES:
        hint = meant(mode, [*MODES, "auto"]) or f"one of {', '.join(MODES)}, auto"
        raise UsageError(f"unknown mode {mode!r}", hint=hint)
    for name in given:
        owners = [m for m, facts in MODES.items() if name in facts.options]
        if mode != "auto" and mode not in owners:
            raise UsageError(f"--{name} means nothing with --mode {mode}; it belongs to {' and '.join(owners)}")


def pass_of_mode(name: str, given: Mapping[str, Any]) -> Pass[Any]:
    """The pass of a mode, with what of the options is meant for it."""
    return pass_of(checked(MODES[name].config, MODES[name].values(given)))


def candidates(
    static: QuantizeConfig, bench: Workbench, given: Mapping[str, Any] = MappingProxyType({})
) -> list[Pass[Any]]:
    """The ways to quantise that fit the target.

    Args:
        static: Config of the static one; `given`: options for the others.
    """
    names = CANDIDATES[bench.target.provider]
    return [pass_of(static) if name == "static" else pass_of_mode(name, given) for name in names]


def best_of(steps: Sequence[Pass[Any]], model: ir.Model, bench: Workbench) -> tuple[int | None, list[StepResult]]:
    """Every candidate behind the gates of `optimize`, and which of them is the best measured one; None if none passed.

    Of those that are nearly as fast as the fastest the ones that are nearly as small as the smallest (with the goal
    "size" the other way round), and of these the one that is closest to the original. What is near, `NEAR` says.
    """
    results = [_tried(step, model, bench) for step in steps]
    kept = [i for i, r in enumerate(results) if r.report.status is StepStatus.KEPT]
    if not kept:
        return None, results
    speeds, sizes = dict.fromkeys(kept, 1.0), {i: weight_bytes(results[i].model) for i in kept}
    if len(kept) > 1 and bench.target_is_host:
        models: dict[str, ir.Model] = {"before": model} | {str(i): results[i].model for i in kept}
        timing = measure(
            models, bench.feed, bench.context.session, bench.clock, min_seconds=STEP_SECONDS * len(kept), attempts=2
        )
        speeds = {i: timing.speedup[str(i)] for i in kept}
    errors = {i: _error(results[i]) for i in kept}
    best = _best(speeds, sizes, errors, bench.options.goal)
    told = f"{steps[best].name} is better: {speeds[best]:.2f} × as fast, {size(sizes[best])} of weights"
    for i in kept:
        if i != best:
            why = f"{told}, to {speeds[i]:.2f} × and {size(sizes[i])}"
            report = results[i].report.model_copy(update={"status": StepStatus.UNDONE, "why": why})
            results[i] = StepResult(model, report, None)
    return best, results


def _best(speeds: Mapping[int, float], sizes: Mapping[int, int], errors: Mapping[int, float], goal: Goal) -> int:
    """Near the best in what the goal is about first, then in the other; of those left, the closest to the original."""

    def fast(among: Iterable[int], factor: float) -> list[int]:
        return [i for i in among if speeds[i] >= max(speeds[k] for k in among) / factor]

    def small(among: Iterable[int], factor: float) -> list[int]:
        return [i for i in among if sizes[i] <= min(sizes[k] for k in among) * factor]

    first, second = (small, fast) if goal == "size" else (fast, small)
    return min(second(first(list(speeds), NEAR[goal]), GAIN), key=lambda i: errors[i])


def _error(result: StepResult) -> float:
    """1 − cosine of the worst output, as judged."""
    return max((1 - f.cosine for f in result.report.attempts[-1].fidelity), default=0.0)


def _tried(step: Pass[Any], model: ir.Model, bench: Workbench) -> StepResult:
    plan: Plan | None = None if lacks_data(step, bench) else step.plan(model, bench.context)
    if plan is not None and plan.changes():
        weights, macs = _share_of_weights(model, plan.changes()), _share_of_macs(model, plan.changes(), bench)
        if max(weights, macs) < LEAST_SHARE:
            why = f"not tried: what it can change holds {weights:.0%} of the weights and {macs:.0%} of the MACs"
            return not_run(step, model, why, plan)
    return run_step(step, model, bench, exact=False, plan=plan)


def _share_of_macs(model: ir.Model, names: frozenset[str], bench: Workbench) -> float:
    """Multiply-accumulates of these nodes, over all that are known."""
    counted = cost(model, bench.context.shapes)
    return sum(counted.by_node.get(name, 0) for name in names) / max(1, counted.macs)


def _share_of_weights(model: ir.Model, names: frozenset[str]) -> float:
    """Bytes of the initializers that these nodes read, over all."""
    read = {id(v): v for node in model.graph if node.name in names for v in node.inputs if v is not None}
    held = sum(v.const_value.nbytes for v in read.values() if v.const_value is not None and v.is_initializer())
    return held / max(1, weight_bytes(model))
