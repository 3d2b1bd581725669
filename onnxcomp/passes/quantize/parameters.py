"""Scales and zero points: of activations from what was observed of them, of weights from their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.stream import Observed
from onnxcomp.ops.attributes import constant
from onnxcomp.ops.kernels import is_depthwise
from onnxcomp.ops.targets import Int8
from onnxcomp.passes.integer_weights import weight_scales
from onnxcomp.passes.quantize import affine
from onnxcomp.passes.quantize.placement import quantized_values, settle
from onnxcomp.passes.quantize.plan import QParams
from onnxcomp.passes.quantize.ranges import FIXED_RANGES, METHODS, Method, Range
from onnxcomp.passes.quantize.sites import Site
from onnxcomp.passes.quantize.styles import mirrored
from onnxcomp.passes.quantize.through import seen_through
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Skip

Choice = Callable[[str], Method | Range]


def fixed_ranges(values: Mapping[str, ir.Value]) -> dict[str, Range]:
    """Ranges that are known without looking, by the tensor's name."""
    producers = {name: value.producer() for name, value in values.items()}
    return {n: FIXED_RANGES[p.op_type] for n, p in producers.items() if p is not None and p.op_type in FIXED_RANGES}


def activation_parameters(
    sites: Sequence[Site], seen: Mapping[str, Observed], tied: Mapping[str, str], choose: Choice, form: Int8
) -> dict[str, QParams]:
    """Parameters of every activation that an INT8 site reads or writes, by name.

    Args:
        seen: What was observed of each, but for those that share the parameters of another one (`tied`).
        choose: Method or range, by the tensor's name.
        form: What the target wants.
    """
    values = quantized_values(sites)[0]
    clips = {v.name: s.clip for s in sites for v in s.outputs if s.clip is not None}
    fixed = fixed_ranges(values)
    heads, result = set(tied.values()), {}
    # A tensor may be in use whose head is not: then the two still share the head's range.
    for name in {tied.get(name, name): None for name in values}:
        through = seen_through(values[name]) if name in values and name not in heads else None
        chosen = choose(name)
        if not isinstance(chosen, str):
            low, high = chosen
        elif name in fixed:
            low, high = fixed[name]
        else:
            low, high = (
                METHODS[chosen](mirrored(seen[name]), None) if form.symmetric else METHODS[chosen](seen[name], through)
            )
        params = affine.symmetric(low, high) if form.symmetric else affine.from_range(low, high, clips.get(name))
        result[name] = QParams(dtype=form.activations, scale=(params.scale,), zero_point=params.zero_point)
    return result


def weight_parameters(
    sites: Sequence[Site],
    pairs_saturate: bool,
    tied: Mapping[str, str],
    activations: Mapping[str, QParams],
    form: Int8,
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


def observed_only(
    sites: list[Site], seen: Mapping[str, Observed], tied: Mapping[str, str]
) -> tuple[list[Site], list[Skip]]:
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
