"""Products with int8 matrices, the activation quantised at run time.

y = s_x·s_w · (q_x − z_x)·q_w + b: in ONNX's operators DynamicQuantizeLinear → MatMulInteger → Cast → Mul → Add, which
ONNX Runtime fuses to the operators of its own that are written directly where they may be. An activation that several
products read is quantised once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.model.normalize import free_name
from onnxcomp.ops.attributes import new_initializer
from onnxcomp.ops.linear import MatrixView
from onnxcomp.passes.integer_weights import quantize_weight, weight_scales
from onnxcomp.passes.products import Product, bias_of, replace_product, view_of

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Stored:
    """A matrix as integers [K, N] with scales [N]."""

    integers: ir.Value
    scales: ir.Value


def write_products(model: ir.Model, products: Sequence[Product], *, portable: bool, pairs_saturate: bool) -> None:
    """Writes these products in INT8, in place; they are of a model with nodes of the same names."""
    graph = model.graph
    nodes = {node.name: node for node in graph}
    order = {node: i for i, node in enumerate(graph)}
    todo: list[tuple[ir.Node, Stored]] = []
    for product in products:
        stored = _stored(graph, product, pairs_saturate)
        todo += [(nodes[name], stored) for name in product.nodes]
    todo.sort(key=lambda item: order[item[0]])
    writer = _Writer(model, [node for node, _ in todo])
    for node, stored in todo:
        view = view_of(node)
        assert view is not None
        made = writer.standard(view, stored) if portable else writer.own(view, stored)
        replace_product(graph, view, made)


def _stored(graph: ir.Graph, product: Product, pairs_saturate: bool) -> Stored:
    matrix = product.matrix()
    scales = weight_scales(matrix, 0, pairs_saturate=pairs_saturate)
    integers = np.ascontiguousarray(quantize_weight(matrix, scales, 0).T)
    return Stored(
        new_initializer(graph, f"{product.weight}.quantized", integers),
        new_initializer(graph, f"{product.weight}.scale", scales),
    )


class _Writer:
    def __init__(self, model: ir.Model, nodes: Sequence[ir.Node]) -> None:
        self._graph = model.graph
        values = ir.convenience.create_value_mapping(model.graph)
        self._taken = {*(n.name or "" for n in model.graph.all_nodes()), *values, *model.graph.initializers}
        # By name: what a node wrote is another value after it was replaced, with the same name.
        self._readers = Counter(node.inputs[0].name for node in nodes if node.inputs[0] is not None)
        self._quantized: dict[str | None, Sequence[ir.Value]] = {}

    def standard(self, view: MatrixView, stored: Stored) -> list[ir.Node]:
        """As operators of ONNX."""
        name = view.node.name or ""
        integers, scale, zero = self._activation(view)
        product = self._node("MatMulInteger", [integers, stored.integers, zero], f"{name}.integer")
        floats = self._node("Cast", [product.outputs[0]], f"{name}.cast", to=int(ir.DataType.FLOAT))
        scales = self._node("Mul", [scale, stored.scales], f"{name}.scales")
        result = self._node("Mul", [floats.outputs[0], scales.outputs[0]], name)
        made = [product, floats, scales, result]
        bias = bias_of(self._graph, view)
        if bias is not None:
            result.outputs[0].name = free_name(f"{name}.product", self._taken)
            made.append(self._node("Add", [result.outputs[0], bias], f"{name}.biased"))
        return made

    def own(self, view: MatrixView, stored: Stored) -> list[ir.Node]:
        """As one operator of ONNX Runtime's own."""
        name = view.node.name or ""
        bias = bias_of(self._graph, view)
        if self._readers[view.input.name] == 1:
            inputs = [view.input, stored.integers, stored.scales, None, bias]
            return [self._node("DynamicQuantizeMatMul", inputs, name, MICROSOFT)]
        integers, scale, zero = self._activation(view)
        inputs = [integers, stored.integers, scale, stored.scales, zero, None, bias]
        return [self._node("MatMulIntegerToFloat", inputs, name, MICROSOFT)]

    def _activation(self, view: MatrixView) -> Sequence[ir.Value]:
        """Integers, scale and zero point of what the node reads: made in front of its first reader."""
        source = view.input
        if source.name not in self._quantized:
            name = free_name(f"{source.name}.quantize", self._taken)
            node = ir.Node("", "DynamicQuantizeLinear", [source], num_outputs=3, name=name)
            for value, part in zip(node.outputs, ("quantized", "scale", "zero_point"), strict=True):
                value.name = free_name(f"{source.name}.{part}", self._taken)
            node.outputs[0].shape, node.outputs[0].dtype = source.shape, ir.DataType.UINT8
            self._graph.insert_before(view.node, [node])
            self._quantized[source.name] = node.outputs
        return self._quantized[source.name]

    def _node(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, domain: str = "", **attributes: int
    ) -> ir.Node:
        inputs = list(inputs)
        while inputs and inputs[-1] is None:
            inputs.pop()
        node = ir.node(op_type, inputs, attributes, domain=domain, name=name)
        node.outputs[0].name = free_name(f"{name}.result", self._taken)
        return node
