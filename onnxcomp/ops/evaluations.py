"""How each operator is computed in numpy: the table behind `onnxcomp.ops.evaluator`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import int_attribute, ints_attribute

Array = np.ndarray[Any, Any]
Inputs = Sequence[Array | None]
Function = Callable[[ir.Node, Inputs], Array | list[Array]]
Size = Callable[[ir.Node, Inputs], int]


class CannotEvaluate(Exception):
    """This operator or form is not supported; the message says which."""


class TooLarge(CannotEvaluate):
    """The result would have more elements than allowed; it was not computed."""


@dataclass(frozen=True)
class Evaluation:
    """How an operator is computed.

    Args:
        function: Its outputs from its inputs.
        size: Elements of its outputs, found before they are computed: an operator may ask for terabytes.
        moves: It only moves elements about, so that it works on elements of any kind, labels included.
    """

    function: Function
    size: Size
    moves: bool = False


DTYPES = frozenset(
    np.dtype(t) for t in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ml_dtypes.bfloat16)
)
"""What is computed with: numpy's own numbers and bfloat16. Strings, 4-bit and 8-bit floats are left to the runtime."""


def _given(arrays: Inputs, index: int) -> Array | None:
    return arrays[index] if index < len(arrays) else None


def _need(arrays: Inputs, index: int) -> Array:
    array = _given(arrays, index)
    if array is None:
        raise CannotEvaluate(f"input {index} is missing")
    return array


def _ints(arrays: Inputs, index: int) -> list[int]:
    """A 1-D input as Python numbers, which don't overflow."""
    return [int(v) for v in _need(arrays, index)]


def _axes(node: ir.Node, arrays: Inputs) -> tuple[int, ...]:
    """Axes from input 1 (new opsets) or from the attribute (old ones); empty if neither is given."""
    return tuple(_ints(arrays, 1)) if _given(arrays, 1) is not None else ints_attribute(node, "axes", ())


def _unsqueeze(node: ir.Node, arrays: Inputs) -> Array:
    return np.expand_dims(_need(arrays, 0), _axes(node, arrays))


def _squeeze(node: ir.Node, arrays: Inputs) -> Array:
    return np.squeeze(_need(arrays, 0), _axes(node, arrays) or None)


def _reshape(node: ir.Node, arrays: Inputs) -> Array:
    """0 copies the dimension of the input, unless `allowzero`."""
    x, keep = _need(arrays, 0), not int_attribute(node, "allowzero", 0)
    return x.reshape([x.shape[i] if d == 0 and keep else d for i, d in enumerate(_ints(arrays, 1))])


def _flatten(node: ir.Node, arrays: Inputs) -> Array:
    x, axis = _need(arrays, 0), int_attribute(node, "axis", 1)
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def _transpose(node: ir.Node, arrays: Inputs) -> Array:
    return np.transpose(_need(arrays, 0), ints_attribute(node, "perm", ()) or None)


def _gather(node: ir.Node, arrays: Inputs) -> Array:
    return np.take(_need(arrays, 0), _need(arrays, 1).astype(np.int64), axis=int_attribute(node, "axis", 0))


def _concat(node: ir.Node, arrays: Inputs) -> Array:
    return np.concatenate([_need(arrays, i) for i in range(len(arrays))], axis=int_attribute(node, "axis", 0))


def _slice(node: ir.Node, arrays: Inputs) -> Array:
    """Opset 10 and later; bounds are clamped as the specification says, which is not quite what numpy does."""
    x, starts, ends = _need(arrays, 0), _ints(arrays, 1), _ints(arrays, 2)
    axes = _ints(arrays, 3) if _given(arrays, 3) is not None else list(range(len(starts)))
    steps = _ints(arrays, 4) if _given(arrays, 4) is not None else [1] * len(starts)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        start, end = (v + size if v < 0 else v for v in (start, end))
        if step > 0:
            index[axis] = slice(max(0, start), max(0, end), step)
        elif size:
            stop = min(max(end, -1), size - 1)
            index[axis] = slice(min(max(start, 0), size - 1), None if stop == -1 else stop, step)
    return x[tuple(index)]


