"""Two nodes in the place of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxcomp.model.normalize import clone, free_name
from onnxcomp.model.shapes import refresh
from onnxcomp.ops.attributes import new_initializer
from onnxcomp.ops.linear import Array, LinearView, store
from onnxcomp.passes.factorize.forms import Attributes, Form, dense, pair, stored
from onnxcomp.passes.factorize.sites import Site


@dataclass(frozen=True)
class Factors:
    """What a site becomes.

    Args:
        form: How it is split.
        first: P, as `forms.stored` takes it; `second`: U.
        shift: Added to the bias, [groups, out]; zeros where none can be stored.
    """

    form: Form
    first: Array
    second: Array
    shift: Array


def split(model: ir.Model, sites: Mapping[str, Site], factors: Mapping[str, Factors]) -> ir.Model:
    """A copy in which each site with factors is two nodes.

    The second node is the old one: it keeps its name and its outputs, and what follows it stays as it was. The first
    one is called `<name>.reduced`.

    Args:
        sites: By name; of `model`.
        factors: By name of the site.
    """
    result = clone(model)
    nodes = {node.name: node for node in result.graph}
    # A model that was factorised before has such names already.
    taken = {*(n.name or "" for n in result.graph.all_nodes()), *ir.convenience.create_value_mapping(result.graph)}
    for name, made in factors.items():
        weight, *others = _views(sites[name], nodes)
        arrays = stored(weight, made.form, made.first, made.second)
        first, second = (
            new_initializer(result.graph, f"{sites[name].weight}.{part}", array)
            for part, array in zip(("first", "second"), arrays, strict=True)
        )
        rank = made.first.shape[1]
        for view in (weight, *others):
            _shifted(view, made.shift)
            attributes = pair(view, made.form, rank).attributes
            _split(view, attributes, first, second, taken)
        result.graph.initializers.pop(sites[name].weight)
    refresh(result, keep_foreign=True)
    return result


def merged(model: ir.Model, sites: Mapping[str, Site], factors: Mapping[str, Factors]) -> ir.Model:
    """A copy in which each site has the product of its factors for its weight: what the two nodes must compute."""
    result = clone(model)
    nodes = {node.name: node for node in result.graph}
    for name, made in factors.items():
        for view in _views(sites[name], nodes):
            _shifted(view, made.shift)
            store(view, view.with_matrix(dense(view, made.form, made.second @ made.first), None))
    return result


def _views(site: Site, nodes: Mapping[str | None, ir.Node]) -> list[LinearView]:
    found = [LinearView.of(nodes[view.node.name], tied=True) for view in site.views]
    return [view for view in found if view is not None]


def _shifted(view: LinearView, shift: Array) -> None:
    """Adds to the bias; a node that had none gets one."""
    if not view.can_bias or not shift.any():
        return
    offset, change = view.offset(), shift.reshape(-1)
    store(view, view.with_bias(change if offset is None else offset + change))


def _split(
    view: LinearView, attributes: tuple[Attributes, Attributes], first: ir.Value, second: ir.Value, taken: set[str]
) -> None:
    node = view.node
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    own, after = attributes
    reduced = ir.node(node.op_type, [view.input, first], _plain(own), name=free_name(f"{node.name}.reduced", taken))
    reduced.outputs[0].name = free_name(f"{view.output.name}.reduced", taken)
    graph.insert_before(node, reduced)
    node.replace_input_with(0, reduced.outputs[0])
    node.replace_input_with(1, second)
    beta = node.attributes.get("beta")
    node.attributes.clear()
    for attribute in ir.convenience.convert_attributes(_plain(after)):
        node.attributes[attribute.name] = attribute
    if beta is not None:
        node.attributes["beta"] = beta


def _plain(attributes: Attributes) -> dict[str, int | str | list[int]]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in attributes.items()}
