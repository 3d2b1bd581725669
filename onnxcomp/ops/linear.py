"""One view of the nodes that are linear in a constant weight: convolutions and products with a matrix.

y = W·x + b, where x is a row: for a product the last axis of the input, for a convolution the patch that one output
position reads. Rows are taken at chosen positions only, so a feature map is never unfolded whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, float_attribute, int_attribute, ints_attribute, is_standard
from onnxcomp.ops.attributes import string_attribute as string_of

Array = np.ndarray


@dataclass(frozen=True)
class LinearView(ABC):
    """A node seen as y = W·x + b.

    Args:
        node: The node.
        weight: Its weight, a constant that nothing else reads.
        bias: Its constant bias, or None.
        output: Where y (bias included) comes out.
        groups: 1 but for grouped convolutions.
        can_bias: Whether a bias can be stored; False for a MatMul without a following Add.
    """

    node: ir.Node
    weight: ir.Value
    bias: ir.Value | None
    output: ir.Value
    groups: int
    can_bias: bool

    @property
    @abstractmethod
    def axis(self) -> int:
        """Of the channels in the input; pruning asks for it."""

    @staticmethod
    def of(node: ir.Node, *, tied: bool = False) -> LinearView | None:
        """The view of `node`; None for other operators, computed weights, weights that another node uses too, and forms
        that ONNX does not define.

        Args:
            tied: Take also a weight that other nodes use.

        >>> LinearView.of(ir.node("Relu", [ir.val("x")])) is None
        True
        """
        make = _VIEWS.get(node.op_type) if is_standard(node) else None
        if make is None or len(node.inputs) < 2 or node.inputs[0] is None:
            return None
        weight = node.inputs[1]
        owned = weight is not None and (constant(weight) is not None if tied else _own(weight))
        if weight is None or not owned or not np.issubdtype(_array(weight).dtype, np.floating):
            return None
        return make(node, weight)

    @property
    def input(self) -> ir.Value:
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Of W: groups, out/groups, in/groups·taps."""

    @abstractmethod
    def matrix(self) -> Array:
        """W, float64 [groups, out/groups, in/groups·taps]; the columns of one channel are neighbours."""

    @abstractmethod
    def offset(self) -> Array | None:
        """b, float64 [out], or None without a bias."""

    @abstractmethod
    def with_matrix(self, matrix: Array, bias: Array | None) -> dict[str, Array]:
        """The initializers that make `matrix` and `bias` [out] those of this node, by name, in its dtype and layout.

        Without `bias` that stays as it is; one that other nodes read too gets a new name. `store` writes them.
        """

    @abstractmethod
    def with_bias(self, bias: Array) -> dict[str, Array]:
        """The initializer that makes `bias` [out] that of this node, by name."""

    @abstractmethod
    def count(self, shape: Sequence[int]) -> int:
        """Output positions for an input of `shape`: as many rows as it holds."""

    @abstractmethod
    def count_targets(self, shape: Sequence[int]) -> int:
        """Output positions in an output of `shape`."""

    @abstractmethod
    def rows(self, x: Array, positions: Array) -> Array:
        """What is read at `positions` (int64 [n], flat over the output without channels): [n, groups, columns of W]."""

    @abstractmethod
    def targets(self, y: Array, positions: Array) -> Array:
        """What stands in an array of the output's shape at `positions`: [n, groups, out/groups]."""

    @property
    def bias_name(self) -> str:
        """Of the initializer that holds b: the one that is there and nobody else reads, or a new one."""
        if self.bias is not None and _own(self.bias):
            return self.bias.name or ""
        return f"{self.node.name or self.output.name}.bias"


def positions(count: int, limit: int, rng: np.random.Generator | None = None) -> Array:
    """At most `limit` of `count` positions, spread evenly: one out of each of `limit` equal stretches.

    Args:
        rng: Draws inside the stretches; None takes their middles.

    Returns:
        int64 [min(count, limit)], ascending.
    """
    if count <= limit:
        return np.arange(count)
    edges = np.arange(limit + 1) * count // limit
    inside = 0.5 if rng is None else rng.random(limit)
    return np.asarray(edges[:-1] + np.floor(inside * np.diff(edges)), np.int64)


def store(view: LinearView, arrays: dict[str, Array]) -> None:
    """Writes what `with_matrix` gave into the graph of the node, in place."""
    graph = view.node.graph
    assert isinstance(graph, ir.Graph)
    for name, array in arrays.items():
        value = graph.initializers.get(name)
        if value is None:
            value = ir.val(name, const_value=ir.tensor(array, name=name))
            graph.register_initializer(value)
            _connect(view, value)
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.dtype = ir.Shape(array.shape), value.const_value.dtype


