"""Operators in numpy: what constant folding needs. Arithmetic on shapes and small tables, not on activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import int_attribute, ints_attribute, is_standard

Arrays = Sequence[np.ndarray | None]
Evaluate = Callable[[ir.Node, Arrays], np.ndarray | list[np.ndarray]]


class CannotEvaluate(Exception):
    """This form is not supported, or its result would be too large; the message says which."""


def _axes(node: ir.Node, arrays: Arrays, index: int) -> tuple[int, ...] | None:
    """Axes from an input (new opsets) or from the attribute (old ones); None means all."""
    if len(arrays) > index and arrays[index] is not None:
        axes = tuple(int(a) for a in np.ravel(arrays[index]))  # type: ignore[arg-type]
        return axes or None
    return ints_attribute(node, "axes", ()) or None


def _unsqueeze(node: ir.Node, arrays: Arrays) -> np.ndarray:
    axes = _axes(node, arrays, 1)
    return np.expand_dims(arrays[0], axes) if axes else arrays[0]  # type: ignore[arg-type, return-value]


def _reshape(node: ir.Node, arrays: Arrays) -> np.ndarray:
    """0 copies the dimension of the input, unless `allowzero`."""
    x, wanted = arrays[0], arrays[1]
    assert x is not None
    assert wanted is not None
    keep = not int_attribute(node, "allowzero", 0)
    return x.reshape([x.shape[i] if d == 0 and keep else int(d) for i, d in enumerate(wanted)])


def _slice(node: ir.Node, arrays: Arrays) -> np.ndarray:
    x, starts, ends = arrays[0], arrays[1], arrays[2]
    assert x is not None
    assert starts is not None
    assert ends is not None
    axes = arrays[3] if len(arrays) > 3 and arrays[3] is not None else np.arange(len(starts))
    steps = arrays[4] if len(arrays) > 4 and arrays[4] is not None else np.ones(len(starts), np.int64)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes.tolist(), steps.tolist(), strict=True):
        # For a negative step ONNX means "past the beginning" by a very negative end, which numpy reads as None.
        stop = None if step < 0 and end < -x.shape[axis] else end
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _divide(node: ir.Node, arrays: Arrays) -> np.ndarray:
    a, b = arrays[0], arrays[1]
    assert a is not None
    assert b is not None
    if not np.issubdtype(a.dtype, np.integer):
        return np.asarray(a / b, a.dtype)
    if not b.all():
        raise CannotEvaluate("integer division by zero")
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)), a.dtype)


def _cast(node: ir.Node, arrays: Arrays) -> np.ndarray:
    target = ir.DataType(int_attribute(node, "to", 1))
    if target == ir.DataType.STRING or arrays[0] is None or arrays[0].dtype == object:
        raise CannotEvaluate("casts of strings are left to the runtime")
    return arrays[0].astype(target.numpy())


def _constant_of_shape(node: ir.Node, arrays: Arrays) -> np.ndarray:
    value = node.attributes.get("value")
    fill = value.as_tensor().numpy() if value is not None else np.zeros(1, np.float32)
    return np.full([int(d) for d in arrays[0]], fill.reshape(()), fill.dtype)  # type: ignore[union-attr]


def _expand(node: ir.Node, arrays: Arrays) -> np.ndarray:
    x, shape = arrays[0], arrays[1]
    assert x is not None
    assert shape is not None
    return np.ascontiguousarray(np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(d) for d in shape))))


def _split(node: ir.Node, arrays: Arrays) -> list[np.ndarray]:
    x, axis = arrays[0], int_attribute(node, "axis", 0)
    assert x is not None
    sizes = arrays[1] if len(arrays) > 1 and arrays[1] is not None else None
    if sizes is None:
        raise CannotEvaluate("Split without sizes")
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _reduce(function: Callable[..., np.ndarray]) -> Evaluate:
    def evaluate(node: ir.Node, arrays: Arrays) -> np.ndarray:
        axes = _axes(node, arrays, 1)
        if axes is None and int_attribute(node, "noop_with_empty_axes", 0):
            return arrays[0]  # type: ignore[return-value]
        x = arrays[0]
        assert x is not None
        return np.asarray(function(x, axis=axes, keepdims=bool(int_attribute(node, "keepdims", 1))), x.dtype)

    return evaluate


def _elementwise(function: Callable[..., np.ndarray]) -> Evaluate:
    def evaluate(node: ir.Node, arrays: Arrays) -> np.ndarray:
        return np.asarray(function(*arrays))

    return evaluate


def _same_dtype(function: Callable[..., np.ndarray]) -> Evaluate:
    def evaluate(node: ir.Node, arrays: Arrays) -> np.ndarray:
        assert arrays[0] is not None
        return np.asarray(function(*arrays), arrays[0].dtype)

    return evaluate


EVALUATE: dict[str, Evaluate] = {
    "Identity": lambda node, a: a[0],  # type: ignore[dict-item, return-value]
    "Cast": _cast,
    "Gather": lambda node, a: np.take(a[0], a[1], axis=int_attribute(node, "axis", 0)),  # type: ignore[arg-type]
    "Slice": _slice,
    "Concat": lambda node, a: np.concatenate(a, axis=int_attribute(node, "axis", 0)),  # type: ignore[arg-type]
    "Unsqueeze": _unsqueeze,
    "Squeeze": lambda node, a: np.squeeze(a[0], _axes(node, a, 1)),  # type: ignore[arg-type]
    "Reshape": _reshape,
    "Flatten": lambda node, a: a[0].reshape(prod(a[0].shape[: int_attribute(node, "axis", 1)]), -1),  # type: ignore[union-attr]
    "Transpose": lambda node, a: np.ascontiguousarray(np.transpose(a[0], ints_attribute(node, "perm", ()) or None)),  # type: ignore[arg-type]
    "Add": _same_dtype(np.add),
    "Sub": _same_dtype(np.subtract),
    "Mul": _same_dtype(np.multiply),
    "Div": _divide,
    "Mod": lambda node, a: np.fmod(a[0], a[1]) if int_attribute(node, "fmod", 0) else np.mod(a[0], a[1]),  # type: ignore[call-overload]
    "Pow": _same_dtype(np.power),
    "Neg": _same_dtype(np.negative),
    "Abs": _same_dtype(np.abs),
    "Sqrt": _same_dtype(np.sqrt),
    "Exp": _same_dtype(np.exp),
    "Log": _same_dtype(np.log),
    "Floor": _same_dtype(np.floor),
    "Ceil": _same_dtype(np.ceil),
    "Reciprocal": _same_dtype(np.reciprocal),
    "Sign": _same_dtype(np.sign),
    "Relu": _same_dtype(lambda x: np.maximum(x, 0)),
    "Min": _same_dtype(lambda *xs: np.minimum.reduce(np.broadcast_arrays(*xs))),
    "Max": _same_dtype(lambda *xs: np.maximum.reduce(np.broadcast_arrays(*xs))),
    "Equal": _elementwise(np.equal),
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "And": _elementwise(np.logical_and),
    "Or": _elementwise(np.logical_or),
    "Not": _elementwise(np.logical_not),
    "Where": _elementwise(np.where),
    "Range": lambda node, a: np.arange(a[0], a[1], a[2], dtype=a[0].dtype),  # type: ignore[union-attr, arg-type]
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": lambda node, a: np.tile(a[0], a[1]),  # type: ignore[arg-type]
    "Split": _split,
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
}


def _elements_of_expand(node: ir.Node, arrays: Arrays) -> int:
    return prod(np.broadcast_shapes(arrays[0].shape, tuple(int(d) for d in arrays[1])))  # type: ignore[union-attr]


ELEMENTS: dict[str, Callable[[ir.Node, Arrays], int]] = {
    "ConstantOfShape": lambda node, a: prod(int(d) for d in a[0]),  # type: ignore[union-attr]
    "Expand": _elements_of_expand,
    "Tile": lambda node, a: a[0].size * prod(int(d) for d in a[1]),  # type: ignore[union-attr]
    "Range": lambda node, a: max(0, int((float(a[1]) - float(a[0])) / (float(a[2]) or 1.0)) + 1),  # type: ignore[arg-type]
    "Gather": lambda node, a: a[1].size * (a[0].size // max(1, a[0].shape[int_attribute(node, "axis", 0)])),  # type: ignore[union-attr]
}
"""Result sizes of the operators that can grow their input without bound: checked before they are evaluated."""


def evaluate(node: ir.Node, arrays: Arrays, max_elements: int) -> list[np.ndarray]:
    """The outputs of `node` on constant inputs.

    Args:
        node: A node of ai.onnx (opset ≥ 13).
        arrays: Its inputs in order; None for an omitted one.
        max_elements: Refuse results with more elements than this, before computing them.

    Raises:
        CannotEvaluate: No rule, an unsupported form, or too large.
    """
    function = EVALUATE.get(node.op_type) if is_standard(node) else None
    if function is None:
        raise CannotEvaluate(f"no rule for {node.op_type}")
    try:
        grows = ELEMENTS.get(node.op_type)
        expected = grows(node, arrays) if grows else max((a.size for a in arrays if a is not None), default=0)
        if expected > max_elements:
            raise CannotEvaluate(f"its result has {expected} elements, the limit is {max_elements}")
        with np.errstate(all="ignore"):
            result = function(node, arrays)
    except (ValueError, IndexError, TypeError, OverflowError, AssertionError, ZeroDivisionError) as error:
        raise CannotEvaluate(f"{node.op_type}: {error}") from error
    outputs = result if isinstance(result, list) else [result]
    return [np.ascontiguousarray(o) if o.ndim else np.asarray(o) for o in outputs]
