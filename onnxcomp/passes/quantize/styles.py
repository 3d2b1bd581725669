"""Where each target wants Q and DQ: the sites that ONNX Runtime's CPU provider has, as another machine would have
them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxcomp.calibration.accumulators import Extremes, Histogram
from onnxcomp.calibration.stream import Observed
from onnxcomp.ops.attributes import bodies, is_constant, is_standard, qualified
from onnxcomp.ops.kernels import QUANTIZATION_OPERATORS, Kernel, Role
from onnxcomp.ops.targets import Placement
from onnxcomp.passes.quantize.sites import Site, find_sites
from onnxcomp.passes.selection import left_out
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Skip

Found = tuple[list[Site], list[Skip]]

FREE = "only products and residual sums are told to read integers; the compiler chooses for the others"


def sites_for(placement: Placement, model: ir.Model, only: Sequence[str], exclude: Sequence[str]) -> Found:
    """All sites of the main graph as a placement has them, and why the other nodes are none."""
    return STYLES[placement](model, only, exclude)


def _on_inputs(model: ir.Model, only: Sequence[str], exclude: Sequence[str]) -> Found:
    """Weighted sites and residual sums, none of which says what it writes."""
    sites, skips = find_sites(model, only, exclude)
    heads = {id(v): s for s in sites if s.kernel.role is Role.WEIGHTED for v in (*s.node.outputs, *s.outputs)}
    kept = []
    for site in sites:
        residual = _residual(site, heads)
        if site.kernel.role is Role.WEIGHTED:
            kept.append(replace(site, outputs=(), output_quantized=False, alone=True))
        elif residual is not None:
            kept.append(replace(site, inputs=(residual,), outputs=(), output_quantized=False, alone=True))
        else:
            skips.append(_skip(site.node, Reason.KEPT_FLOAT, FREE))
    return kept, skips


def _residual(site: Site, heads: dict[int, Site]) -> ir.Value | None:
    """What an Add puts on top of a product that nothing else reads, so that the product's kernel can add it."""
    if site.node.op_type != "Add" or len(site.inputs) != 2 or any(is_constant(v) for v in site.inputs):
        return None
    fused = [v for v in site.inputs if id(v) in heads and len(v.uses()) == 1 and not v.is_graph_output()]
    return next((v for v in site.inputs if v is not fused[0]), None) if fused else None


def _everywhere(model: ir.Model, only: Sequence[str], exclude: Sequence[str]) -> Found:
    """Every standard operator on float32 tensors, with or without an integer kernel on the CPU."""
    found, skips = find_sites(model, only, exclude)
    known = {id(s.node): _by_itself(s) for s in found}
    absorbed = {id(n) for s in known.values() for n in s.absorbed}
    sites = []
    for node in model.graph:
        if id(node) in absorbed:
            continue
        site = known.get(id(node)) or _generic(node)
        if site is not None and left_out(node, only, exclude) is None:
            sites.append(site)
    taken = {s.name for s in sites}
    return sites, [skip for skip in skips if skip.node not in taken]


def _by_itself(site: Site) -> Site:
    """The site with a quantised output; a MatMul leaves its bias to the Add, whose operands are activations there."""
    if site.node.op_type != "MatMul":
        return replace(site, output_quantized=True, alone=True)
    outputs = tuple(site.node.outputs)
    return replace(site, outputs=outputs, absorbed=(), bias=None, clip=None, output_quantized=True, alone=True)


def _generic(node: ir.Node) -> Site | None:
    """A site of an operator that is in no table: arithmetic on whatever floats it reads."""
    parameters = PARAMETERS.get(node.op_type, frozenset())
    inputs = _floats(v for i, v in enumerate(node.inputs) if i not in parameters)
    outputs = _floats(node.outputs)
    if not inputs or not outputs or not is_standard(node) or any(True for _ in bodies(node)):
        return None
    if node.op_type in QUANTIZATION_OPERATORS or all(is_constant(v) for v in inputs):
        return None
    return Site(node, Kernel(Role.COMPUTED, node.op_type, None), inputs, outputs, alone=True)


def mirrored(seen: Observed) -> Observed:
    """What was seen of x, as if −x had been seen too: its best range is symmetric, as zero points of 0 want it."""
    ends, histogram = seen.extremes, seen.histogram
    largest = max(-ends.minimum, ends.maximum)
    both = Histogram(histogram.exponent, histogram.counts + histogram.counts[::-1], 2 * histogram.zeros)
    return Observed(Extremes(-largest, largest, ends.finite), both)


def _floats(values: Iterable[ir.Value | None]) -> tuple[ir.Value, ...]:
    floats = (v for v in values if v is not None and v.name and v.dtype == ir.DataType.FLOAT)
    return tuple(v for v in floats if isinstance(v.type, ir.TensorType | None))


def _skip(node: ir.Node, code: Reason, sentence: str = "") -> Skip:
    return Skip(node=node.name or "", op_type=qualified(node), code=code, sentence=sentence or DESCRIPTIONS[code])


PARAMETERS: dict[str, frozenset[int]] = {
    "Clip": frozenset({1, 2}),
    "Dropout": frozenset({1, 2}),
    "Pad": frozenset({2}),
    "Resize": frozenset({1, 2}),
}
"""Float inputs that are no tensors of values, and stay as they are."""

STYLES: dict[Placement, Callable[[ir.Model, Sequence[str], Sequence[str]], Found]] = {
    "islands": find_sites,
    "inputs": _on_inputs,
    "everywhere": _everywhere,
}
