"""Embedding tables as int8 rows, each with a scale of its own: a quarter of the bytes, and rows are read, not computed.

Gather(T, i)  →  Cast(Gather(Q, i)) · Gather(s, i),   s_r = max|T_r| / 127,  Q_r = round(T_r / s_r)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.model.unread import all_finite
from onnxcomp.ops.attributes import constant, int_attribute, is_constant, is_standard, new_initializer
from onnxcomp.passes.integer_weights import quantize_weight, weight_scales
from onnxcomp.passes.selection import left_out
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Skip

SMALLEST = 1 << 16
"""Bytes of a table that is worth three more nodes."""


def find_tables(model: ir.Model, only: Sequence[str], exclude: Sequence[str]) -> tuple[str, ...]:
    """Names of the nodes that read rows of a large constant table which nothing else reads."""
    readers = [node for node in model.graph if _reads_rows(node) and left_out(node, only, exclude) is None]
    named = {id(node) for node in readers}
    alone = [n for n in readers if all(id(u.node) in named and u.idx == 0 for u in n.inputs[0].uses())]  # type: ignore[union-attr]
    return tuple(node.name or "" for node in alone)


def left_tables(model: ir.Model, chosen: Sequence[str]) -> Iterator[Skip]:
    """Why the other nodes that read rows of constant numbers stay as they are; the options aside."""
    for node in model.graph:
        if _is_lookup(node) and node.name not in chosen:
            code, sentence = _trouble(node) or _outside(node)
            yield Skip(node=node.name or "", op_type=node.op_type, code=code, sentence=sentence)


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


def _is_lookup(node: ir.Node) -> bool:
    """Gather from constant numbers that are no integers."""
    table = node.inputs[0] if node.op_type == "Gather" and is_standard(node) else None
    return is_constant(table) and table is not None and table.dtype is not None and table.dtype.is_floating_point()


def _reads_rows(node: ir.Node) -> bool:
    return _is_lookup(node) and _trouble(node) is None


def _trouble(node: ir.Node) -> tuple[Reason, str] | None:
    """What keeps a lookup from being one of int8 rows, whoever else reads the table."""
    table = node.inputs[0]
    array = constant(table)
    assert table is not None
    assert array is not None
    if array.nbytes < SMALLEST:
        return Reason.TOO_SMALL, f"its table has {array.nbytes:,} bytes, less than {SMALLEST:,}"
    if array.dtype != np.float32:
        return Reason.NOT_FLOAT32, "its table is not float32"
    if array.ndim != 2 or int_attribute(node, "axis", 0) not in (0, -2):
        return Reason.UNSUPPORTED_FORM, "it does not read the rows of a matrix"
    return None if all_finite(table) else (Reason.NOT_FINITE, DESCRIPTIONS[Reason.NOT_FINITE])


def _outside(node: ir.Node) -> tuple[Reason, str]:
    uses = node.inputs[0].uses()  # type: ignore[union-attr]
    if len(uses) == 1:
        return Reason.KEPT_FLOAT, "tables become int8 only in a model that computes in INT8 somewhere"
    return Reason.SHARED, "its table is read in another place too, which needs it as it is"


def _rows(graph: ir.Graph, table: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Integers [rows, width] and scales [rows, 1]."""
    array = constant(table)
    assert array is not None
    scales = weight_scales(array, 0)
    integers = new_initializer(graph, f"{table.name}.rows", quantize_weight(array, scales, 0))
    return integers, new_initializer(graph, f"{table.name}.scales", scales[:, None])
