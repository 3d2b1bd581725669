"""Affine maps in front of a convolution or matrix product become part of its weights.

W∗(s·x + t) + b  =  (W·s)∗x + (b + W∗t), with one s and t for each input channel. Zeros that a convolution pads with are
not shifted, so t folds only where nothing is padded; s·x + t in front of padding becomes x + t/s, and s folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import (
    constant,
    int_attribute,
    ints_attribute,
    is_standard,
    new_initializer,
    string_attribute,
)
from onnxcomp.passes.simplify.affine import ELEMENTWISE, Affine, per_channel
from onnxcomp.passes.simplify.edits import Finding, Scope, bypass, can_bypass, edit, only_user

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Reader:
    """A node that multiplies its input by a constant weight of its own.

    Args:
        view: Shape in which the weight is seen, and `along`: in which a vector of input channels multiplies it there.
        channels: Input channels, on the axis `axis` of the input.
        summed: Axes of `view` over which a shift is summed, with the groups and outputs left; None if it can't fold.
    """

    node: ir.Node
    weight: Array
    view: tuple[int, ...]
    along: tuple[int, ...]
    channels: int
    axis: int
    summed: tuple[int, ...] | None


def _conv(node: ir.Node, weight: Array) -> Reader:
    """w: [out, in/groups, k…] seen as [groups, out/groups, in/groups, k…]"""
    groups = int_attribute(node, "group", 1)
    taps = weight.shape[2:]
    view = (groups, weight.shape[0] // groups, weight.shape[1], *taps)
    padded = any(ints_attribute(node, "pads", ())) or string_attribute(node, "auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    )
    summed = None if padded else tuple(range(2, len(view)))
    channels = groups * weight.shape[1]
    return Reader(node, weight, view, (groups, 1, weight.shape[1], *(1,) * len(taps)), channels, 1, summed)


def _gemm(node: ir.Node, weight: Array) -> Reader:
    """w: [in, out], or [out, in] with transB; alpha and beta as exporters write them, 1"""
    transposed = int_attribute(node, "transB", 0)
    plain = all(n not in node.attributes or node.attributes[n].as_float() == 1.0 for n in ("alpha", "beta"))
    along = (1, -1) if transposed else (-1, 1)
    return Reader(node, weight, weight.shape, along, weight.shape[transposed], 1, (transposed,) if plain else None)


def _matmul(node: ir.Node, weight: Array) -> Reader:
    """w: [in, out]; there is no place for a bias"""
    return Reader(node, weight, weight.shape, (-1, 1), weight.shape[0], -1, None)


FOLDS_INTO: dict[str, Callable[[ir.Node, Array], Reader]] = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
"""Each takes its data first and its weight second."""


def fold_scales(model: ir.Model, scope: Scope) -> Iterator[Finding]:
    """Folds Mul, Div, Add and Sub by constants into the weights of everything that reads them, in place."""
    for node in tuple(model.graph):
        if (
            node.op_type not in ELEMENTWISE
            or not is_standard(node)
            or node.name in scope.excluded
            or node.graph is None
        ):
            continue
        source = _computed(node)
        if source is None or not can_bypass(node, source) or _ends_gelu(source):
            continue
        shift_node = _shift_behind(node, scope) if node.op_type in ("Mul", "Div") else None
        readers = _readers((shift_node or node).outputs[0], model.graph, scope)
        vector = None if not readers else _vector(node, readers)
        if vector is None or not np.isfinite(vector).all():
            continue
        affine = ELEMENTWISE[node.op_type](vector)
        moved = None if shift_node is None else _moved(shift_node, affine.scale)
        if (shift_node is not None and moved is None) or not _fold(readers, affine, node, scope):
            continue
        if shift_node is not None and moved is not None:
            index = 1 if constant(shift_node.inputs[1]) is not None else 0
            shift_node.replace_input_with(index, new_initializer(model.graph, f"{shift_node.name}.shift", moved))
        bypass(node, source)
        names = ", ".join(r.node.name or "" for r in readers)
        yield edit(node, "folded into the weights behind it", f"folded into the weights of {names}")


def _computed(node: ir.Node) -> ir.Value | None:
    """The operand that is not constant."""
    a, b = node.inputs[:2]
    if constant(b) is not None:
        return a if constant(a) is None else None
    return b if constant(a) is not None and node.op_type in ("Mul", "Add") else None


def _ends_gelu(source: ir.Value) -> bool:
    """Whether `source` is x·(1 + erf(…)): with the ½ behind it ONNX Runtime fuses that into one operator."""
    product = source.producer()
    if product is None or product.op_type != "Mul":
        return False
    sums = [p for v in product.inputs if v is not None and (p := v.producer()) is not None and p.op_type == "Add"]
    return any(p.op_type in ("Erf", "Tanh") for s in sums for v in s.inputs if v and (p := v.producer()) is not None)


def _constant_operand(node: ir.Node) -> Array:
    a, b = (constant(v) for v in node.inputs[:2])
    array = b if b is not None else a
    assert array is not None
    return array


def _shift_behind(node: ir.Node, scope: Scope) -> ir.Node | None:
    """The Add or Sub of a constant that alone reads what `node` puts out."""
    user = only_user(node.outputs[0])
    if user is None or user.op_type not in ("Add", "Sub") or not is_standard(user) or user.name in scope.excluded:
        return None
    return user if _computed(user) is node.outputs[0] else None


def _readers(value: ir.Value, graph: ir.Graph, scope: Scope) -> list[Reader]:
    """Everything that reads `value`, if all of it is in `graph` and has a weight of its own; else nothing."""
    result = []
    for use in value.uses():
        node = use.node
        make = FOLDS_INTO.get(node.op_type) if is_standard(node) else None
        weight = node.inputs[1] if make is not None and use.idx == 0 and len(node.inputs) > 1 else None
        array = constant(weight)
        if make is None or weight is None or array is None or array.dtype != np.float32 or array.ndim < 2:
            return []
        shared = len(weight.uses()) > 1 or weight.is_graph_output()
        if shared or node.graph is not graph or node.name in scope.excluded:
            return []
        if node.op_type == "MatMul" and array.ndim != 2:
            return []
        result.append(make(node, array))
    return [] if value.is_graph_output() else result


def _vector(node: ir.Node, readers: list[Reader]) -> Array | None:
    """The constant operand as one number for each input channel of the readers, float64 [channels]."""
    array, channels = _constant_operand(node).astype(np.float64), readers[0].channels
    source = _computed(node)
    shape = None if source is None else source.shape
    if shape is None or any(r.channels != channels for r in readers):
        return None
    axes = {r.axis % shape.rank() for r in readers}
    # Else the constant would widen a source of one channel, or the readers have their channels in two places.
    if array.size > 1 and (len(axes) > 1 or shape[min(axes)] != channels):
        return None
    return per_channel(array, channels, shape.rank(), min(axes))


def _moved(shift_node: ir.Node, scale: Array) -> Array | None:
    """The constant of a shift t behind s·x, as one of x: t/s; None unless there is one s for all channels."""
    array = _constant_operand(shift_node)
    if not (scale == scale[0]).all():
        return None
    with np.errstate(all="ignore"):
        moved = np.asarray(array.astype(np.float64) / scale[0], array.dtype)
    return moved if np.isfinite(moved).all() else None


def _fold(readers: list[Reader], affine: Affine, node: ir.Node, scope: Scope) -> bool:
    """Writes the new weights and biases; changes nothing where one of them can't be had."""
    scale, shift = affine.scale, affine.shift
    made: list[tuple[Reader, Array, Array | None]] = []
    for reader in readers:
        seen = reader.weight.astype(np.float64).reshape(reader.view)
        weight = (seen * scale.reshape(reader.along)).reshape(reader.weight.shape)
        bias = None
        if shift.any():
            old = reader.node.inputs[2] if len(reader.node.inputs) > 2 else None
            array = constant(old)
            if reader.summed is None:
                return False
            added = (seen * shift.reshape(reader.along)).sum(axis=reader.summed).reshape(-1)
            known = None if array is None else per_channel(array, added.size, 2)
            if old is not None and known is None:  # computed, or a Gemm's that differs from row to row
                return False
            if known is None and added.size * 4 > _constant_operand(node).nbytes + scope.growth:
                return False
            bias = added + (0.0 if known is None else known)
        arrays = [weight] if bias is None else [weight, bias]
        with np.errstate(over="ignore"):
            stored = [a.astype(np.float32) for a in arrays]
        if not all(np.isfinite(a).all() for a in stored):
            return False
        made.append((reader, stored[0], None if bias is None else stored[1]))
    for reader, weight, bias in made:
        graph = reader.node.graph
        assert isinstance(graph, ir.Graph)
        if not (scale == 1.0).all():
            reader.node.replace_input_with(1, new_initializer(graph, f"{reader.node.name}.weight", weight))
        if bias is not None:
            reader.node.resize_inputs(3)
            reader.node.replace_input_with(2, new_initializer(graph, f"{reader.node.name}.bias", bias))
    return True
