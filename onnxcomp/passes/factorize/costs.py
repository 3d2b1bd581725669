"""What the ranks of a site cost: parameters, multiply-accumulates, milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxcomp.ops.linear import Array, ConvView, LinearView
from onnxcomp.passes.factorize.forms import Form, middle, pair, sides
from onnxcomp.passes.factorize.ranks import break_even, worthwhile
from onnxcomp.passes.factorize.sites import Site
from onnxcomp.runtime.node_latency import NodeTable
from onnxcomp.runtime.node_spec import NodeSpec, Port, Shape, spec_of

MOST_KNOTS = 6
"""Ranks at which a pair of nodes is timed; between them its latency is interpolated."""


@dataclass(frozen=True)
class Option:
    """One way to write a site: whole (rank None), or in two."""

    form: Form
    rank: int | None


@dataclass(frozen=True)
class Menu:
    """The options of a site with what they cost; the first one is the whole.

    Args:
        site: The site.
        options: In the order of the arrays.
        params: Of weights, float64 [options]; `macs`: of one call.
    """

    site: Site
    options: tuple[Option, ...]
    params: Array
    macs: Array

    def even(self, form: Form) -> float:
        """The break-even rank."""
        return break_even(*sides(self.site.views[0], form))


def menu(site: Site, forms: Sequence[Form], unit: int, macs: Mapping[str, int], shapes: Mapping[str, Shape]) -> Menu:
    """All options of a site.

    Args:
        forms: To offer; those that the site allows.
        unit: Multiples wanted of the channels between the factors.
        macs: Of the nodes, by name; `shapes`: of all values in a typical call.
    """
    view = site.views[0]
    options = [Option("channels", None)]
    for form in forms:
        rows, width = sides(view, form)
        each = max(1, unit // int(np.gcd(unit, view.groups)))
        options += [Option(form, r) for r in worthwhile(break_even(rows, width), min(rows, width), each).tolist()]
    params, costs = zip(*(cost_of(site, option, macs, shapes) for option in options), strict=True)
    return Menu(site, tuple(options), np.array(params), np.array(costs))


def cost_of(site: Site, option: Option, macs: Mapping[str, int], shapes: Mapping[str, Shape]) -> tuple[float, float]:
    """Parameters of the weights, and multiply-accumulates of one call."""
    view = site.views[0]
    groups, out, columns = view.shape
    whole = float(sum(macs.get(v.node.name or "", 0) for v in site.views))
    if option.rank is None:
        return float(groups * out * columns), whole
    share = _macs_share(view, option.form, option.rank, shapes)
    return float(groups * option.rank * sum(sides(view, option.form))), whole * share


def _macs_share(view: LinearView, form: Form, rank: int, shapes: Mapping[str, Shape]) -> float:
    """MACs of the two nodes over those of the whole."""
    _, out, columns = view.shape
    rows, width = sides(view, form)
    stretch = 1.0  # the first half of a spatial pair runs on rows that the second one has not strided yet
    if form == "spatial" and isinstance(view, ConvView):
        x, y = shapes.get(view.input.name or ""), shapes.get(view.node.outputs[0].name or "")
        stretch = x[3] / y[3] if x is not None and y is not None and y[3] else 1.0
    return rank * (width * stretch + rows) / (out * columns)


@dataclass
class PairTimes:
    """Milliseconds of sites and of the pairs that may take their place, from the table of single nodes.

    Args:
        table: The table.
        shapes: Of all values in a typical call.
        opset: Of the model.
    """

    table: NodeTable
    shapes: Mapping[str, Shape]
    opset: int
    _known: dict[tuple[str, Form, int | None], float | None] = field(default_factory=dict)

    def of(self, site: Site, option: Option) -> float | None:
        """Milliseconds of all nodes of the site; None where a node can't be timed alone.

        Raises:
            ModelError: ONNX Runtime refuses a node.
        """
        key = (site.name, option.form, option.rank)
        if key not in self._known:
            found = [self._one(view, option) for view in site.views]
            known = [ms for ms in found if ms is not None]
            self._known[key] = sum(known) if len(known) == len(found) else None
        return self._known[key]

    def all(self, menu: Menu) -> Array | None:
        """float64 [options], timed at a few ranks of each form and interpolated between them."""
        whole = self.of(menu.site, menu.options[0])
        if whole is None:
            return None
        result = np.full(len(menu.options), whole)
        for form in {option.form for option in menu.options[1:]}:
            indices = [i for i, o in enumerate(menu.options) if o.rank is not None and o.form == form]
            ranks = [menu.options[i].rank or 0 for i in indices]
            knots = sorted({ranks[round(k)] for k in np.linspace(0, len(ranks) - 1, MOST_KNOTS)})
            times = [self.of(menu.site, Option(form, rank)) for rank in knots]
            result[indices] = np.interp(ranks, knots, [whole if t is None else t for t in times])
        return result

    def _one(self, view: LinearView, option: Option) -> float | None:
        spec = spec_of(view.node, self.shapes, self.opset)
        if spec is None:
            return None
        if option.rank is None:
            return self.table.latency(spec)
        y = self.shapes.get(view.node.outputs[0].name or "")
        if y is None:
            return None
        return sum(self.table.latency(s) for s in pair_specs(view, spec, option.form, option.rank, y))


def pair_specs(view: LinearView, spec: NodeSpec, form: Form, rank: int, y: Shape) -> tuple[NodeSpec, NodeSpec]:
    """The two nodes that `rewrite` makes, as the table knows nodes.

    Args:
        spec: Of the whole; `y`: the shape of its output.
    """
    x, weight, *bias = spec.inputs
    assert x is not None
    assert weight is not None
    two = pair(view, form, rank)
    between = middle(view, form, rank, x.shape, y)
    specs = []
    for shape, source, rest, attributes in zip(
        two.shapes, (x, Port(between, x.dtype)), ((), tuple(bias)), two.attributes, strict=True
    ):
        given = tuple(sorted(attributes.items()))
        inputs = (source, Port(shape, weight.dtype, constant=True), *rest)
        specs.append(NodeSpec(spec.op_type, inputs, given, 1, spec.domain, spec.opset))
    return specs[0], specs[1]