def _split(node: ir.Node, arrays: Inputs) -> list[Array]:
    """Sizes from the input, from the attribute (before opset 13), or equal with a smaller last one."""
    x, axis, count = _need(arrays, 0), int_attribute(node, "axis", 0), len(node.outputs)
    length = x.shape[axis]
    sizes = _ints(arrays, 1) if _given(arrays, 1) is not None else list(ints_attribute(node, "split", ()))
    if not sizes:
        chunk = ceil(length / count)
        sizes = [chunk] * (count - 1) + [length - chunk * (count - 1)]
    if sum(sizes) != length or min(sizes) < 0:
        raise CannotEvaluate(f"Split of {length} into {sizes}")
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _divide(node: ir.Node, arrays: Inputs) -> Array:
    """Integers are divided towards zero."""
    a, b = _need(arrays, 0), _need(arrays, 1)
    if a.dtype.kind not in "iu":
        return np.asarray(a / b, a.dtype)
    _refuse_zero(b)
    return np.asarray(a // b + ((a % b != 0) & ((a < 0) != (b < 0))), a.dtype)


def _modulo(node: ir.Node, arrays: Inputs) -> Array:
    """`fmod`: the sign of the dividend, as in C; else that of the divisor, as in Python."""
    a, b = _need(arrays, 0), _need(arrays, 1)
    if a.dtype.kind in "iu":
        _refuse_zero(b)
    return np.asarray(np.fmod(a, b) if int_attribute(node, "fmod", 0) else np.mod(a, b), a.dtype)


def _power(node: ir.Node, arrays: Inputs) -> Array:
    a, b = _need(arrays, 0), _need(arrays, 1)
    if a.dtype.kind in "iu" and b.dtype.kind not in "iu":
        raise CannotEvaluate("an integer to the power of a float")
    return np.asarray(np.power(a, b), a.dtype)


def _refuse_zero(divisor: Array) -> None:
    if not divisor.all():
        raise CannotEvaluate("integer division by zero")


def _cast(node: ir.Node, arrays: Inputs) -> Array:
    """Without what C leaves undefined: floats that the integer type can't hold."""
    x, target = _need(arrays, 0), np.dtype(ir.DataType(int_attribute(node, "to", 0)).numpy())
    if target not in DTYPES:
        raise CannotEvaluate("casts to strings or sub-byte numbers are left to the runtime")
    if target.kind in "iu" and x.dtype.kind not in "iub" and x.size:
        wide, limits = x.astype(np.float64), np.iinfo(target)
        # 2⁶³ − 1 is no float64: the bound must be strict.
        if not (np.trunc(wide) >= limits.min).all() or not (np.trunc(wide) < float(limits.max) + 1.0).all():
            raise CannotEvaluate("a cast of numbers that the integer type can't hold")
    return x.astype(target)


def _constant_of_shape(node: ir.Node, arrays: Inputs) -> Array:
    value = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else value.as_tensor().numpy()
    if fill.dtype not in DTYPES:
        raise CannotEvaluate("ConstantOfShape of strings or sub-byte numbers")
    return np.full(_ints(arrays, 0), fill.reshape(()), fill.dtype)


def _expand(node: ir.Node, arrays: Inputs) -> Array:
    x = _need(arrays, 0)
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(_ints(arrays, 1))))


def _range(node: ir.Node, arrays: Inputs) -> Array:
    start, limit, delta = (_need(arrays, i).item() for i in range(3))
    return np.arange(start, limit, delta, dtype=_need(arrays, 0).dtype)


def _reduce(function: Callable[..., Array]) -> Function:
    def evaluated(node: ir.Node, arrays: Inputs) -> Array:
        x, axes = _need(arrays, 0), _axes(node, arrays)
        if not axes and int_attribute(node, "noop_with_empty_axes", 0):
            return x
        keep = bool(int_attribute(node, "keepdims", 1))
        return np.asarray(function(x, axis=axes or None, keepdims=keep), x.dtype)

    return evaluated


def _largest_input(node: ir.Node, arrays: Inputs) -> int:
    return max((a.size for a in arrays if a is not None), default=0)


