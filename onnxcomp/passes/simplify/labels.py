"""What is known of the elements of shape tensors where not all of it is known.

A dynamic dimension is a label; operators that only move elements are run on arrays that hold numbers and labels, so
that `Concat(Gather(Shape(x), 0), [3, 4])` is known to be (the first dimension of x, 3, 4).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcomp.model.shapes import trusted
from onnxcomp.ops.attributes import constant, int_attribute, is_standard
from onnxcomp.ops.evaluator import CannotEvaluate, move

Array = np.ndarray[Any, Any]

LIMIT = 64
"""Elements of a tensor that is looked at: shapes are short."""


class Labels:
    """The contents of small integer tensors, of dtype object; found node by node, in topological order."""

    def __init__(self) -> None:
        self._contents: dict[ir.Value, Array] = {}

    def see(self, node: ir.Node) -> None:
        """Works out the outputs of `node` from what is known of its inputs."""
        if node.op_type == "Shape" and is_standard(node) and node.inputs[0] is not None:
            dims = dimensions(node.inputs[0])
            if dims is not None:
                self._contents[node.outputs[0]] = _objects(_window(node, dims))
            return
        inputs = [None if v is None else self.of(v) for v in node.inputs]
        if not any(v in self._contents for v in node.inputs if v is not None):
            return
        if any(v is not None and array is None for v, array in zip(node.inputs, inputs, strict=True)):
            return
        if _casts_to_integer(node) and inputs[0] is not None:
            self._contents[node.outputs[0]] = inputs[0]
            return
        try:
            results = move(node, inputs, LIMIT)
        except CannotEvaluate:
            return
        self._contents.update(zip(node.outputs, results, strict=True))

    def of(self, value: ir.Value) -> Array | None:
        """Numbers and labels in the shape of the tensor; None if nothing is known."""
        if value in self._contents:
            return self._contents[value]
        array = constant(value) if value.dtype in _INTEGERS and _is_small(value) else None
        return None if array is None else array.astype(object)

    def numbers(self, value: ir.Value) -> Array | None:
        """The whole tensor, if it holds no label."""
        array, dtype = self._contents.get(value), value.dtype
        if array is None or dtype is None or dtype not in _INTEGERS or not all(isinstance(v, int) for v in array.flat):
            return None
        return array.astype(dtype.numpy())


def dimensions(value: ir.Value) -> list[Hashable] | None:
    """The shape with a label for each dynamic dimension; equal labels are equal sizes. None if the rank is unknown."""
    shape = trusted(value)
    if shape is None:
        return None
    return [d if isinstance(d, int) else (value, i) if d.value is None else str(d.value) for i, d in enumerate(shape)]


def reshape_target(node: ir.Node, labels: Labels) -> Array | None:
    """A constant that can stand for the target of a Reshape that is computed from shapes; None if there is none.

    A label at the place of the same dimension of the data is 0 (copied); a single other one is −1, if the target holds
    neither a copied dimension, which might be 0 at run time and would make −1 ambiguous, nor a −1 of its own.
    """
    data, wanted = node.inputs[0], node.inputs[1]
    target = None if wanted is None or constant(wanted) is not None else labels.of(wanted)
    if data is None or target is None or target.ndim != 1 or int_attribute(node, "allowzero", 0):
        return None
    dims = dimensions(data) or []
    result = [
        d if isinstance(d, int) else 0 if i < len(dims) and dims[i] == d else None
        for i, d in enumerate(target.tolist())
    ]
    if None in result:
        if result.count(None) > 1 or 0 in result or -1 in result:
            return None
        result[result.index(None)] = -1
    return np.asarray(result, np.int64)


_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


def _casts_to_integer(node: ir.Node) -> bool:
    return node.op_type == "Cast" and is_standard(node) and int_attribute(node, "to", 0) in _INTEGERS


def _is_small(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size <= LIMIT


def _window(node: ir.Node, dims: list[Hashable]) -> list[Hashable]:
    """`start` and `end` of Shape (opset 15)."""
    return dims[int_attribute(node, "start", 0) : int_attribute(node, "end", len(dims))]


def _objects(items: list[Hashable]) -> Array:
    """A tuple among `items` stays one element."""
    array = np.empty(len(items), object)
    array[:] = items
    return array
