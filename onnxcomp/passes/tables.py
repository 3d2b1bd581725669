"""Embedding tables as int8 rows, each with a scale of its own: a quarter of the bytes, and rows are read, not computed.

Gather(T, i)  →  Cast(Gather(Q, i)) · Gather(s, i),   s_r = max|T_r| / 127,  Q_r = round(T_r / s_r)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, int_attribute, is_standard, new_initializer
from onnxcomp.passes.integer_weights import quantize_weight, weight_scales
from onnxcomp.passes.selection import left_out

SMALLEST = 1 << 16
"""Bytes of a table that is worth three more nodes."""


def find_tables(model: ir.Model, only: Sequence[str], exclude: Sequence[str]) -> tuple[str, ...]:
    """Names of the nodes that read rows of a large constant table which nothing else reads."""
    readers = [node for node in model.graph if _reads_rows(node) and left_out(node, only, exclude) is None]
    named = {id(node) for node in readers}
    alone = [n for n in readers if all(id(u.node) in named and u.idx == 0 for u in n.inputs[0].uses())]  # type: ignore[union-attr]
    return tuple(node.name or "" for node in alone)


def write_tables(model: ir.Model, names: Sequence[str]) -> None:
    """Writes the tables of these nodes as int8 rows, in place."""
    graph, chosen = model.graph, set(names)
    stored: dict[str, tuple[ir.Value, ir.Value]] = {}
    for node in [n for n in graph if n.name in chosen and _reads_rows(n)]:
        table, indices = node.inputs[:2]
        assert table is not None
        if table.name not in stored:
            stored[table.name or ""] = _rows(graph, table)
        rows, scales = stored[table.name or ""]
        integers = ir.node("Gather", [rows, indices], name=f"{node.name}.rows")
        factors = ir.node("Gather", [scales, indices], name=f"{node.name}.scales")
        cast = ir.node("Cast", [integers.outputs[0]], {"to": int(ir.DataType.FLOAT)}, name=f"{node.name}.cast")
        product = ir.node("Mul", [cast.outputs[0], factors.outputs[0]], name=node.name)
        for inner in (integers, factors, cast):
            inner.outputs[0].name = f"{inner.name}.result"
        made = [integers, factors, cast, product]
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, node.outputs, product.outputs)


def _reads_rows(node: ir.Node) -> bool:
    table = node.inputs[0] if node.op_type == "Gather" and is_standard(node) else None
    array = constant(table)
    if array is None or array.dtype != np.float32 or array.ndim != 2 or array.nbytes < SMALLEST:
        return False
    return int_attribute(node, "axis", 0) in (0, -2) and bool(np.isfinite(array).all())


def _rows(graph: ir.Graph, table: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Integers [rows, width] and scales [rows, 1]."""
    array = constant(table)
    assert array is not None
    scales = weight_scales(array, 0)
    integers = new_initializer(graph, f"{table.name}.rows", quantize_weight(array, scales, 0))
    return integers, new_initializer(graph, f"{table.name}.scales", scales[:, None])
