"""Which nodes can be factorised: products with a constant weight of their own, or one that only such nodes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.model.unread import all_finite
from onnxcomp.ops.attributes import constant, is_standard
from onnxcomp.ops.linear import ConvView, LinearView, MatrixView
from onnxcomp.passes.base import Context, Survey
from onnxcomp.passes.factorize.ranks import break_even
from onnxcomp.passes.selection import no_weight
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Skip
from onnxcomp.report.text import printable

OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that hold a matrix; every one of them ends up as a site or as a skip."""

SMALLEST_RANK = 8
"""A layer whose break-even rank is smaller has nothing to give."""


@dataclass(frozen=True)
class Site:
    """A weight, and the nodes that multiply by it.

    Args:
        views: More than one where nodes share the weight; they then share its factors.
    """

    views: tuple[LinearView, ...]

    @property
    def name(self) -> str:
        """Of the first node."""
        return self.views[0].node.name or ""

    @property
    def weight(self) -> str:
        return self.views[0].weight.name or ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of W: groups, out/groups, columns (in/groups · taps)."""
        return self.views[0].shape

    @property
    def can_bias(self) -> bool:
        """Whether a shift of the outputs' mean can be made up for."""
        return all(view.can_bias for view in self.views)


def find_sites(model: ir.Model, only: Sequence[str], exclude: Sequence[str]) -> tuple[list[Site], list[Skip]]:
    """All sites of the main graph in order, and why the other nodes with a matrix are none."""
    groups: dict[ir.Value, list[ir.Node]] = {}
    skips: list[Skip] = []
    for node in model.graph:
        if node.op_type not in OPERATORS or not is_standard(node):
            continue
        refusal = _refusal(node, only, exclude)
        if refusal is not None:
            skips.append(_skip(node, *refusal))
        elif (weight := node.inputs[1]) is not None:
            groups.setdefault(weight, []).append(node)
    sites = []
    for weight, nodes in groups.items():
        site = _site(weight, nodes)
        if isinstance(site, Site):
            sites.append(site)
        else:
            skips += [_skip(node, *site) for node in nodes]
    skips += _inside_bodies(model)
    return sites, skips


def survey(model: ir.Model, ctx: Context) -> Survey:
    """The nodes that could be written as two, whatever rank they need."""
    sites, skips = find_sites(model, ctx.only, ctx.exclude)
    return Survey(frozenset(view.node.name or "" for site in sites for view in site.views), tuple(skips))


def _refusal(node: ir.Node, only: Sequence[str], exclude: Sequence[str]) -> tuple[Reason, str] | None:
    """Why a node is no candidate, judged by itself."""
    refusal = no_weight(node, only, exclude, "is quantised; factorise the float model, then quantise")
    if refusal is not None:
        return refusal
    weight = node.inputs[1]
    assert weight is not None
    array = constant(weight)
    assert array is not None
    if not np.issubdtype(array.dtype, np.floating):
        return (
            Reason.NOT_FLOAT32,
            f"weight {printable(weight.name or '')!r} is {array.dtype}, not float16, float32 or float64",
        )
    if node.op_type == "ConvTranspose":
        return Reason.UNSUPPORTED_FORM, "transposed convolutions are not factorised"
    if not array.size or LinearView.of(node, tied=True) is None:
        return Reason.UNSUPPORTED_FORM, _form(node, array)
    return None


def _form(node: ir.Node, weight: np.ndarray) -> str:
    if not weight.size:
        return "its weight is empty"
    if node.op_type != "Conv" and weight.ndim != 2:
        return f"its weight has {weight.ndim} axes; only matrices are factorised"
    return "its bias is computed, or not one value for each output, or its attributes don't fit its weight"


def _site(weight: ir.Value, nodes: Sequence[ir.Node]) -> Site | tuple[Reason, str]:
    """The nodes as one site, or why they are none."""
    array = constant(weight)
    assert array is not None
    users = {use.node for use in weight.uses()}
    if users != set(nodes) or weight.is_graph_output() or len(weight.uses()) != len(nodes):
        others = sorted({u.op_type for u in users - set(nodes)}) or ["an output"]
        return Reason.SHARED, f"weight {printable(weight.name or '')!r} is read by {', '.join(others)} too"
    views = tuple(view for node in nodes if (view := LinearView.of(node, tied=True)) is not None)
    if len({_orientation(view) for view in views}) > 1:
        return Reason.SHARED, f"nodes use weight {printable(weight.name or '')!r} in different ways"
    if not all_finite(weight):
        return Reason.NOT_FINITE, "its weight holds NaN or infinity"
    groups, out, columns = views[0].shape
    even = int(break_even(out, columns))
    if even < SMALLEST_RANK:
        each = f" in each of {groups} groups" if groups > 1 else ""
        return Reason.TOO_SMALL, f"{out} × {columns}{each}: two factors are smaller only below rank {even}"
    return Site(views)


def _orientation(view: LinearView) -> tuple[object, ...]:
    """What has to be the same for two nodes to share factors."""
    if isinstance(view, MatrixView):
        return MatrixView, view.transposed, view.alpha
    assert isinstance(view, ConvView)
    return ConvView, view.shape


def _inside_bodies(model: ir.Model) -> Iterator[Skip]:
    for graph in model.graph.subgraphs():
        if graph is not model.graph:
            for node in graph:
                if node.op_type in OPERATORS and is_standard(node):
                    yield _skip(node, Reason.INSIDE_SUBGRAPH, DESCRIPTIONS[Reason.INSIDE_SUBGRAPH])


def _skip(node: ir.Node, code: Reason, sentence: str) -> Skip:
    return Skip(node=node.name or "", op_type=node.op_type, code=code, sentence=sentence)