def _connect(view: LinearView, bias: ir.Value) -> None:
    node = view.output.producer()
    assert node is not None
    if node is view.node:
        node.resize_inputs(max(3, len(node.inputs)))
        node.replace_input_with(2, bias)
    else:  # the Add after a MatMul
        node.replace_input_with(next(i for i, v in enumerate(node.inputs) if v is view.bias), bias)


@dataclass(frozen=True)
class ConvView(LinearView):
    """w: [out, in/groups, k…]; x: [N, in, size…]."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str

    @property
    def axis(self) -> int:
        return 1

    @property
    def shape(self) -> tuple[int, int, int]:
        out, *columns = _array(self.weight).shape
        return self.groups, out // self.groups, prod(columns)

    def matrix(self) -> Array:
        return _array(self.weight).reshape(self.shape).astype(np.float64)

    def offset(self) -> Array | None:
        return None if self.bias is None else _array(self.bias).astype(np.float64)

    def with_matrix(self, matrix: Array, bias: Array | None) -> dict[str, Array]:
        w = _array(self.weight)
        arrays = {self.weight.name or "": matrix.reshape(w.shape).astype(w.dtype)}
        return arrays if bias is None else arrays | self.with_bias(bias)

    def with_bias(self, bias: Array) -> dict[str, Array]:
        return {self.bias_name: bias.astype(_array(self.weight).dtype)}

    def count(self, shape: Sequence[int]) -> int:
        return shape[0] * prod(self._sizes(shape[2:])[0])

    def count_targets(self, shape: Sequence[int]) -> int:
        return shape[0] * prod(shape[2:])

    def rows(self, x: Array, positions: Array) -> Array:
        sizes, pads = self._sizes(x.shape[2:])
        sample, *start = np.unravel_index(positions, (len(x), *sizes))
        last = np.pad(np.moveaxis(x, 1, -1), ((0, 0), *pads, (0, 0)))
        result = np.empty((len(positions), x.shape[1], prod(self.kernel)), x.dtype)
        for tap, offsets in enumerate(np.ndindex(*self.kernel)):
            steps = zip(start, offsets, self.strides, self.dilations, strict=True)
            result[:, :, tap] = last[(sample, *(s * stride + o * dilation for s, o, stride, dilation in steps))]
        return result.reshape(len(positions), self.groups, -1)

    def targets(self, y: Array, positions: Array) -> Array:
        index = np.unravel_index(positions, (y.shape[0], *y.shape[2:]))
        return np.moveaxis(y, 1, -1)[index].reshape(len(positions), self.groups, -1)

    def _sizes(self, spatial: Sequence[int]) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
        """Output size and pads (begin, end) of each spatial axis."""
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        if self.auto_pad.startswith("SAME"):
            sizes = tuple(-(-size // stride) for size, stride in zip(spatial, self.strides, strict=True))
            each = zip(sizes, self.strides, spans, spatial, strict=True)
            total = [max((out - 1) * stride + span - size, 0) for out, stride, span, size in each]
            upper = self.auto_pad == "SAME_UPPER"
            return sizes, [(t // 2, t - t // 2) if upper else (t - t // 2, t // 2) for t in total]
        half = len(spatial)
        given = (0,) * (2 * half) if self.auto_pad == "VALID" else self.pads
        pads = [(given[i], given[i + half]) for i in range(half)]
        each_axis = zip(spatial, pads, spans, self.strides, strict=True)
        return tuple((size + sum(pad) - span) // stride + 1 for size, pad, span, stride in each_axis), pads


@dataclass(frozen=True)
class MatrixView(LinearView):
    """Products of the last axis with a matrix: y = α·x·B + β·c.

    `transposed`: the weight is stored [out, in]; `input_transposed`: x comes as [in, rows].
    """

    transposed: bool = False
    alpha: float = 1.0
    beta: float = 1.0
    input_transposed: bool = False

    @property
    def axis(self) -> int:
        return 0 if self.input_transposed else -1

    @property
    def shape(self) -> tuple[int, int, int]:
        rows, columns = _array(self.weight).shape
        return (1, rows, columns) if self.transposed else (1, columns, rows)

    def matrix(self) -> Array:
        w = _array(self.weight)
        matrix: Array = (w if self.transposed else w.T).astype(np.float64)[None]
        if self.alpha != 1.0:
            matrix *= self.alpha
        return matrix

    def offset(self) -> Array | None:
        if self.bias is None:
            return None
        values = self.beta * _array(self.bias).astype(np.float64).reshape(-1)
        return np.broadcast_to(values, (self.shape[1],)).copy()

    def with_matrix(self, matrix: Array, bias: Array | None) -> dict[str, Array]:
        w = matrix[0] if self.alpha == 1.0 else matrix[0] / self.alpha
        dtype = _array(self.weight).dtype
        arrays = {self.weight.name or "": np.array(w if self.transposed else w.T, dtype, order="C")}
        return arrays if bias is None else arrays | self.with_bias(bias)

    def with_bias(self, bias: Array) -> dict[str, Array]:
        return {self.bias_name: (bias / self.beta).astype(_array(self.weight).dtype)}

    def count(self, shape: Sequence[int]) -> int:
        return shape[1] if self.input_transposed else prod(shape[:-1])

    def count_targets(self, shape: Sequence[int]) -> int:
        return prod(shape[:-1])

    def rows(self, x: Array, positions: Array) -> Array:
        return self.targets(x.T if self.input_transposed else x, positions)

    def targets(self, y: Array, positions: Array) -> Array:
        return np.asarray(y.reshape(-1, 1, y.shape[-1])[positions])


def _conv(node: ir.Node, weight: ir.Value) -> LinearView | None:
    shape = _array(weight).shape
    kernel = shape[2:]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if not kernel or (bias is not None and _shape(bias) != shape[:1]):
        return None
    ones, zeros = (1,) * len(kernel), (0,) * (2 * len(kernel))
    view = ConvView(
        node,
        weight,
        bias,
        node.outputs[0],
        groups=int_attribute(node, "group", 1),
        can_bias=True,
        kernel=kernel,
        strides=ints_attribute(node, "strides", ones),
        dilations=ints_attribute(node, "dilations", ones),
        pads=ints_attribute(node, "pads", zeros),
        auto_pad=string_of(node, "auto_pad", "NOTSET"),
    )
    told = (ints_attribute(node, "kernel_shape", kernel), len(view.strides), len(view.dilations), len(view.pads))
    fits = told == (kernel, len(kernel), len(kernel), 2 * len(kernel)) and min(*view.strides, *view.dilations) > 0
    return view if fits and view.groups > 0 and shape[0] % view.groups == 0 else None


def _gemm(node: ir.Node, weight: ir.Value) -> LinearView | None:
    alpha, beta = float_attribute(node, "alpha", 1.0), float_attribute(node, "beta", 1.0)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    array = None if bias is None else constant(bias)
    if len(_array(weight).shape) != 2 or not alpha or not beta or (bias is not None and array is None):
        return None
    if array is not None and array.size != (array.shape[-1] if array.ndim else 1):  # another bias for each row
        return None
    transposed = bool(int_attribute(node, "transB", 0))
    if array is not None and array.size not in (1, _array(weight).shape[0 if transposed else 1]):
        return None
    flipped = bool(int_attribute(node, "transA", 0))
    return MatrixView(node, weight, bias, node.outputs[0], 1, True, transposed, alpha, beta, flipped)


def _matmul(node: ir.Node, weight: ir.Value) -> LinearView | None:
    shape = _array(weight).shape
    if len(shape) != 2:
        return None
    output = node.outputs[0]
    added = _added_vector(output, shape[1])
    if added is None:
        return MatrixView(node, weight, None, output, 1, False)
    return MatrixView(node, weight, added[0], added[1], 1, True)


def _added_vector(value: ir.Value, size: int) -> tuple[ir.Value, ir.Value] | None:
    """The constant vector that an Add puts onto `value`, and the sum, when nothing else reads `value`."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0][0].op_type != "Add" or not is_standard(uses[0][0]):
        return None
    node, index = uses[0]
    other = node.inputs[1 - index]
    array = constant(other)
    if other is None or array is None or array.shape != (size,):
        return None
    return other, node.outputs[0]


def _own(value: ir.Value) -> bool:
    """A constant that exactly one node reads, and that is no output of the graph."""
    return constant(value) is not None and len(list(value.uses())) == 1 and not value.is_graph_output()


def _shape(value: ir.Value) -> tuple[int, ...] | None:
    """Of a constant; None for what is computed."""
    array = constant(value)
    return None if array is None else array.shape


def _array(value: ir.Value) -> Array:
    array = constant(value)
    assert array is not None
    return array


_VIEWS: dict[str, Callable[[ir.Node, ir.Value], LinearView | None]] = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
