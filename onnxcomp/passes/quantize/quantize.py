"""The pass: static INT8 from calibration feeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Annotated, Literal

import numpy as np
import onnx_ir as ir
from pydantic import Field

from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.stream import Observed, observe
from onnxcomp.errors import UsageError
from onnxcomp.evaluate.sensitivity import Sensitivity
from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import clone
from onnxcomp.model.shapes import bind
from onnxcomp.ops.attributes import constant
from onnxcomp.ops.kernels import QUANTIZATION_OPERATORS, Role, is_depthwise, padded_inputs
from onnxcomp.ops.macs import static_shape
from onnxcomp.ops.targets import Int8
from onnxcomp.passes.base import CALIBRATION_HINT, Context, Evidence, Proof, header
from onnxcomp.passes.integer_weights import weight_scales
from onnxcomp.passes.latency_rounds import relative_latencies
from onnxcomp.passes.quantize import affine
from onnxcomp.passes.quantize.audit import audit, structure, unfused
from onnxcomp.passes.quantize.placement import islands, quantized_values, settle, ties
from onnxcomp.passes.quantize.plan import NodeDecision, QParams, QuantPlan
from onnxcomp.passes.quantize.ranges import FIXED_RANGES, METHODS, Method
from onnxcomp.passes.quantize.relax import relaxed
from onnxcomp.passes.quantize.sensitivity_file import decided, read_units, write_units
from onnxcomp.passes.quantize.sites import Site
from onnxcomp.passes.quantize.smooth import Factors, channel_sizes, factors, smoothable, smoothed
from onnxcomp.passes.quantize.styles import mirrored, sites_for
from onnxcomp.passes.quantize.through import seen_through
from onnxcomp.passes.quantize.units import measure
from onnxcomp.passes.quantize.write import write_qdq
from onnxcomp.passes.tables import find_tables, left_tables
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Record, Skip
from onnxcomp.runtime.host import detect_host, detect_target

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
        mode: In a recipe "auto" is this pass or another way to quantise, whichever measures best.
        ranges: How activation ranges are chosen; see `onnxcomp.passes.quantize.ranges`.
        exact_histograms: Use every value of every tensor instead of a regular sample.
        smooth: SmoothQuant for products with matrices: α, `none`, or the best of a few by the error of the outputs on
            feeds that nothing else is learned from.
        sensitivity: File of what each unit loses in INT8 and gains in time: made, or completed, by measuring; read, if
            it is there. A unit whose precision was set in it keeps that one.
    """

    kind: Literal["quantize"] = Field(default="quantize", alias="pass")
    mode: Literal["static", "auto"] = "static"
    ranges: Method = "mse"
    exact_histograms: bool = False
    smooth: Literal["auto", "none"] | Annotated[float, Field(ge=0, le=1)] = "auto"
    sensitivity: str | None = None

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
        if self.name in ctx.target.refuses:
            sentence = ctx.target.refuses[self.name][0]
            skip = Skip(node="", op_type="", code=Reason.NO_INTEGER_KERNEL, sentence=sentence)
            return _plan(header(self.name, model, ctx, (skip,)))
        opset = model.opset_imports.get("", 0)
        if opset < FIRST_OPSET:
            sentence = (
                f"scales for each channel need opset {FIRST_OPSET}; the model has {opset} and could not be lifted"
            )
            skip = Skip(node="", op_type="", code=Reason.OPSET, sentence=sentence)
            return _plan(header(self.name, model, ctx, (skip,)))
        sites, skips = sites_for(ctx.target.int8.placement, model, ctx.only, ctx.exclude)
        settled = settle(sites)
        if not any(s.kernel.role is Role.WEIGHTED for s in settled):
            return _plan(header(self.name, model, ctx, _with_tables(skips, model, ())))
        if ctx.calibration is None:
            raise UsageError("static INT8 needs calibration data", hint=CALIBRATION_HINT)
        plan = self._plan_smoothed(model, self._smoothing(model, settled, ctx), ctx)
        return plan if self.config.sensitivity is None else self._measured(model, plan, ctx, self.config.sensitivity)

    def _measured(self, model: ir.Model, plan: QuantPlan, ctx: Context, path: str) -> QuantPlan:
        """The plan with its units measured, where the file at `path` doesn't know them, and with what that decides."""
        assert ctx.calibration is not None
        known = read_units(path, plan)
        judge = Sensitivity(model, ctx.calibration, ctx.session, HELD)

        def latencies_of(others: Sequence[QuantPlan]) -> list[float]:
            built = [self.apply(model, other, ctx) for other in others]
            return relative_latencies(self.apply(model, plan, ctx), built, ctx)

        evidence: Evidence[QuantPlan] = Evidence(
            "fidelity",
            error_of=lambda other: judge.error(self.apply(model, other, ctx)),
            latencies_of=latencies_of if ctx.target.name == detect_target(detect_host()) else None,
            progress=ctx.progress,
        )
        return decided(plan, measure(plan, evidence, known, keep=lambda units: write_units(path, plan, units)))

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
        model = smoothed(original, smoothing.factors, smoothing.readers)
        sites, skips = sites_for(ctx.target.int8.placement, model, ctx.only, ctx.exclude)
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
        form = ctx.target.int8
        tables = find_tables(model, ctx.only, ctx.exclude) if form.rewrites else ()
        skips = [
            skip for skip in _with_tables([*skips, *more], model, tables) if skip.node in own or not smoothing.factors
        ]
        activations = _activations(settled, seen, tied, self.config.ranges, form)
        others = {m: _activations(settled, seen, tied, m, form) for m in METHODS if m != self.config.ranges}
        tensors = activations | _weights(settled, ctx.target.pairs_saturate, tied, activations, form)
        bound = clone(model)
        bind(bound, ctx.shapes)
        macs, kept, skipped = cost(bound).by_node, {s.name for s in settled}, {s.node for s in skips}
        nodes = {s.name: _decision(s, s.name in kept, macs.get(s.name)) for s in sites if s.name not in skipped}
        regions = islands(settled, macs, _elements(bound))
        padded = {s.name: padded_inputs(s.node, ctx.target.conv_inputs, ctx.target.conv_outputs) for s in settled}
        return _plan(
            header(self.name, original, ctx, skips),
            operators="onnx" if ctx.portable or not form.rewrites else "onnxruntime",
            nodes=nodes,
            tensors=tensors,
            tables=tables,
            smoothing=smoothing.factors,
            smoothed=smoothing.readers,
            smoothing_choice=smoothing.choice,
            padded={name: channels for name, channels in padded.items() if channels},
            ties=tied,
            islands=regions,
            alternatives=others,
        )

    def apply(self, model: ir.Model, plan: QuantPlan, ctx: Context) -> ir.Model:
        """Writes the plan; needs no data."""
        return write_qdq(smoothed(model, plan.smoothing, plan.smoothed), plan)

    def prove(self, before: ir.Model, after: ir.Model, plan: QuantPlan, ctx: Context) -> Proof:
        """Asks ONNX Runtime what it made of the result: which nodes run as integer kernels, which do not.

        For a machine whose compiler is not here, only the structure can be shown.
        """
        if ctx.target.provider != "cpu":
            return structure(after, plan, ctx.target)
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
    """Factors by activation, the activation that each node reads, and why these were chosen."""

    factors: Factors = field(default_factory=dict)
    readers: dict[str, str] = field(default_factory=dict)
    choice: str = ""


