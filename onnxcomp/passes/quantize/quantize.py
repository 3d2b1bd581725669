"""The pass: static INT8 from calibration feeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Annotated, Literal

import numpy as np
import onnx_ir as ir
from pydantic import Field

from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.stream import Observed, observe
from onnxcomp.errors import UsageError
from onnxcomp.evaluate.sensitivity import Sensitivity, affordable_feeds
from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import clone
from onnxcomp.model.shapes import bind
from onnxcomp.ops.attributes import constant
from onnxcomp.ops.kernels import QUANTIZATION_OPERATORS, Role, is_depthwise, padded_inputs
from onnxcomp.ops.macs import static_shape
from onnxcomp.passes.base import CALIBRATION_HINT, Context, Evidence, Proof, header
from onnxcomp.passes.quantize import affine
from onnxcomp.passes.quantize.audit import audit, unfused
from onnxcomp.passes.quantize.correct import correctable, corrected, shifts
from onnxcomp.passes.quantize.equalise import channel_factors, equalised
from onnxcomp.passes.quantize.placement import islands, quantized_values, settle, ties
from onnxcomp.passes.quantize.plan import NodeDecision, QParams, QuantPlan
from onnxcomp.passes.quantize.ranges import FIXED_RANGES, METHODS, Method
from onnxcomp.passes.quantize.relax import relaxed
from onnxcomp.passes.quantize.sites import Site, find_sites
from onnxcomp.passes.quantize.smooth import Factors, channel_sizes, factors, smoothable, smoothed
from onnxcomp.passes.quantize.tables import find_tables
from onnxcomp.passes.quantize.through import seen_through
from onnxcomp.passes.quantize.tune import TRIALS, WORTH, tuned
from onnxcomp.passes.quantize.write import write_qdq
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Record, Skip

FIRST_OPSET = 13
"""The first with DequantizeLinear along an axis."""


ALPHAS = (0.5, 0.65, 0.8)
HELD, LEARNED = 32, 64
"""Feeds to choose the smoothing by, and to plan its candidates with."""

WORTH_SMOOTHING = 4
"""Activations of products with matrices, from which on smoothing is tried: a classifier behind convolutions has one."""


class QuantizeConfig(Record):
    """Options of the pass.

    Args:
        ranges: How activation ranges are chosen; see `onnxcomp.passes.quantize.ranges`.
        exact_histograms: Use every value of every tensor instead of a regular sample.
        smooth: SmoothQuant for products with matrices: α, `none`, or the best of a few by the error of the outputs on
            feeds that nothing else is learned from.
        correct: Ranges by parts of the model and biases that make up for rounded weights, kept where the error of the
            outputs falls on feeds that nothing else is learned from. `none` for the fewest seconds.
    """

    kind: Literal["quantize"] = Field(default="quantize", alias="pass")
    ranges: Method = "mse"
    exact_histograms: bool = False
    smooth: Literal["auto", "none"] | Annotated[float, Field(ge=0, le=1)] = "auto"
    correct: Literal["auto", "none"] = "auto"

    model_config = Record.model_config | {"populate_by_name": True}


class Quantize:
    """Static INT8: uint8 activations, int8 weights per output channel, as QDQ that ONNX Runtime fuses into integer
    kernels."""

    name = "quantize"
    needs_calibration = True
    plan_type = QuantPlan

    def __init__(self, config: QuantizeConfig | None = None) -> None:
        self.config = config or QuantizeConfig()

    def plan(self, model: ir.Model, ctx: Context) -> QuantPlan:
        """Chooses sites, watches their tensors over the calibration feeds, and fixes every scale.

        Raises:
            UsageError: No calibration feeds.
            DataError: The calibration set is empty or can't be read.
        """
        present = sorted({n.op_type for n in model.graph.all_nodes() if n.op_type in QUANTIZATION_OPERATORS})
        if present:
            sentence = f"the model holds {', '.join(present[:4])} already"
            skip = Skip(node="", op_type=present[0], code=Reason.ALREADY_QUANTIZED, sentence=sentence)
            return _plan(header(self.name, model, ctx, (skip,)))
        opset = model.opset_imports.get("", 0)
        if opset < FIRST_OPSET:
            sentence = (
                f"scales for each channel need opset {FIRST_OPSET}; the model has {opset} and could not be lifted"
            )
            skip = Skip(node="", op_type="", code=Reason.OPSET, sentence=sentence)
            return _plan(header(self.name, model, ctx, (skip,)))
        sites, skips = find_sites(model, ctx.only, ctx.exclude)
        settled = settle(sites)
        if not any(s.kernel.role is Role.WEIGHTED for s in settled):
            return _plan(header(self.name, model, ctx, skips))
        if ctx.calibration is None:
            raise UsageError("static INT8 needs calibration data", hint=CALIBRATION_HINT)
        smoothing = self._smoothing(model, settled, ctx)
        plan = self._plan_smoothed(model, smoothing, ctx)
        return self._improved(model, plan, smoothing, ctx) if self.config.correct == "auto" else plan

    def _improved(self, model: ir.Model, plan: QuantPlan, smoothing: Smoothing, ctx: Context) -> QuantPlan:
        """The plan with equalised channels, other ranges and corrected biases, each where the outputs' error falls."""
        assert ctx.calibration is not None
        learn, held = _chosen_by(ctx.calibration)
        if held is None:
            few = "none: too few feeds to hold some back"
            return plan.model_copy(update={"correction_choice": few})
        macs = sum(decision.macs or 0 for decision in plan.nodes.values())
        judge = Sensitivity(model, held, ctx.session, affordable_feeds(macs, TRIALS, HELD))

        def error_of(candidate: QuantPlan) -> float:
            return judge.error(self.apply(model, candidate, ctx))

        def during(stage: str) -> Callable[[int, int | None], None]:
            return lambda done, total: ctx.progress(stage, done, total)

        equal = channel_factors(smoothed(model, plan.smoothing, plan.smoothed), learn, ctx.session)
        if equal:
            other = self._plan_smoothed(model, replace(smoothing, equalization=equal), ctx)
            error, left = error_of(plan), error_of(other)
            told = f"error of the outputs {left:.2g}, without {error:.2g}"
            plan = other.model_copy(update={"equalization_choice": told}) if left < WORTH * error else plan
        plan, error = tuned(plan, self.config.ranges, error_of, during("choosing ranges"))
        base = _prepared(model, plan)
        sites = [s for s in correctable(find_sites(base, (), ())[0]) if s.name in plan.quantized()]
        if not sites:
            return plan
        found = shifts(base, sites, plan.tensors, learn, ctx.session, during("correcting biases"))
        after = plan.model_copy(update={"corrections": found})
        left = error_of(after)
        if left < error:
            choice = f"{len(found)}: error of the outputs {left:.2g}, without {error:.2g}"
            return after.model_copy(update={"correction_choice": choice})
        return plan.model_copy(update={"correction_choice": f"none: it does not lower the error, {error:.2g}"})

    def _smoothing(self, model: ir.Model, settled: Sequence[Site], ctx: Context) -> Smoothing:
        """Factors for the activations of products with matrices; none where they don't lower the error."""
        groups = smoothable(settled)
        asked = self.config.smooth != "auto"
        if self.config.smooth == "none" or len(groups) < (1 if asked else WORTH_SMOOTHING) or ctx.calibration is None:
            return Smoothing()
        learn, held = _chosen_by(ctx.calibration)
        sizes = channel_sizes(model, list(groups), learn, ctx.session)
        readers = {s.name: name for name, users in groups.items() for s in users}
        alphas = (self.config.smooth,) if isinstance(self.config.smooth, float) else ALPHAS
        found = [Smoothing(factors(groups, sizes, alpha), readers) for alpha in alphas]
        if asked or held is None:
            chosen = alphas[len(found) // 2]
            told = "" if asked else ", the middle one, because there are too few feeds to choose by"
            return replace(found[len(found) // 2], choice=f"α = {chosen:g}{told}")
        judge = Sensitivity(model, held, ctx.session, HELD)
        part = replace(ctx, calibration=learn)
        candidates = [Smoothing(), *found]
        errors: list[float] = []
        for i, candidate in enumerate(candidates):
            ctx.progress("choosing how to smooth", i, len(candidates))
            errors.append(judge.error(self.apply(model, self._plan_smoothed(model, candidate, part), part)))
        best = int(np.argmin(errors))
        if best == 0:
            return Smoothing(choice=f"none: no α lowers the error of the outputs, {errors[0]:.2g}")
        told = f"error of the outputs {errors[best]:.2g}, without smoothing {errors[0]:.2g}"
        return replace(candidates[best], choice=f"α = {alphas[best - 1]:g}: {told}")

    def _plan_smoothed(self, original: ir.Model, smoothing: Smoothing, ctx: Context) -> QuantPlan:
        """The plan for a model whose activations are smoothed."""
        assert ctx.calibration is not None
        own = {node.name for node in original.graph}
        model = equalised(smoothed(original, smoothing.factors, smoothing.readers), smoothing.equalization)
        sites, skips = find_sites(model, ctx.only, ctx.exclude)
        settled = settle(sites)
        tied = ties(settled)
        seen = observe(
            model,
            [name for name in quantized_values(settled)[0] if name not in tied],
            ctx.calibration,
            ctx.session,
            exact=self.config.exact_histograms,
            progress=lambda done, total: ctx.progress("calibrating", done, total),
        )
        settled, more = _observed_only(settled, seen, tied)
        skips = [skip for skip in (*skips, *more) if skip.node in own or not smoothing.factors]
        activations = _activations(settled, seen, tied, self.config.ranges)
        others = {m: _activations(settled, seen, tied, m) for m in METHODS if m != self.config.ranges}
        tensors = activations | _weights(settled, ctx.target.pairs_saturate, tied, activations)
        bound = clone(model)
        bind(bound, ctx.shapes)
        macs, kept, skipped = cost(bound).by_node, {s.name for s in settled}, {s.node for s in skips}
        nodes = {s.name: _decision(s, s.name in kept, macs.get(s.name)) for s in sites if s.name not in skipped}
        regions = islands(settled, macs, _elements(bound))
        padded = {s.name: padded_inputs(s.node, ctx.target.conv_inputs, ctx.target.conv_outputs) for s in settled}
        return _plan(
            header(self.name, original, ctx, skips),
            operators="onnx" if ctx.portable else "onnxruntime",
            nodes=nodes,
            tensors=tensors,
            tables=find_tables(model, ctx.only, ctx.exclude),
            smoothing=smoothing.factors,
            smoothed=smoothing.readers,
            smoothing_choice=smoothing.choice,
            equalization=smoothing.equalization,
            padded={name: channels for name, channels in padded.items() if channels},
            ties=tied,
            islands=regions,
            alternatives=others,
        )

    def apply(self, model: ir.Model, plan: QuantPlan, ctx: Context) -> ir.Model:
        """Writes the plan; needs no data."""
        shifts = {name: shift for name, shift in plan.corrections.items() if name in plan.quantized()}
        return write_qdq(corrected(_prepared(model, plan), shifts), plan)

    def prove(self, before: ir.Model, after: ir.Model, plan: QuantPlan, ctx: Context) -> Proof:
        """Asks ONNX Runtime what it made of the result: which nodes run as integer kernels, which do not."""
        found = audit(after, plan, ctx.session)
        left = unfused(found)
        integer, heavy = sum(found.integer_kernels.values()), sum(found.float_heavy.values())
        sentences = [f"{integer} integer kernels in the optimised graph, {heavy} heavy float operators"]
        own = Counter(node.op_type for node in after.graph if node.domain == "com.microsoft")
        if own:
            named = ", ".join(f"{count} {op_type}" for op_type, count in own.most_common())
            sentences.append(f"operators of ONNX Runtime's own, which tie the file to it (--portable: none): {named}")
        if plan.smoothing_choice:
            count = len(plan.smoothing)
            sentences.append(f"smoothed activations of products with matrices: {count} ({plan.smoothing_choice})")
        if plan.equalization:
            count = len(plan.equalization)
            sentences.append(f"equalised inputs of depthwise convolutions: {count} ({plan.equalization_choice})")
        if plan.range_choice:
            sentences.append(f"ranges by {plan.range_choice}")
        if plan.correction_choice:
            sentences.append(f"biases that make up for rounded weights: {plan.correction_choice}")
        if plan.tables:
            sentences.append(f"embedding tables read as int8 rows, with a scale for each: {len(plan.tables)}")
        if plan.padded:
            sentences.append(f"convolutions with input channels padded for the fast kernel: {len(plan.padded)}")
        return Proof(passed=bool(integer), sentences=tuple(sentences), audit=found, unfused=left)

    def relax(self, plan: QuantPlan, evidence: Evidence[QuantPlan]) -> QuantPlan | None:
        """The plan with its worst nodes in float again, or None when no weighted node would be left in INT8."""
        return relaxed(plan, evidence)


@dataclass(frozen=True)
class Smoothing:
    """Factors by activation, the activation that each node reads, and why these were chosen; and those of the channels
    that depthwise convolutions read."""

    factors: Factors = field(default_factory=dict)
    readers: dict[str, str] = field(default_factory=dict)
    choice: str = ""
    equalization: Factors = field(default_factory=dict)


def _prepared(model: ir.Model, plan: QuantPlan) -> ir.Model:
    """The model that the plan's ranges are of: the same function in float."""
    return equalised(smoothed(model, plan.smoothing, plan.smoothed), plan.equalization)


def _chosen_by(reader: Reader) -> tuple[Reader, Reader | None]:
    """A part of the feeds to learn from, and a few others to choose by; None with too few of them."""
    count = reader.count if reader.count is not None else sum(1 for _ in reader)
    held = min(HELD, count // 5)
    if not held:
        return reader, None
    return reader.part(0, min(count - held, LEARNED)), reader.part(count - held, count)


def _activations(
    sites: Sequence[Site], seen: dict[str, Observed], tied: dict[str, str], method: Method
) -> dict[str, QParams]:
    values = quantized_values(sites)[0]
    clips = {v.name: s.clip for s in sites for v in s.outputs if s.clip is not None}
    fixed = {n: FIXED_RANGES[p.op_type] for n, v in values.items() if (p := v.producer()) and p.op_type in FIXED_RANGES}
    heads, result = set(tied.values()), {}
    # A tensor may be in use whose head is not: then the two still share the head's range.
    for name in {tied.get(name, name): None for name in values}:
        through = seen_through(values[name]) if name in values and name not in heads else None
        low, high = fixed.get(name) or METHODS[method](seen[name], through)
        params = affine.from_range(low, high, clips.get(name))
        result[name] = QParams(dtype="uint8", scale=(params.scale,), zero_point=params.zero_point)
    return result


def _plan(head: Mapping[str, object], **rest: object) -> QuantPlan:
    return QuantPlan.model_validate({"nodes": {}, "tensors": {}} | dict(head) | rest)


def _elements(model: ir.Model) -> dict[str, int]:
    """Elements of each value whose shape is known, by name."""
    values = ir.convenience.create_value_mapping(model.graph)
    shapes = {name: static_shape(value) for name, value in values.items()}
    return {name: prod(shape) for name, shape in shapes.items() if shape is not None}


def _weights(
    sites: Sequence[Site], pairs_saturate: bool, tied: dict[str, str], activations: dict[str, QParams]
) -> dict[str, QParams]:
    """Symmetric int8 parameters of each weight; the largest that any of its biases needs."""
    scales: dict[str, np.ndarray] = {}
    axes: dict[str, int] = {}
    for site in sites:
        if site.weight is None:
            continue
        key = site.weight_key
        if key not in scales:
            array = constant(site.weight)
            assert array is not None
            saturates = pairs_saturate and not is_depthwise(site.node)
            scales[key] = affine.weight_scales(array, site.weight_axis, pairs_saturate=saturates)
            axes[key] = site.weight_axis
        bias = constant(site.bias)
        if bias is not None:
            source = site.inputs[0].name or ""
            scales[key] = affine.widened_for_bias(
                scales[key], activations[tied.get(source, source)].scale[0], bias.reshape(-1)
            )
    return {
        key: QParams(dtype="int8", scale=tuple(float(s) for s in values), zero_point=0, axis=axes[key])
        for key, values in scales.items()
    }


def _observed_only(sites: list[Site], seen: dict[str, Observed], tied: dict[str, str]) -> tuple[list[Site], list[Skip]]:
    """Drops the sites with a tensor that calibration never reached or found not finite, or whose weight is not
    finite."""
    skips: list[Skip] = []

    def trouble(site: Site) -> Reason | None:
        for value in (*site.inputs, *site.outputs):
            name = value.name or ""
            observed = seen.get(tied.get(name, name))
            if observed is not None and not observed.extremes.finite:
                return Reason.NOT_FINITE
            if observed is not None and observed.extremes.minimum > observed.extremes.maximum:
                return Reason.NOT_OBSERVED
        for constant_value in (site.weight, site.bias, *site.inputs):
            array = constant(constant_value)
            if array is not None and not np.isfinite(array).all():
                return Reason.NOT_FINITE
        return None

    bad = {}
    for site in sites:
        reason = trouble(site)
        if reason is not None:
            bad[site.name] = reason
            skips.append(Skip(node=site.name, op_type=site.node.op_type, code=reason, sentence=DESCRIPTIONS[reason]))
    return (settle(sites, frozenset(bad)) if bad else sites), skips


def _decision(site: Site, kept: bool, macs: int | None) -> NodeDecision:
    if kept:
        return NodeDecision(precision="int8", op_type=site.node.op_type, macs=macs)
    return NodeDecision(
        precision="float",
        op_type=site.node.op_type,
        code=Reason.BORDER_COST,
        sentence=DESCRIPTIONS[Reason.BORDER_COST],
        macs=macs,
    )
