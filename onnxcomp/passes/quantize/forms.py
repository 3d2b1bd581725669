"""Operators that ONNX Runtime has no integer rule for, written as ones for which it has.

Each takes a graph in which the operator stands between DequantizeLinear and QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import float_attribute
from onnxcomp.passes.quantize.affine import QMAX


class Store(Protocol):
    """Where forms put their constants and nodes."""

    def parameter(self, kind: str, array: np.ndarray) -> ir.Value:
        """A scalar initializer; equal ones are stored once."""

    def number(self, near: ir.Node, value: float) -> ir.Value:
        """A number as integers behind a DequantizeLinear, in front of `near`."""

    def unique(self, name: str) -> str:
        """A name that nothing has."""


Form = Callable[[Store, ir.Node], None]


def _hard_sigmoid(store: Store, node: ir.Node) -> None:
    """clip(αx + β, 0, 1) = α · clip(x + β/α, 0, 1/α): an Add that swallows its Clip. The factor is free, because the
    integers of [0, 1/α] at scale s are those of [0, 1] at scale α·s."""
    alpha, beta = float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5)
    quantize = _only_reader(node.outputs[0])
    nodes = _shifted_and_clipped(store, node, beta / alpha, 1 / alpha)
    quantize.replace_input_with(0, nodes[-1].outputs[0])
    scale = np.float32(quantize.inputs[1].const_value.numpy() / np.float32(alpha))  # type: ignore[union-attr]
    quantize.replace_input_with(1, store.parameter("scale", _within(scale, 1 / alpha)))
    _replace(node, nodes)


def _hard_swish(store: Store, node: ir.Node) -> None:
    """x · clip(x + 3, 0, 6) / 6"""
    quantize = _only_reader(node.outputs[0])
    nodes = _shifted_and_clipped(store, node, 3.0, 6.0)
    outer = _within(np.float32(1 / QMAX), 1.0)
    zero = store.parameter("zero_point", np.asarray(0, np.uint8))
    inner = store.parameter("scale", _within(np.float32(6 / QMAX), 6.0))
    gate = ir.node("QuantizeLinear", [nodes[-1].outputs[0], inner, zero], name=store.unique(f"{node.name}.quantize"))
    scale = store.parameter("scale", outer)
    back = ir.node("DequantizeLinear", [gate.outputs[0], scale, zero], name=store.unique(f"{node.name}.dequantize"))
    product = ir.node("Mul", [node.inputs[0], back.outputs[0]], name=node.name)
    nodes[0].name = store.unique(f"{node.name}.gate")
    for made in (gate, back, product):
        made.outputs[0].name = store.unique(f"{made.name}.result")
    quantize.replace_input_with(0, product.outputs[0])
    _replace(node, [*nodes, gate, back, product])


def _pad(store: Store, node: ir.Node) -> None:
    """Padding the integers with the zero point pads the values with zeros."""
    before, after = node.inputs[0].producer(), _only_reader(node.outputs[0])  # type: ignore[union-attr]
    assert before is not None
    inputs = [before.inputs[0], node.inputs[1], before.inputs[2], *node.inputs[3:]]
    pad = ir.node("Pad", inputs, name=node.name)
    pad.outputs[0].name = store.unique(f"{node.outputs[0].name}.padded")
    pad.outputs[0].dtype, pad.outputs[0].shape = ir.DataType.UINT8, node.outputs[0].shape
    after.outputs[0].replace_all_uses_with(pad.outputs[0])
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(node, [pad])
    graph.remove([after, node], safe=True)


FORMS: dict[str, Form] = {"HardSigmoid": _hard_sigmoid, "HardSwish": _hard_swish, "Pad": _pad}


def _shifted_and_clipped(store: Store, node: ir.Node, shift: float, high: float) -> list[ir.Node]:
    """x + shift, clipped to [0, high]."""
    source = node.inputs[0]
    low, top = (store.parameter("bound", np.asarray(b, np.float32)) for b in (0.0, high))
    add = ir.node("Add", [source, store.number(node, shift)], name=node.name)
    add.outputs[0].name = store.unique(f"{node.name}.shifted")
    clip = ir.node("Clip", [add.outputs[0], low, top], name=store.unique(f"{node.name}.clip"))
    clip.outputs[0].name = store.unique(f"{node.name}.clipped")
    return [add, clip]


def _within(scale: np.float32, high: float) -> np.ndarray:
    """The largest scale up to `scale` with which 255 steps stay within `high` in float32: only then the Clip is
    redundant, and swallowed (`IsClipMadeRedundantByQ` in qdq_util.cc)."""
    while np.float32(QMAX) * scale > np.float32(high):
        scale = np.nextafter(scale, np.float32(0))
    return np.asarray(scale, np.float32)


def _only_reader(value: ir.Value) -> ir.Node:
    (use,) = value.uses()
    return use.node


def _replace(node: ir.Node, nodes: list[ir.Node]) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    for made in nodes:
        (value,) = made.outputs
        value.dtype = ir.DataType.UINT8 if made.op_type == "QuantizeLinear" else ir.DataType.FLOAT
        value.shape = node.outputs[0].shape
    graph.insert_before(node, nodes)
    graph.remove(node, safe=True)
