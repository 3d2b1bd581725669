"""Writes rounded matrices into a graph: as `com.microsoft.MatMulNBits`, or as blockwise DequantizeLinear in front of
the product, which ONNX Runtime makes the same kernel of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.model.normalize import free_name
from onnxcomp.model.shapes import refresh
from onnxcomp.ops.attributes import is_standard, new_initializer
from onnxcomp.ops.linear import MatrixView
from onnxcomp.ops.upgrade import lift
from onnxcomp.passes.products import Product, bias_of, drop_unread, replace_product, view_of
from onnxcomp.passes.weight_only.blocks import Rounded
from onnxcomp.passes.weight_only.config import Activations
from onnxcomp.passes.weight_only.packing import BLOCKWISE_OPSET, dequantize_linear, matmul_n_bits

ACCURACY_LEVELS: dict[Activations, int] = {"float": 0, "int8": 4}
"""`accuracy_level` of MatMulNBits: 0 leaves the arithmetic in float32, 4 rounds the activations to int8 in blocks."""


def write_own(
    model: ir.Model,
    products: Sequence[Product],
    rounded: Mapping[str, Rounded],
    *,
    symmetric: bool,
    activations: Activations,
) -> None:
    """Each product, with the bias behind it, as one MatMulNBits, in place.

    Args:
        products: Of a model with nodes of the same names.
        rounded: By name of the product.
    """
    graph = model.graph
    nodes = {node.name: node for node in graph}
    for product in products:
        found = rounded[product.name]
        out, columns = product.size
        stored = _stored(graph, product, matmul_n_bits(found, symmetric=symmetric))
        attributes = {
            "K": columns,
            "N": out,
            "bits": found.grid.bits,
            "block_size": found.codes.shape[-1],
            "accuracy_level": ACCURACY_LEVELS[activations],
        }
        for view in _views(product, nodes):
            inputs = [view.input, *stored, None, bias_of(graph, view)]
            while inputs[-1] is None:
                inputs.pop()
            node = ir.node("MatMulNBits", inputs, attributes, domain="com.microsoft", name=view.node.name)
            replace_product(graph, view, [node])
    drop_unread(graph)
    model.opset_imports.setdefault("com.microsoft", 1)


def write_portable(
    model: ir.Model, products: Sequence[Product], rounded: Mapping[str, Rounded], *, symmetric: bool
) -> None:
    """Each product reads its matrix through a DequantizeLinear of its own, in place; the model gets opset 21.

    Raises:
        CannotLift: An operator of the model has no equivalent at opset 21.
    """
    lift(model, BLOCKWISE_OPSET)
    graph = model.graph
    nodes = {node.name: node for node in graph}
    taken = {*(n.name or "" for n in graph.all_nodes()), *ir.convenience.create_value_mapping(graph)}
    for product in products:
        found = rounded[product.name]
        out, columns = product.size
        stored = _stored(graph, product, dequantize_linear(found, symmetric=symmetric))
        attributes = {"axis": 0, "block_size": found.codes.shape[-1]}
        for view in _views(product, nodes):
            name = free_name(f"{view.node.name}.dequantize", taken)
            inputs = [value for value in stored if value is not None]
            dequantize = ir.node("DequantizeLinear", inputs, attributes, name=name)
            matrix = dequantize.outputs[0]
            matrix.name = free_name(f"{view.node.name}.weight", taken)
            matrix.shape, matrix.dtype = ir.Shape([columns, out]), ir.DataType.FLOAT
            graph.insert_before(view.node, [dequantize])
            _read(graph, view, matrix)
            _free_of_relu(graph, view.node)
    drop_unread(graph)
    refresh(model, keep_foreign=True)


def _read(graph: ir.Graph, view: MatrixView, matrix: ir.Value) -> None:
    """Makes the product read a matrix [K, N] that has a Gemm's α in it."""
    node = view.node
    if node.op_type == "Gemm":
        bias = bias_of(graph, view)
        if bias is not None:
            node.replace_input_with(2, bias)
        for name in ("alpha", "beta", "transB"):
            node.attributes.pop(name, None)
    node.replace_input_with(1, matrix)


def _free_of_relu(graph: ir.Graph, node: ir.Node) -> None:
    """Relu(x) directly behind a product becomes Max(x, 0).

    ONNX Runtime counts a Relu to the group of nodes that it would fuse (`GetQDQSelection` in qdq_selectors.cc), misses
    the QuantizeLinear behind it, and makes no integer kernel.
    """
    uses = list(node.outputs[0].uses())
    relu = uses[0].node if len(uses) == 1 else None
    if relu is None or relu.op_type != "Relu" or not is_standard(relu) or relu.graph is not graph:
        return
    zero = new_initializer(graph, f"{relu.name}.zero", np.zeros((), np.float32))
    largest = ir.node("Max", [relu.inputs[0], zero], name=relu.name)
    ir.convenience.replace_nodes_and_values(graph, relu, [relu], [largest], relu.outputs, largest.outputs)


def _stored(
    graph: ir.Graph, product: Product, arrays: tuple[np.ndarray, np.ndarray, np.ndarray | None]
) -> list[ir.Value | None]:
    """Integers, scales and zero points as initializers."""
    parts = ("quantized", "scale", "zero_point")
    return [
        None if array is None else new_initializer(graph, f"{product.weight}.{part}", array)
        for part, array in zip(parts, arrays, strict=True)
    ]


def _views(product: Product, nodes: Mapping[str | None, ir.Node]) -> list[MatrixView]:
    views = (view_of(nodes[name]) for name in product.nodes)
    return [view for view in views if view is not None]
