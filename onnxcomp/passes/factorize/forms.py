"""How one node is written as two: their attributes, and the shapes of their weights.

* channels: W ≈ U·P through `rank` channels in each group. A convolution becomes the same one with rank·groups outputs,
  and a pointwise one behind it; a product becomes two.
* spatial: a convolution of kh × kw becomes one of kh × 1 with `rank` outputs, and one of 1 × kw behind it (Jaderberg,
  Vedaldi, Zisserman 2014: Speeding up convolutional neural networks with low rank expansions).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxcomp.ops.linear import Array, ConvView, LinearView, MatrixView

Form = Literal["channels", "spatial"]
Shape = tuple[int, ...]
Attributes = dict[str, int | str | tuple[int, ...]]


@dataclass(frozen=True)
class Pair:
    """Two nodes for one.

    Args:
        attributes: Of the first and of the second node.
        shapes: Of their weights, as stored.
    """

    attributes: tuple[Attributes, Attributes]
    shapes: tuple[Shape, Shape]


def allows(view: LinearView, form: Form) -> bool:
    """Whether the node can be written in this form."""
    if form == "channels":
        return True
    return isinstance(view, ConvView) and view.groups == 1 and len(view.kernel) == 2 and min(view.kernel) > 1


def sides(view: LinearView, form: Form) -> tuple[int, int]:
    """(out, columns): rows that the second and the first factor have for each rank, in each group."""
    _, out, columns = view.shape
    if form == "channels":
        return out, columns
    assert isinstance(view, ConvView)
    wide = view.kernel[1]
    return out * wide, columns // wide


def pair(view: LinearView, form: Form, rank: int) -> Pair:
    """The two nodes for a rank."""
    if isinstance(view, MatrixView):
        _, out, columns = view.shape
        first: Attributes = {"transA": 1} if view.input_transposed else {}
        return Pair((first, {}), ((columns, rank), (rank, out)))
    assert isinstance(view, ConvView)
    return _spatial(view, rank) if form == "spatial" else _pointwise(view, rank)


def middle(view: LinearView, form: Form, rank: int, x: Shape, y: Shape) -> Shape:
    """Shape of what the first node puts out.

    Args:
        x, y: Shapes of the whole node's input and output.
    """
    if isinstance(view, MatrixView):
        return (*y[:-1], rank)
    if form == "channels":
        return (y[0], rank * view.groups, *y[2:])
    return (y[0], rank, y[2], x[3])


def stored(view: LinearView, form: Form, first: Array, second: Array) -> tuple[Array, Array]:
    """The factors in the layout and dtype of the weights.

    Args:
        first: P [groups, rank, columns]; spatial: [1, rank, in·kh].
        second: U [groups, out, rank]; spatial: [1, out·kw, rank].
    """
    assert view.weight.dtype is not None
    dtype = view.weight.dtype.numpy()
    rank = first.shape[1]
    shapes = pair(view, form, rank).shapes
    if isinstance(view, MatrixView):
        return np.array(first[0].T, dtype, order="C"), np.array(second[0].T, dtype, order="C")
    if form == "spatial":
        out, wide = shapes[1][0], shapes[1][3]
        second = np.moveaxis(second.reshape(out, wide, rank), 1, 2)
    return first.reshape(shapes[0]).astype(dtype), second.reshape(shapes[1]).astype(dtype)


def spatial_matrix(view: LinearView) -> Array:
    """W as [1, out·kw, in·kh]: what a spatial form factorises."""
    assert isinstance(view, ConvView)
    high, wide = view.kernel
    _, out, columns = view.shape
    w = view.matrix().reshape(out, columns // (high * wide), high, wide)
    return w.transpose(0, 3, 1, 2).reshape(1, out * wide, -1)


def dense(view: LinearView, form: Form, product: Array) -> Array:
    """A product of factors U·P as W of the whole node, [groups, out, columns]."""
    if form == "channels":
        return product
    assert isinstance(view, ConvView)
    high, wide = view.kernel
    _, out, _ = view.shape
    return product.reshape(out, wide, -1, high).transpose(0, 2, 3, 1).reshape(view.shape)


def _pointwise(view: ConvView, rank: int) -> Pair:
    groups, out, columns = view.shape
    axes = len(view.kernel)
    ones = (1,) * axes
    channels = columns // int(np.prod(view.kernel))
    first = _window(view, range(axes)) | {"kernel_shape": view.kernel, "group": groups}
    second: Attributes = {"kernel_shape": ones, "group": groups}
    return Pair((first, second), ((groups * rank, channels, *view.kernel), (groups * out, rank, *ones)))


def _spatial(view: ConvView, rank: int) -> Pair:
    _, out, columns = view.shape
    high, wide = view.kernel
    first = _window(view, (0,)) | {"kernel_shape": (high, 1)}
    second = _window(view, (1,)) | {"kernel_shape": (1, wide)}
    return Pair((first, second), ((rank, columns // (high * wide), high, 1), (out, rank, 1, wide)))


def _window(view: ConvView, active: Container[int]) -> Attributes:
    """Strides, dilations and pads along the active spatial axes; the others are passed through."""
    axes = len(view.kernel)
    on = [axis in active for axis in range(axes)]
    strides = tuple(s if a else 1 for s, a in zip(view.strides, on, strict=True))
    dilations = tuple(d if a else 1 for d, a in zip(view.dilations, on, strict=True))
    window: Attributes = {"strides": strides, "dilations": dilations}
    if view.auto_pad != "NOTSET":
        return window | {"auto_pad": view.auto_pad}
    return window | {"pads": tuple(p if a else 0 for p, a in zip(view.pads, on * 2, strict=True))}
