"""A plan of everything that can be INT8: where, and with which ranges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod

import onnx_ir as ir

from onnxcomp.calibration.stream import Observed, observe
from onnxcomp.errors import UsageError
from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import clone
from onnxcomp.model.shapes import bind
from onnxcomp.ops.kernels import padded_inputs
from onnxcomp.ops.macs import static_shape
from onnxcomp.passes.base import Context, header
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.correct import corrected
from onnxcomp.passes.quantize.equalise import equalised
from onnxcomp.passes.quantize.histograms import BY_HAND, ActivationHistogram, histogram_of, longest_tails
from onnxcomp.passes.quantize.parameters import activation_parameters, fixed_ranges, observed_only, weight_parameters
from onnxcomp.passes.quantize.placement import islands, quantized_values, settle, ties
from onnxcomp.passes.quantize.plan import NodeDecision, QParams, QuantPlan
from onnxcomp.passes.quantize.ranges import METHODS, Method, Range
from onnxcomp.passes.quantize.sites import Site
from onnxcomp.passes.quantize.smooth import Factors, smoothed
from onnxcomp.passes.quantize.styles import sites_for
from onnxcomp.passes.quantize.through import gate, seen_through
from onnxcomp.passes.quantize.write import write_qdq
from onnxcomp.passes.selection import left_out, unmatched
from onnxcomp.passes.tables import find_tables, left_tables
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Skip

NAME = "quantize"


@dataclass(frozen=True)
class Preparation:
    """How a model is rewritten, in float, before it is quantised.

    Args:
        factors: SmoothQuant's, by activation; `readers`: the activation that each node reads; `choice`: why these.
        equalization: Factors of the channels that depthwise convolutions read.
    """

    factors: Factors = field(default_factory=dict)
    readers: dict[str, str] = field(default_factory=dict)
    choice: str = ""
    equalization: Factors = field(default_factory=dict)


def prepared(model: ir.Model, plan: QuantPlan) -> ir.Model:
    """The model that the plan's ranges are of: the same function in float."""
    return equalised(smoothed(model, plan.smoothing, plan.smoothed), plan.equalization)


def written(model: ir.Model, plan: QuantPlan) -> ir.Model:
    """The model as the plan says; needs no data."""
    shifts = {name: shift for name, shift in plan.corrections.items() if name in plan.quantized()}
    return write_qdq(corrected(prepared(model, plan), shifts), plan)


def draft(config: QuantizeConfig, original: ir.Model, preparation: Preparation, ctx: Context) -> QuantPlan:
    """The plan of everything that can be INT8, for the model as prepared.

    Raises:
        UsageError: A pattern of the config matches nothing.
    """
    assert ctx.calibration is not None
    own, fixed = {node.name for node in original.graph}, pinned(config, original)
    model = equalised(smoothed(original, preparation.factors, preparation.readers), preparation.equalization)
    exclude = (*ctx.exclude, *(pattern for pattern, precision in config.nodes.items() if precision == "float"))
    sites, skips = sites_for(ctx.target.int8.placement, model, ctx.only, exclude)
    settled = settle(sites)
    tied = ties(settled)
    values = quantized_values(settled)[0]
    known = {*tied, *fixed_ranges(values)}
    seen = observe(
        model,
        [name for name in values if name not in known],
        ctx.calibration,
        ctx.session,
        exact=config.exact_histograms,
        progress=lambda done, total: ctx.progress("calibrating", done, total),
    )
    settled, more = observed_only(settled, seen, tied)
    form = ctx.target.int8
    tables = find_tables(model, ctx.only, exclude) if form.rewrites else ()
    skips = [
        skip for skip in with_tables([*skips, *more], model, tables) if skip.node in own or not preparation.factors
    ]
    asked = asked_ranges(config.tensors, [tied.get(name, name) for name in quantized_values(settled)[0]])

    def parameters(method: Method) -> dict[str, QParams]:
        return activation_parameters(settled, seen, tied, lambda name: asked.get(name, method), form)

    activations = parameters(config.ranges)
    others = {method: parameters(method) for method in METHODS if method != config.ranges}
    histograms = _histograms(settled, seen, tied, {config.ranges: activations, **others}, asked)
    tensors = activations | weight_parameters(settled, ctx.target.pairs_saturate, tied, activations, form)
    bound = clone(model)
    bind(bound, ctx.shapes)
    macs, kept, skipped = cost(bound).by_node, {s.name for s in settled}, {s.node for s in skips}
    nodes = {s.name: _decision(s, s.name in kept, macs.get(s.name)) for s in sites if s.name not in skipped}
    regions = islands(settled, macs, _elements(bound))
    padded = {s.name: padded_inputs(s.node, ctx.target.conv_inputs, ctx.target.conv_outputs) for s in settled}
    return made_plan(
        header(NAME, original, ctx, skips),
        operators="onnx" if ctx.portable or not form.rewrites else "onnxruntime",
        nodes=nodes,
        tensors=tensors,
        tables=tables,
        smoothing=preparation.factors,
        smoothed=preparation.readers,
        smoothing_choice=preparation.choice,
        equalization=preparation.equalization,
        padded={name: channels for name, channels in padded.items() if channels},
        pinned=fixed,
        ties=tied,
        islands=regions,
        alternatives=others,
        histograms=histograms,
    )