def _chosen_by(reader: Reader) -> tuple[Reader, Reader | None]:
    """A part of the feeds to learn from, and a few others to choose by; None with too few of them."""
    count = reader.count if reader.count is not None else sum(1 for _ in reader)
    held = min(HELD, count // 5)
    if not held:
        return reader, None
    return reader.part(0, min(count - held, LEARNED)), reader.part(count - held, count)


def _activations(
    sites: Sequence[Site], seen: dict[str, Observed], tied: dict[str, str], method: Method, form: Int8
) -> dict[str, QParams]:
    values = quantized_values(sites)[0]
    clips = {v.name: s.clip for s in sites for v in s.outputs if s.clip is not None}
    fixed = {n: FIXED_RANGES[p.op_type] for n, v in values.items() if (p := v.producer()) and p.op_type in FIXED_RANGES}
    heads, result = set(tied.values()), {}
    # A tensor may be in use whose head is not: then the two still share the head's range.
    for name in {tied.get(name, name): None for name in values}:
        through = seen_through(values[name]) if name in values and name not in heads else None
        if form.symmetric:
            params = affine.symmetric(*(fixed.get(name) or METHODS[method](mirrored(seen[name]), None)))
        else:
            params = affine.from_range(*(fixed.get(name) or METHODS[method](seen[name], through)), clips.get(name))
        result[name] = QParams(dtype=form.activations, scale=(params.scale,), zero_point=params.zero_point)
    return result


def _plan(head: Mapping[str, object], **rest: object) -> QuantPlan:
    return QuantPlan.model_validate({"nodes": {}, "tensors": {}} | dict(head) | rest)


def _elements(model: ir.Model) -> dict[str, int]:
    """Elements of each value whose shape is known, by name."""
    values = ir.convenience.create_value_mapping(model.graph)
    shapes = {name: static_shape(value) for name, value in values.items()}
    return {name: prod(shape) for name, shape in shapes.items() if shape is not None}


def _weights(
    sites: Sequence[Site], pairs_saturate: bool, tied: dict[str, str], activations: dict[str, QParams], form: Int8
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
            scales[key] = weight_scales(array, site.weight_axis, pairs_saturate=saturates)
            axes[key] = site.weight_axis
        bias = constant(site.bias)
        if bias is not None and form.bias:
            source = site.inputs[0].name or ""
            scales[key] = affine.widened_for_bias(
                scales[key], activations[tied.get(source, source)].scale[0], bias.reshape(-1)
            )
    return {
        key: QParams(dtype="int8", scale=tuple(float(s) for s in values), zero_point=0, axis=axes[key])
        for key, values in scales.items()
    }


def _with_tables(skips: Sequence[Skip], model: ir.Model, chosen: Sequence[str]) -> list[Skip]:
    """The skips, and those of tables about which nothing is said yet."""
    told = {skip.node for skip in skips}
    return [*skips, *(skip for skip in left_tables(model, chosen) if skip.node not in told)]


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
