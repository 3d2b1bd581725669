"""What is chosen by the error of the outputs on feeds that nothing else is learned from: smoothing, ranges,
corrections; and the measurement of every unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Reader
from onnxcomp.evaluate.sensitivity import Sensitivity, affordable_feeds
from onnxcomp.passes.base import Context, Evidence
from onnxcomp.passes.latency_rounds import relative_latencies
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.correct import correctable, shifts
from onnxcomp.passes.quantize.draft import Preparation, draft, prepared, written
from onnxcomp.passes.quantize.equalise import channel_factors
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.passes.quantize.sensitivity_file import decided, read_units, write_units
from onnxcomp.passes.quantize.sites import Site
from onnxcomp.passes.quantize.smooth import channel_sizes, factors, smoothable, smoothed
from onnxcomp.passes.quantize.styles import sites_for
from onnxcomp.passes.quantize.tune import TRIALS, WORTH, tuned
from onnxcomp.passes.quantize.units import measure
from onnxcomp.runtime.host import detect_host, detect_target

ALPHAS = (0.5, 0.65, 0.8)
HELD, LEARNED = 32, 64
"""Feeds to choose by, and to plan candidates with."""

WORTH_SMOOTHING = 4
"""Activations of products with matrices, from which on smoothing is tried: a classifier behind convolutions has one."""


def choose_smoothing(config: QuantizeConfig, model: ir.Model, settled: Sequence[Site], ctx: Context) -> Preparation:
    """Factors for the activations of products with matrices; none where they don't lower the error."""
    groups = smoothable(settled)
    asked = config.smooth != "auto"
    if config.smooth == "none" or len(groups) < (1 if asked else WORTH_SMOOTHING) or ctx.calibration is None:
        return Preparation()
    learn, held = _chosen_by(ctx.calibration)
    sizes = channel_sizes(model, list(groups), learn, ctx.session)
    readers = {s.name: name for name, users in groups.items() for s in users}
    alphas = (config.smooth,) if isinstance(config.smooth, float) else ALPHAS
    found = [Preparation(factors(groups, sizes, alpha), readers) for alpha in alphas]
    if asked or held is None:
        chosen = alphas[len(found) // 2]
        told = "" if asked else ", the middle one, because there are too few feeds to choose by"
        return replace(found[len(found) // 2], choice=f"α = {chosen:g}{told}")
    judge = Sensitivity(model, held, ctx.session, HELD)
    part = replace(ctx, calibration=learn)
    candidates = [Preparation(), *found]
    errors: list[float] = []
    for i, candidate in enumerate(candidates):
        ctx.progress("choosing how to smooth", i, len(candidates))
        errors.append(judge.error(written(model, draft(config, model, candidate, part))))
    best = int(np.argmin(errors))
    if best == 0:
        return Preparation(choice=f"none: no α lowers the error of the outputs, {errors[0]:.2g}")
    told = f"error of the outputs {errors[best]:.2g}, without smoothing {errors[0]:.2g}"
    return replace(candidates[best], choice=f"α = {alphas[best - 1]:g}: {told}")


def improved(
    config: QuantizeConfig, model: ir.Model, plan: QuantPlan, preparation: Preparation, ctx: Context
) -> QuantPlan:
    """The plan with equalised channels, other ranges and corrected biases, each where the outputs' error falls."""
    assert ctx.calibration is not None
    if not plan.quantized():
        return plan
    learn, held = _chosen_by(ctx.calibration)
    if held is None:
        few = "none: too few feeds to hold some back"
        return plan.model_copy(update={"correction_choice": few})
    macs = sum(decision.macs or 0 for decision in plan.nodes.values())
    judge = Sensitivity(model, held, ctx.session, affordable_feeds(macs, TRIALS, HELD))

    def error_of(candidate: QuantPlan) -> float:
        return judge.error(written(model, candidate))

    def during(stage: str) -> Callable[[int, int | None], None]:
        return lambda done, total: ctx.progress(stage, done, total)

    equal = channel_factors(smoothed(model, plan.smoothing, plan.smoothed), learn, ctx.session)
    if equal:
        other = draft(config, model, replace(preparation, equalization=equal), ctx)
        error, left = error_of(plan), error_of(other)
        told = f"error of the outputs {left:.2g}, without {error:.2g}"
        plan = other.model_copy(update={"equalization_choice": told}) if left < WORTH * error else plan
    plan, error = tuned(plan, config.ranges, error_of, during("choosing ranges"))
    base = prepared(model, plan)
    found_sites, _ = sites_for(ctx.target.int8.placement, base, (), ())
    sites = [site for site in correctable(found_sites) if site.name in plan.quantized()]
    if not sites:
        return plan
    found = shifts(base, sites, plan.tensors, learn, ctx.session, during("correcting biases"))
    after = plan.model_copy(update={"corrections": found})
    left = error_of(after)
    if left < error:
        choice = f"{len(found)}: error of the outputs {left:.2g}, without {error:.2g}"
        return after.model_copy(update={"correction_choice": choice})
    return plan.model_copy(update={"correction_choice": f"none: it does not lower the error, {error:.2g}"})


def with_sensitivity(model: ir.Model, plan: QuantPlan, ctx: Context, path: str) -> QuantPlan:
    """The plan with its units measured, where the file at `path` doesn't know them, and with what that decides."""
    assert ctx.calibration is not None
    known = read_units(path, plan)
    judge = Sensitivity(model, ctx.calibration, ctx.session, HELD)

    def latencies_of(others: Sequence[QuantPlan]) -> list[float]:
        built = [written(model, other) for other in others]
        return relative_latencies(written(model, plan), built, ctx)

    evidence: Evidence[QuantPlan] = Evidence(
        "fidelity",
        error_of=lambda other: judge.error(written(model, other)),
        latencies_of=latencies_of if ctx.target.name == detect_target(detect_host()) else None,
        progress=ctx.progress,
    )
    return decided(plan, measure(plan, evidence, known, keep=lambda units: write_units(path, plan, units)))


def _chosen_by(reader: Reader) -> tuple[Reader, Reader | None]:
    """A part of the feeds to learn from, and a few others to choose by; None with too few of them."""
    count = reader.count if reader.count is not None else sum(1 for _ in reader)
    held = min(HELD, count // 5)
    if not held:
        return reader, None
    return reader.part(0, min(count - held, LEARNED)), reader.part(count - held, count)
