"""What each pass could do with a model: the part of its planning that needs no feeds, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import onnx_ir as ir

from onnxcomp.driver.workbench import SHAPES_ONLY, rewritten
from onnxcomp.model import shapes as shape_inference
from onnxcomp.model.node_costs import NodeCost, node_costs
from onnxcomp.model.normalize import clone
from onnxcomp.model.unread import without_weights
from onnxcomp.passes.base import Context, Survey
from onnxcomp.passes.dynamic.dynamic import Dynamic
from onnxcomp.passes.factorize import sites as factorize
from onnxcomp.passes.precision.precision import Precision
from onnxcomp.passes.prune import skips as prune
from onnxcomp.passes.prune.analysis import analyse, analyse_shapes
from onnxcomp.passes.quantize import quantize
from onnxcomp.passes.simplify.simplify import Simplify, summary
from onnxcomp.passes.weight_only.weight_only import WeightOnly
from onnxcomp.report.figures import size
from onnxcomp.report.inspection import Prospect
from onnxcomp.report.text import plural

READ_LIMIT = 500_000_000
"""Bytes of weights up to which they are read; beyond, only what the graph alone shows is looked at."""

UNREAD = "by the graph alone: whether the weights are finite was not checked, as that reads them"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Material:
    """A model in the forms that passes start from.

    Args:
        canonical: The normal form.
        context: Without feeds, or with the user's; `context.shapes`: of the inputs in one call, empty if unknown.
        weight_bytes: Of all weights.
    """

    canonical: ir.Model
    context: Context
    weight_bytes: int
    _costs: dict[int, list[NodeCost]] = field(default_factory=dict)

    @property
    def readable(self) -> bool:
        return self.weight_bytes <= READ_LIMIT

    @cached_property
    def folded(self) -> ir.Model:
        """With the arithmetic on shapes done."""
        return rewritten(self.canonical, self.context, SHAPES_ONLY)

    @cached_property
    def simplified(self) -> ir.Model:
        """After all exact rewrites; where the weights are too many to read, the folded form without them."""
        if not self.readable:
            hollow = clone(self.folded)
            without_weights(hollow)
            return hollow
        return rewritten(self.canonical, self.context)

    @cached_property
    def shapes(self) -> Shapes:
        """Of the values in one call, as far as inference finds them."""
        return self.called(self.context.shapes)

    def called(self, given: Shapes) -> Shapes:
        """Shapes by value name when the inputs have these. With their sizes known, shape arithmetic is constant: it is
        done ahead of time, and what it feeds has a shape too."""
        if not given:
            return {}
        static = clone(self.canonical)
        shape_inference.bind(static, given)
        done = rewritten(static, self.context, SHAPES_ONLY)
        computed = {
            name: tuple(value.const_value.shape.numpy())
            for name, value in done.graph.initializers.items()
            if value.const_value is not None
        }
        return {
            **computed,
            **shape_inference.in_call(self.canonical, given),
            **shape_inference.in_call(static, given),
            **shape_inference.in_call(done, given),
        }

    def costs(self, form: ir.Model) -> list[NodeCost]:
        """Of the nodes of one of the forms; counted once."""
        if id(form) not in self._costs:
            called = shape_inference.in_call(form, self.context.shapes) if self.context.shapes else {}
            self._costs[id(form)] = node_costs(form, {**self.shapes, **called})
        return self._costs[id(form)]

    def shares(self, form: ir.Model, names: frozenset[str]) -> tuple[float | None, float | None]:
        """Of the MACs and of the bytes of weights of a form: what these nodes hold; None where there are none."""
        found = self.costs(form)
        chosen = [cost for cost in found if cost.name in names]
        macs = sum(cost.macs or 0 for cost in found)
        held = sum(cost.weight_bytes for cost in found)
        return (
            sum(cost.macs or 0 for cost in chosen) / macs if macs else None,
            sum(cost.weight_bytes for cost in chosen) / held if held else None,
        )


@dataclass(frozen=True)
class Kind:
    """A way to compress, as `inspect` lists it.

    Args:
        name: What it does; `command`: the verb that does it.
        form: Which form of the model it starts from.
        survey: What it could change, or why that can't be told.
        reads: What of the weights it reads: nothing but their shapes, whether they are finite, or all values.
    """

    name: str
    command: str
    form: Callable[[Material], ir.Model]
    survey: Callable[[ir.Model, Material], Survey | str]
    reads: Literal["shapes", "finiteness", "values"]


def prospects(material: Material) -> Sequence[Prospect]:
    """All ways to compress, each with the nodes that it could change and why not the others."""
    return [_prospect(kind, material) for kind in KINDS]


def _prospect(kind: Kind, material: Material) -> Prospect:
    if kind.reads == "values" and not material.readable:
        sentence = f"it reads all weights, here {size(material.weight_bytes)}; done up to {size(READ_LIMIT)}"
        return Prospect(name=kind.name, command=kind.command, not_examined=sentence)
    form = kind.form(material)
    found = kind.survey(form, material)
    if isinstance(found, str):
        return Prospect(name=kind.name, command=kind.command, not_examined=found)
    macs, held = material.shares(form, found.nodes)
    order = {node.name: index for index, node in enumerate(form.graph.all_nodes())}
    return Prospect(
        name=kind.name,
        command=kind.command,
        nodes=tuple(sorted(found.nodes, key=lambda name: (order.get(name, len(order)), name))),
        macs_share=macs,
        bytes_share=held,
        detail=(*found.detail, *([UNREAD] if kind.reads == "finiteness" and not material.readable else [])),
        skips=tuple(skip for skip in found.skips if skip.node not in found.nodes),
    )


def _simplify(model: ir.Model, material: Material) -> Survey:
    plan = Simplify().plan(model, material.context)
    return Survey(plan.changes(), plan.skips, tuple(summary(plan.edits)))


def _prune(model: ir.Model, material: Material) -> Survey | str:
    context = material.context
    if context.feed:
        return prune.survey(model, analyse(model, context.feed, context.session))
    if not context.shapes:
        return "the shapes of its inputs are unknown; give them with --shape, or feeds with --calibration"
    first = {**material.shapes, **shape_inference.in_call(model, context.shapes)}
    lists = ir.SequenceType | ir.OptionalType
    values = [v for node in model.graph for v in node.outputs if v.name and not isinstance(v.type, lists)]
    unknown = [v.name for v in values if v.name not in first]
    larger = _twice(model, context.shapes)
    others = {**material.called(larger), **shape_inference.in_call(model, larger)}
    found = prune.survey(model, analyse_shapes(model, first, others))
    if not unknown:
        return found
    sentence = (
        f"{plural(len(unknown), 'shape')} not known without a run ({unknown[0]} for one): channels that go through "
        "such values count as held, and --calibration may free them"
    )
    return replace(found, detail=(*found.detail, sentence))


def _twice(model: ir.Model, given: Shapes) -> Shapes:
    """Input shapes whose dynamic dimensions are twice as large: what changes then is no channel."""
    return {
        value.name or "": tuple(
            size if isinstance(dim, int) else 2 * size
            for dim, size in zip(value.shape or (), given[value.name or ""], strict=False)
        )
        for value in model.graph.inputs
        if value.name in given
    }


def _factorize(model: ir.Model, material: Material) -> Survey:
    return factorize.survey(model, material.context)


def _static(model: ir.Model, material: Material) -> Survey:
    return quantize.survey(model, material.context)


def _dynamic(model: ir.Model, material: Material) -> Survey:
    plan = Dynamic().plan(model, material.context)
    return Survey(plan.changes(), plan.left_alone())


def _weight_only(model: ir.Model, material: Material) -> Survey:
    return WeightOnly().survey(model, material.context)


def _precision(model: ir.Model, material: Material) -> Survey:
    plan = Precision().plan(model, material.context)
    detail = () if plan.calibrated else ("by operators and weights alone: without feeds no range is known",)
    return Survey(plan.changes(), plan.left_alone(), detail)


def _canonical(material: Material) -> ir.Model:
    return material.canonical


def _folded(material: Material) -> ir.Model:
    return material.folded


def _simplified(material: Material) -> ir.Model:
    return material.simplified


KINDS: tuple[Kind, ...] = (
    Kind("simplify", "simplify", _canonical, _simplify, "values"),
    Kind("prune", "prune", _folded, _prune, "shapes"),
    Kind("factorize", "factorize", _simplified, _factorize, "finiteness"),
    Kind("static INT8", "quantize --mode static", _simplified, _static, "shapes"),
    Kind("dynamic INT8", "quantize --mode dynamic", _simplified, _dynamic, "finiteness"),
    Kind("4-bit weights", "quantize --mode weight-only", _simplified, _weight_only, "finiteness"),
    Kind("float16", "quantize --mode fp16", _simplified, _precision, "values"),
)
"""In the order in which one would use them."""