def _sum_of_inputs(node: ir.Node, arrays: Inputs) -> int:
    return sum(a.size for a in arrays if a is not None)


def _broadcast(node: ir.Node, arrays: Inputs) -> int:
    return prod(np.broadcast_shapes(*(a.shape for a in arrays if a is not None)))


def _moves(function: Function, size: Size = _largest_input) -> Evaluation:
    return Evaluation(function, size, moves=True)


def _elementwise(function: Callable[..., Array], *, predicate: bool = False) -> Evaluation:
    """`function` on all inputs; the result has the dtype of the first one, or is bool."""

    def evaluated(node: ir.Node, arrays: Inputs) -> Array:
        given = [_need(arrays, i) for i in range(len(arrays))]
        return np.asarray(function(*given), np.bool_ if predicate else given[0].dtype)

    return Evaluation(evaluated, _broadcast)


def _predicate(function: Callable[..., Array]) -> Evaluation:
    return _elementwise(function, predicate=True)


EVALUATIONS: dict[str, Evaluation] = {
    "Identity": _moves(lambda node, arrays: _need(arrays, 0)),
    "Reshape": _moves(_reshape),
    "Flatten": _moves(_flatten),
    "Squeeze": _moves(_squeeze),
    "Unsqueeze": _moves(_unsqueeze),
    "Transpose": _moves(_transpose),
    "Slice": _moves(_slice),
    "Split": _moves(_split),
    "Concat": _moves(_concat, _sum_of_inputs),
    "Gather": _moves(
        _gather,
        lambda node, a: (
            _need(a, 1).size * (_need(a, 0).size // max(1, _need(a, 0).shape[int_attribute(node, "axis", 0)]))
        ),
    ),
    "Expand": _moves(
        _expand, lambda node, a: prod(np.broadcast_shapes(_need(a, 0).shape, tuple(max(1, d) for d in _ints(a, 1))))
    ),
    "Tile": _moves(
        lambda node, arrays: np.tile(_need(arrays, 0), _ints(arrays, 1)),
        lambda node, a: _need(a, 0).size * prod(_ints(a, 1)),
    ),
    "ConstantOfShape": Evaluation(_constant_of_shape, lambda node, a: prod(_ints(a, 0))),
    "Range": Evaluation(_range, lambda node, a: ceil((_need(a, 1).item() - _need(a, 0).item()) / _need(a, 2).item())),
    "Cast": Evaluation(_cast, _largest_input),
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": Evaluation(_divide, _broadcast),
    "Mod": Evaluation(_modulo, _broadcast),
    "Pow": Evaluation(_power, _broadcast),
    "Neg": _elementwise(np.negative),
    "Abs": _elementwise(np.abs),
    "Sqrt": _elementwise(np.sqrt),
    "Exp": _elementwise(np.exp),
    "Log": _elementwise(np.log),
    "Floor": _elementwise(np.floor),
    "Ceil": _elementwise(np.ceil),
    "Reciprocal": _elementwise(np.reciprocal),
    "Sign": _elementwise(np.sign),
    "Relu": _elementwise(lambda x: np.maximum(x, x.dtype.type(0))),
    "Min": _elementwise(lambda *xs: np.minimum.reduce(np.broadcast_arrays(*xs))),
    "Max": _elementwise(lambda *xs: np.maximum.reduce(np.broadcast_arrays(*xs))),
    "Where": Evaluation(lambda node, a: np.where(_need(a, 0), _need(a, 1), _need(a, 2)), _broadcast),
    "Equal": _predicate(np.equal),
    "Less": _predicate(np.less),
    "LessOrEqual": _predicate(np.less_equal),
    "Greater": _predicate(np.greater),
    "GreaterOrEqual": _predicate(np.greater_equal),
    "And": _predicate(np.logical_and),
    "Or": _predicate(np.logical_or),
    "Not": _predicate(np.logical_not),
    "ReduceProd": Evaluation(_reduce(np.prod), _largest_input),
    "ReduceSum": Evaluation(_reduce(np.sum), _largest_input),
    "ReduceMax": Evaluation(_reduce(np.max), _largest_input),
    "ReduceMin": Evaluation(_reduce(np.min), _largest_input),
}
