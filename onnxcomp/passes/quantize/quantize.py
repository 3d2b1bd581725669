"""The pass: static INT8 from calibration feeds."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

import numpy as np
import onnx_ir as ir
from pydantic import Field

from onnxcomp import __version__
from onnxcomp.calibration.stream import Observed, observe
from onnxcomp.errors import UsageError
from onnxcomp.model.cost import cost
from onnxcomp.model.fingerprint import structure_sha256
from onnxcomp.model.normalize import clone
from onnxcomp.model.shapes import bind
from onnxcomp.ops.attributes import constant
from onnxcomp.ops.kernels import QUANTIZATION_OPERATORS, Role, is_depthwise, padded_inputs
from onnxcomp.ops.macs import static_shape
from onnxcomp.passes.base import CALIBRATION_HINT, Context, Evidence, Plan, Proof
from onnxcomp.passes.quantize import affine
from onnxcomp.passes.quantize.audit import audit, unfused
from onnxcomp.passes.quantize.placement import islands, quantized_values, settle, ties
from onnxcomp.passes.quantize.plan import NodeDecision, QParams, QuantPlan
from onnxcomp.passes.quantize.ranges import FIXED_RANGES, METHODS, Method
from onnxcomp.passes.quantize.relax import relaxed
from onnxcomp.passes.quantize.sites import Site, find_sites
from onnxcomp.passes.quantize.write import write_qdq
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Record, Skip

FIRST_OPSET = 13
"""The first with DequantizeLinear along an axis."""


class QuantizeConfig(Record):
    """Options of the pass.

    Args:
        ranges: How activation ranges are chosen; see `onnxcomp.passes.quantize.ranges`.
        exact_histograms: Use every value of every tensor instead of a regular sample.
    """

    kind: Literal["quantize"] = Field(default="quantize", alias="pass")
    ranges: Method = "mse"
    exact_histograms: bool = False

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
        header = Plan(
            pass_name=self.name,
            version=__version__,
            source_sha256=structure_sha256(model),
            target=ctx.target.name,
        )
        present = sorted({n.op_type for n in model.graph.all_nodes() if n.op_type in QUANTIZATION_OPERATORS})
        if present:
            sentence = f"the model holds {', '.join(present[:4])} already"
            skip = Skip(node="", op_type=present[0], code=Reason.ALREADY_QUANTIZED, sentence=sentence)
            return _plan(header, (skip,))
        opset = model.opset_imports.get("", 0)
        if opset < FIRST_OPSET:
            sentence = (
                f"scales for each channel need opset {FIRST_OPSET}; the model has {opset} and could not be lifted"
            )
            return _plan(header, (Skip(node="", op_type="", code=Reason.OPSET, sentence=sentence),))
        sites, skips = find_sites(model, ctx.only, ctx.exclude)
        settled = settle(sites)
        if not any(s.kernel.role is Role.WEIGHTED for s in settled):
            return _plan(header, skips)
        if ctx.calibration is None:
            raise UsageError("static INT8 needs calibration data", hint=CALIBRATION_HINT)
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
        skips = [*skips, *more]
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
            header,
            skips,
            nodes=nodes,
            tensors=tensors,
            padded={name: channels for name, channels in padded.items() if channels},
            ties=tied,
            islands=regions,
            alternatives=others,
        )

    def apply(self, model: ir.Model, plan: QuantPlan, ctx: Context) -> ir.Model:
        """Writes the plan; needs no data."""
        return write_qdq(model, plan)

    def prove(self, before: ir.Model, after: ir.Model, plan: QuantPlan, ctx: Context) -> Proof:
        """Asks ONNX Runtime what it made of the result: which nodes run as integer kernels, which do not."""
        found = audit(after, plan, ctx.session)
        left = unfused(found)
        integer, heavy = sum(found.integer_kernels.values()), sum(found.float_heavy.values())
        sentence = f"{integer} integer kernels in the optimised graph, {heavy} heavy float operators"
        return Proof(passed=bool(integer), sentences=(sentence,), audit=found, unfused=left)

    def relax(self, plan: QuantPlan, evidence: Evidence[QuantPlan]) -> QuantPlan | None:
        """The plan with its worst nodes in float again, or None when no weighted node would be left in INT8."""
        return relaxed(plan, evidence)


def _activations(
    sites: Sequence[Site], seen: dict[str, Observed], tied: dict[str, str], method: Method
) -> dict[str, QParams]:
    clips = {v.name: s.clip for s in sites for v in s.outputs if s.clip is not None}
    fixed = {v.name: FIXED_RANGES[s.node.op_type] for s in sites for v in s.outputs if s.node.op_type in FIXED_RANGES}
    result = {}
    # A tensor may be in use whose head is not: then the two still share the head's range.
    for name in {tied.get(name, name): None for name in quantized_values(sites)[0]}:
        low, high = fixed.get(name) or METHODS[method](seen[name])
        params = affine.from_range(low, high, clips.get(name))
        result[name] = QParams(dtype="uint8", scale=(params.scale,), zero_point=params.zero_point)
    return result


def _plan(header: Plan, skips: Sequence[Skip], **rest: object) -> QuantPlan:
    return QuantPlan.model_validate({"nodes": {}, "tensors": {}} | header.model_dump() | {"skips": tuple(skips)} | rest)


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
