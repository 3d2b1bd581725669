"""Shapes of all values in two calls: what changes between them is dynamic, and never pruned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import OnnxcompError
from onnxcomp.model.normalize import clone
from onnxcomp.model.shapes import in_call
from onnxcomp.runtime.node_spec import Shape
from onnxcomp.runtime.session import Feed, SessionConfig, open_session

PREFIX = "onnxcomp.shape."


def two_calls(model: ir.Model, feed: Feed, config: SessionConfig) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Shapes by value name on `feed`, and on one whose dynamic dimensions are twice as large.

    A model that can't take the second call (a table of positions that ends) is tried with the batch alone; then the
    declared shapes tell what is dynamic.
    """
    first = shapes_of_call(model, feed, config)
    for larger in (doubled(model, feed, every=True), doubled(model, feed, every=False)):
        if all(larger[name].shape == array.shape for name, array in feed.items()):
            break
        try:
            return first, shapes_of_call(model, larger, config)
        except OnnxcompError:
            continue
    return first, first


def shapes_of_call(model: ir.Model, feed: Feed, config: SessionConfig) -> dict[str, Shape]:
    """Shapes of all values of the main graph in one call: inferred where that is possible, else by running the model.

    Raises:
        OnnxcompError: It does not run on this feed.
    """
    known = in_call(model, {name: array.shape for name, array in feed.items()})
    lists = ir.SequenceType | ir.OptionalType
    values = [v for node in model.graph for v in node.outputs if v.name and not isinstance(v.type, lists)]
    missing = [v.name or "" for v in values if v.name not in known]
    return known | (_run(model, missing, feed, config) if missing else {})


def doubled(model: ir.Model, feed: Feed, *, every: bool) -> dict[str, np.ndarray]:
    """The feed with its dynamic axes (`every`: all of them; else only axis 0) twice as long."""
    result = dict(feed)
    for value in model.graph.inputs:
        name = value.name or ""
        for axis, dim in enumerate(value.shape or ()):
            if name in result and not isinstance(dim, int) and (every or axis == 0):
                result[name] = np.concatenate([result[name], result[name]], axis)
    return result


def _run(model: ir.Model, names: Iterable[str], feed: Feed, config: SessionConfig) -> dict[str, Shape]:
    """A session gives out shapes only, not the values."""
    probed = clone(model)
    values = ir.convenience.create_value_mapping(probed.graph)
    outputs: Mapping[str, str] = {name: f"{PREFIX}{i}" for i, name in enumerate(names) if name in values}
    probed.graph.outputs.clear()
    for name, output in outputs.items():
        node = ir.node("Shape", [values[name]], name=output)
        node.outputs[0].name = output
        probed.graph.append(node)
        probed.graph.outputs.append(node.outputs[0])
    if not outputs:
        return {}
    with open_session(probed, config) as session:
        found = session.run(feed, list(outputs.values()))
    return {name: tuple(int(d) for d in shape) for name, shape in zip(outputs, found, strict=True)}
