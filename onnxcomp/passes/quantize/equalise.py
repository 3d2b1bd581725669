"""Equalisation of the channels that a depthwise convolution reads: each then uses all of the one range that they share.

    W₁,j ← W₁,j / s_j,  b₁,j ← b₁,j / s_j,  W₂,j ← s_j·W₂,j,   s_j = max|X_j| / max_k max|X_k|

(Nagel et al. 2019, section 4.1, with s from activations: INT8 weights have a scale for each output channel, so neither
a convolution that writes j nor a depthwise one that reads it loses anything by s_j.) It is exact through operators with
f(s·x) = s·f(x), s > 0. A Clip is one only below its upper bound: there channels grow as far as that stays out of reach.

Between other convolutions the factors go into rows that share a scale; measured, that won as often as it lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Reader
from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import constant, is_standard, new_initializer
from onnxcomp.ops.clips import activation_bounds
from onnxcomp.ops.kernels import is_depthwise
from onnxcomp.runtime.session import SessionConfig, open_session

Factors = dict[str, tuple[float, ...]]
"""Activation → s, one for each channel."""

HOMOGENEOUS = frozenset({"Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool"})
"""Operators with f(s·x) = s·f(x) for s > 0 in each channel; Clip below its upper bound, with no lower one but 0."""

SMALLEST = 1e-2
"""Of a factor: a channel that is almost empty stays small."""

HEADROOM = 0.5
"""Share of a Clip's bound that the largest value seen may reach by a factor: others may be twice as large."""

PREFIX = "onnxcomp.equalise."


@dataclass(frozen=True)
class Link:
    """An activation that depthwise convolutions alone read.

    Args:
        name: Of the activation.
        writer: The convolution that it comes from; `readers`: those that read it.
        bound: Smallest upper bound of a Clip between.
    """

    name: str
    writer: ir.Node
    readers: tuple[ir.Node, ...]
    bound: float


def links(model: ir.Model) -> list[Link]:
    """All activations of `model` that can be equalised."""
    found = (_link(value) for node in model.graph for value in node.outputs)
    return [link for link in found if link is not None]


def channel_factors(model: ir.Model, reader: Reader, config: SessionConfig) -> Factors:
    """s of every link, from the largest values over all feeds; those with nothing to gain are left out."""
    chosen = links(model)
    sizes = _channel_sizes(model, [link.name for link in chosen], reader, config) if chosen else {}
    result: Factors = {}
    for link in chosen:
        x = sizes[link.name]
        top = min(x.max(initial=0.0), HEADROOM * link.bound)
        if not (np.isfinite(x).all() and top > 0):
            continue
        s = np.clip(x / top, SMALLEST, 1.0).astype(np.float32)
        if (s < 1).any():
            result[link.name] = tuple(float(f) for f in s)
    return result


def equalised(model: ir.Model, factors: Mapping[str, Sequence[float]]) -> ir.Model:
    """A copy that computes the same, with every channel of these activations divided by its factor."""
    result = clone(model)
    for link in links(result) if factors else ():
        if link.name in factors:
            s = np.asarray(factors[link.name], np.float32)
            _scale(link.writer, (1, 2), 1 / s)
            for reader in link.readers:
                _scale(reader, (1,), s)
    return result


def _link(value: ir.Value) -> Link | None:
    readers = tuple(use.node for use in value.uses())
    if not readers or value.is_graph_output() or not all(is_depthwise(n) and _own_weights(n) for n in readers):
        return None
    writer, bound = value.producer(), np.inf
    while writer is not None and writer.op_type in HOMOGENEOUS and is_standard(writer):
        bounds, source = activation_bounds(writer), writer.inputs[0]
        if bounds is None or bounds[0] not in (0.0, -np.inf) or source is None:
            return None
        if len(source.uses()) != 1 or source.is_graph_output():
            return None
        writer, bound = source.producer(), min(bound, bounds[1])
    if writer is None or writer.op_type != "Conv" or not is_standard(writer) or not _own_weights(writer):
        return None
    return Link(value.name or "", writer, readers, bound)


def _own_weights(node: ir.Node) -> bool:
    parameters = [v for v in node.inputs[1:] if v is not None]
    return all(constant(v) is not None and len(v.uses()) == 1 for v in parameters)


def _channel_sizes(
    model: ir.Model, names: Sequence[str], reader: Reader, config: SessionConfig
) -> dict[str, np.ndarray]:
    """max|X_j| of each channel (axis 1) over all feeds."""
    watched = clone(model)
    values = ir.convenience.create_value_mapping(watched.graph)
    watched.graph.outputs.clear()
    for name in names:
        size = ir.node("Abs", [values[name]], name=f"{PREFIX}{name}.size")
        largest = ir.node("GlobalMaxPool", [size.outputs[0]], name=f"{PREFIX}{name}")
        for node in (size, largest):
            node.outputs[0].name, node.outputs[0].dtype = node.name, ir.DataType.FLOAT
        watched.graph.extend([size, largest])
        watched.graph.outputs.append(largest.outputs[0])
    outputs = [f"{PREFIX}{name}" for name in names]
    found: list[np.ndarray] = []
    with open_session(watched, config) as session:
        for feed in reader:
            sizes = [a.max(axis=0).ravel() for a in session.run(feed, outputs)]
            found = [np.maximum(a, b) for a, b in zip(found or sizes, sizes, strict=True)]
    return dict(zip(names, found, strict=True))


def _scale(node: ir.Node, indices: Sequence[int], s: np.ndarray) -> None:
    """Multiplies output channels of the weight, and of the bias where it is among `indices` and there."""
    assert isinstance(node.graph, ir.Graph)
    for index in indices:
        old = node.inputs[index] if index < len(node.inputs) else None
        array = constant(old)
        if old is None or array is None:
            continue
        scaled = array * s.reshape(-1, *(1,) * (array.ndim - 1))
        node.replace_input_with(index, new_initializer(node.graph, f"{node.name}.equalised", scaled.astype(np.float32)))
        if not old.uses():
            node.graph.initializers.pop(old.name or "", None)