def _histograms(
    sites: Sequence[Site],
    seen: Mapping[str, Observed],
    tied: Mapping[str, str],
    ways: Mapping[Method, Mapping[str, QParams]],
    asked: Mapping[str, Method | Range],
) -> dict[str, ActivationHistogram]:
    """Of the observed activations with the longest tails."""
    values, nodes = quantized_values(sites)[0], defaultdict[str, set[str]](set)
    for site in sites:
        for value in (*site.inputs, *site.outputs):
            nodes[tied.get(value.name or "", value.name or "")].add(site.name)
    heads, found, ends = set(tied.values()), {}, {}
    for name in (name for name in seen if name in next(iter(ways.values()))):
        wanted = asked.get(name)
        told: dict[str, QParams] = {way: made[name] for way, made in ways.items()}
        if wanted is not None:
            told = {wanted if isinstance(wanted, str) else BY_HAND: next(iter(told.values()))}
        ends[name] = [params.ends() for params in told.values()]
        single = values[name] if name in values and name not in heads else None
        through, function = ("", None) if single is None else (gate(single), seen_through(single))
        chosen = {way: (p.scale[0], p.zero_point, p.ends()) for way, p in told.items()}
        found[name] = histogram_of(seen[name], chosen, nodes[name], through, function)
    return longest_tails(found, ends)


def made_plan(head: Mapping[str, object], **rest: object) -> QuantPlan:
    """A plan from its header and fields; without any, one that does nothing."""
    return QuantPlan.model_validate({"nodes": {}, "tensors": {}} | dict(head) | rest)


def asked_ranges(tensors: Mapping[str, Method | Range], names: Sequence[str]) -> dict[str, Method | Range]:
    """What the config says of single tensors, by name; the last pattern that matches counts.

    Raises:
        UsageError: A pattern matches none of `names`.
    """
    found: dict[str, Method | Range] = {}
    for pattern, wanted in tensors.items():
        matched = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not matched:
            raise UsageError(f"the pattern {pattern!r} of the recipe's tensors matches no quantised tensor")
        found |= dict.fromkeys(matched, wanted)
    return found


def pinned(config: QuantizeConfig, model: ir.Model) -> tuple[str, ...]:
    """Names of the nodes that stay in INT8 whatever the gates say.

    Raises:
        UsageError: A pattern of the config's nodes matches none.
    """
    for pattern in unmatched(model, tuple(config.nodes)):
        raise UsageError(f"the pattern {pattern!r} of the recipe's nodes matches no node and no operator type")
    patterns = tuple(pattern for pattern, precision in config.nodes.items() if precision == "int8")
    if not patterns:
        return ()
    return tuple(node.name or "" for node in model.graph if left_out(node, patterns, ()) is None)


def _elements(model: ir.Model) -> dict[str, int]:
    """Elements of each value whose shape is known, by name."""
    values = ir.convenience.create_value_mapping(model.graph)
    shapes = {name: static_shape(value) for name, value in values.items()}
    return {name: prod(shape) for name, shape in shapes.items() if shape is not None}


def with_tables(skips: Sequence[Skip], model: ir.Model, chosen: Sequence[str]) -> list[Skip]:
    """The skips, and those of tables about which nothing is said yet."""
    told = {skip.node for skip in skips}
    return [*skips, *(skip for skip in left_tables(model, chosen) if skip.node not in told)]


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
