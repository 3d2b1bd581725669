"""Layer normalisation as exporters write it.

    μ = mean(x),   d = x − μ,   σ = √(mean(d²) + ε),   y = γ·d/σ + β

Means are over the last axes. d² is Pow(d, 2) or d·d, d may be computed twice, 1/σ may be a Reciprocal, a Div or a power
of −½, and TensorFlow writes y as x·m + (β − μ·m) with m = γ/σ. Between the parts of a model in half precision stand
Casts: what is computed in float there, so is it in LayerNormalization (its `stash_type`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.model.patterns.match import Match, Pattern, is_closed, number, other_operand, producer_of, rank_of, reader
from onnxcomp.model.shapes import trusted
from onnxcomp.ops.attributes import constant, int_attribute, ints_attribute, is_constant

_HALF, _SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT


@dataclass
class _Norm:
    """What is known of a norm on the way through its nodes.

    Args:
        source: x; `count`: over how many of the last axes.
        mean: μ, a value that TensorFlow's form reads again.
        value: The result so far.
    """

    source: ir.Value
    count: int
    mean: ir.Value
    epsilon: float
    value: ir.Value
    nodes: dict[ir.Node, None] = field(default_factory=dict)
    scale: ir.Value | np.ndarray | None = None
    bias: ir.Value | np.ndarray | None = None

    def take(self, *nodes: ir.Node | None) -> None:
        self.nodes.update((node, None) for node in nodes if node is not None)


def match(node: ir.Node) -> Match | None:
    """The norm around a Sqrt, or around a Pow that is a root."""
    norm = _root(node)
    if norm is None:
        return None
    inverse = node.op_type == "Pow" and (number(node.inputs[1], rank_of(node.outputs[0])) or 0.0) < 0.0
    if not (inverse or _invert(norm)) or not _normalise(norm):
        return None
    _uncast(norm)
    _finish(norm)
    dims = _dims(norm)
    # Over several axes ones would weigh as much as an activation.
    if norm.scale is None and dims is not None and norm.count == 1:
        norm.scale = np.ones(dims, (norm.source.dtype or _SINGLE).numpy())
    good = norm.source.dtype in (_SINGLE, _HALF) and norm.value.dtype == norm.source.dtype
    # Arithmetic on constants is folded as it is.
    if norm.scale is None or not good or is_constant(norm.source) or not is_closed(norm.nodes, norm.value):
        return None
    inputs = (norm.source, norm.scale) if norm.bias is None else (norm.source, norm.scale, norm.bias)
    attributes: dict[str, int | float | str] = {"axis": -norm.count, "epsilon": norm.epsilon}
    return Match("LayerNormalization", tuple(norm.nodes), norm.value, inputs, attributes)


PATTERN = Pattern("LayerNormalization", 17, frozenset({"Sqrt", "Pow"}), match)


def _root(node: ir.Node) -> _Norm | None:
    """Sqrt(mean(d²) + ε), or the sum to the power of ½ or −½."""
    output = node.outputs[0]
    if node.op_type == "Pow" and number(node.inputs[1], 1) not in (0.5, -0.5):
        return None
    total = producer_of(node.inputs[0], "Add")
    for variance in () if total is None else total.inputs[:2]:
        spread = producer_of(variance, "ReduceMean")
        if total is None or variance is None or spread is None:
            continue
        square = producer_of(spread.inputs[0], "Pow", "Mul")
        found = None if square is None else _centred(_base(square))
        epsilon = number(other_operand(total, variance), max(1, rank_of(variance)))
        if found is None or epsilon is None or not 0.0 <= epsilon < 1.0:
            continue
        source, mean, nodes = found
        count = _last_axes(spread)
        if count is not None and count == _last_axes(mean):
            norm = _Norm(source, count, mean.outputs[0], epsilon, output)
            norm.take(*nodes, square, spread, total, node)
            return norm
    return None


def _base(square: ir.Node) -> ir.Value | None:
    """d, where the node computes d²."""
    first, second = square.inputs[:2]
    twice = first is second if square.op_type == "Mul" else number(second, 1) == 2.0
    return first if twice else None


def _centred(value: ir.Value | None) -> tuple[ir.Value, ir.Node, list[ir.Node]] | None:
    """x, the node of its mean and all the nodes, if `value` is x − mean(x), perhaps behind a Cast."""
    cast = producer_of(value, "Cast")
    minus = producer_of(value if cast is None else cast.inputs[0], "Sub")
    mean = None if minus is None else producer_of(minus.inputs[1], "ReduceMean")
    if minus is None or mean is None or minus.inputs[0] is None or mean.inputs[0] is not minus.inputs[0]:
        return None
    return minus.inputs[0], mean, [mean, minus, *([] if cast is None else [cast])]


def _last_axes(node: ir.Node) -> int | None:
    """k, if the node reduces over the last k axes and keeps them."""
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    computed = len(node.inputs) > 1 and node.inputs[1] is not None and given is None
    axes = [int(a) for a in (ints_attribute(node, "axes", ()) if given is None else given.ravel())]
    source = node.inputs[0]
    rank = 0 if source is None else rank_of(source)
    if computed or not axes or not int_attribute(node, "keepdims", 1) or (not rank and max(axes) >= 0):
        return None
    behind = sorted(a if a < 0 else a - rank for a in axes)
    return len(axes) if behind == list(range(-len(axes), 0)) else None


def _invert(norm: _Norm) -> bool:
    """Goes from σ to d/σ, or to 1/σ."""
    node = reader(norm.value)
    if node is None or (node.op_type == "Div" and node.inputs[1] is not norm.value):
        return False
    if node.op_type not in ("Reciprocal", "Div"):
        return False
    if node.op_type == "Div" and number(node.inputs[0], 1) != 1.0:
        return _take_product(norm, node, node.inputs[0])
    norm.take(node)
    norm.value = node.outputs[0]
    return True


def _normalise(norm: _Norm) -> bool:
    """Goes from 1/σ, or d/σ, to the normalised values."""
    if _is_normalised(norm):
        return True
    node = reader(norm.value)
    if node is not None and node.op_type == "Mul" and _scaled(norm, node):
        node = reader(norm.value)
    if node is not None:
        return node.op_type == "Mul" and _take_product(norm, node, other_operand(node, norm.value))
    return _tensorflow(norm)


def _is_normalised(norm: _Norm) -> bool:
    node = norm.value.producer()
    return node is not None and node.op_type == "Div" and number(node.inputs[0], 1) is None


def _take_product(norm: _Norm, node: ir.Node, other: ir.Value | None) -> bool:
    """d · (1/σ) or d / σ."""
    found = _centred(other)
    if found is None or found[0] is not norm.source or _last_axes(found[1]) != norm.count:
        return False
    norm.take(*found[2], node)
    norm.value = node.outputs[0]
    return True


def _tensorflow(norm: _Norm) -> bool:
    """x·m + (β − μ·m)"""
    users = [use.node for use in norm.value.uses()]
    if len(users) != 2 or norm.value.is_graph_output() or any(producer_of(u.outputs[0], "Mul") is None for u in users):
        return False
    for first, second in (users, reversed(users)):
        last, minus = reader(first.outputs[0]), reader(second.outputs[0])
        mean = producer_of(other_operand(second, norm.value), "ReduceMean")
        if other_operand(first, norm.value) is not norm.source or last is None or minus is None or mean is None:
            continue
        if mean.inputs[0] is not norm.source or _last_axes(mean) != norm.count:
            continue
        bias = _parameter(norm, minus.inputs[0]) if minus.op_type == "Sub" else None
        ends = last.op_type == "Add" and other_operand(last, first.outputs[0]) is minus.outputs[0]
        if bias is None or not ends or minus.inputs[1] is not second.outputs[0]:
            continue
        norm.take(first, second, mean, minus, last)
        norm.value, norm.bias = last.outputs[0], bias
        return True
    return False


def _uncast(norm: _Norm) -> None:
    """Moves past the Cast back to half precision, and in front of that to single precision."""
    node = reader(norm.value)
    if norm.bias is not None or node is None or node.op_type != "Cast" or node.outputs[0].dtype != _HALF:
        return
    cast = None if norm.source.dtype == _HALF else producer_of(norm.source, "Cast")
    source = norm.source if cast is None else cast.inputs[0]
    if source is None or source.dtype != _HALF or norm.scale is not None:
        return
    norm.take(node)
    norm.source, norm.value = source, node.outputs[0]


def _finish(norm: _Norm) -> None:
    """·γ and +β, as far as they are there."""
    node = reader(norm.value)
    if node is not None and node.op_type == "Mul" and norm.scale is None and norm.bias is None:
        _scaled(norm, node)
        node = reader(norm.value)
    if node is None or node.op_type != "Add" or norm.bias is not None:
        return
    bias = _parameter(norm, other_operand(node, norm.value))
    if bias is not None:
        norm.take(node)
        norm.value, norm.bias = node.outputs[0], bias


def _scaled(norm: _Norm, node: ir.Node) -> bool:
    """Takes the product with γ, if the other operand can be that."""
    scale = _parameter(norm, other_operand(node, norm.value))
    if scale is None:
        return False
    norm.take(node)
    norm.value, norm.scale = node.outputs[0], scale
    return True


def _dims(norm: _Norm) -> tuple[int, ...] | None:
    """Sizes of the axes that are normalised over.

    Where they are not inferred those of γ stand for them: it could only be longer than an axis of size 1, over which
    the normalised values are all zero.
    """
    shape = trusted(norm.source)
    dims = () if shape is None else tuple(shape[-norm.count :])
    known = tuple(d for d in dims if isinstance(d, int))
    if len(known) == norm.count:
        return known
    return None if norm.scale is None else tuple(norm.scale.shape)  # type: ignore[arg-type]


def _parameter(norm: _Norm, value: ir.Value | None) -> ir.Value | np.ndarray | None:
    """γ or β over exactly the axes that are normalised over; None if the value is not such a constant."""
    array = constant(value)
    if value is None or array is None or array.dtype not in (np.float32, np.float16):
        return None
    shape, dims, count = array.shape, _dims(norm), norm.count
    while len(shape) > count and shape[0] == 1 and len(shape) <= rank_of(norm.source):
        shape = shape[1:]
    if dims is None and len(shape) == count and all(d > 1 for d in shape):
        dims = shape
    if (
        dims is None
        or len(shape) > count
        or any(a not in (1, b) for a, b in zip(shape[::-1], dims[::-1], strict=False))
    ):
        return None
    return value if array.shape == dims else np.array(np.broadcast_to(array.reshape(shape), dims))
