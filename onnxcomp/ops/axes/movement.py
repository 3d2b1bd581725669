"""Operators that only move elements, all by one rule: run the operator on labels and see where each one goes.

An axis with n positions is filled with the labels 0 … n−1, constant along the other axes, and the operator is run on
it. An axis of the output along which the labels change, and along no other, holds the channels then. Axes that neither
hold labels nor are acted upon are shrunk to size 1, and broadcast views stand for the rest: no feature map is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np

from onnxcomp.ops.attributes import constant, int_attribute, ints_attribute, string_attribute
from onnxcomp.ops.axes.relations import (
    Fresh,
    Moved,
    Pads,
    Parts,
    Picks,
    Relation,
    Sizes,
    Unsupported,
    View,
    Window,
    rule,
)

NOTHING = -1
"""Label of an element that no channel owns: padding."""


def image(n: View, axis: int) -> list[np.ndarray]:
    """Labels in each output, when the positions of `axis` of the data inputs are labelled.

    Positions of a Concat along `axis` are numbered through its inputs. An axis of the result that is shorter than the
    output's was shrunk: labels are constant along it.

    Raises:
        Unsupported: The operator can't be run without values that only the run tells.
    """
    return [np.asarray(a) for a in MOVES[n.node.op_type](n, axis)]


def _labels(n: View, axis: int, keep: Sequence[int] = (), index: int = 0, start: int = 0) -> np.ndarray:
    """Input `index` filled with labels; axes but `axis` and `keep` are shrunk to 1."""
    shape = n.shape(index)
    labels = np.arange(start, start + shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(labels, [s if a == axis or a in keep else 1 for a, s in enumerate(shape)])


def _reshape(n: View, axis: int) -> list[np.ndarray]:
    """Row-major order is kept. Only the run of axes that `axis` is merged with or split into is looked at."""
    before, after = n.shape(0), n.shape_of(n.node.outputs[0])
    (first, last), (start, stop) = segment(before, after, axis)
    labels = np.arange(before[axis]).reshape([-1 if a == axis else 1 for a in range(first, last)])
    moved = np.broadcast_to(labels, before[first:last]).reshape(after[start:stop])
    return [moved.reshape((1,) * start + moved.shape + (1,) * (len(after) - stop))]


def segment(before: Sequence[int], after: Sequence[int], axis: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shortest runs of axes around `axis` that hold equally many elements in both shapes.

    >>> segment((8, 64, 7, 7), (8, 64, 49), 2), segment((1, 64, 7, 7), (1, 3136), 1)
    (((2, 4), (2, 3)), ((1, 4), (1, 2)))
    """
    first = start = 0
    while True:
        last, stop = first + 1, start + 1
        while prod(before[first:last]) != prod(after[start:stop]):
            if prod(before[first:last]) < prod(after[start:stop]):
                last += 1
            else:
                stop += 1
            if last > len(before) or stop > len(after):
                raise Unsupported("the sizes do not agree")
        while last < len(before) and before[last] == 1 and (stop == len(after) or after[stop] != 1):
            last += 1
        while stop < len(after) and after[stop] == 1 and (last == len(before) or before[last] != 1):
            stop += 1
        if axis < last:
            return (first, last), (start, stop)
        first, start = last, stop


def _transpose(n: View, axis: int) -> list[np.ndarray]:
    return [np.transpose(_labels(n, axis), ints_attribute(n.node, "perm", range(len(n.shape(0)))[::-1]))]


def _concat(n: View, axis: int) -> list[np.ndarray]:
    """Along `axis` the inputs' labels follow each other; along another one all inputs have the same."""
    rank = len(n.shape(0))
    along = int_attribute(n.node, "axis", 0) % rank
    if along != axis:
        return [_labels(n, axis)]
    starts = np.cumsum([0] + [n.shape(i)[axis] for i in range(len(n.node.inputs))])
    return [np.concatenate([_labels(n, axis, index=i, start=s) for i, s in enumerate(starts[:-1])], axis)]


def _split(n: View, axis: int) -> list[np.ndarray]:
    along = int_attribute(n.node, "axis", 0) % len(n.shape(0))
    if along != axis:
        return [_labels(n, axis)] * len(n.node.outputs)
    sizes = [n.shape_of(out)[axis] for out in n.node.outputs]
    return list(np.split(_labels(n, axis), np.cumsum(sizes)[:-1], axis))


def _slice(n: View, axis: int) -> list[np.ndarray]:
    labels = _labels(n, axis)
    where = _slice_axes(n)
    if axis in where:
        index = where.index(axis)
        start, end = (int(n.weight(i)[index]) for i in (1, 2))
        step = 1 if n.given(4) is None else int(n.weight(4)[index])
        labels = labels.take(taken(start, end, step, n.shape(0)[axis]), axis)
    return [labels]


def taken(start: int, end: int, step: int, size: int) -> range:
    """The positions that a Slice takes from an axis.

    >>> list(taken(1, 2**62, 2, 6)), list(taken(-1, -(2**62), -3, 6))
    ([1, 3, 5], [5, 2])
    """
    low, high = (0, size) if step > 0 else (-1, size - 1)
    start = min(max(start + size if start < 0 else start, 0), high)
    end = min(max(end + size if end < 0 else end, low), high)
    return range(start, end, step)


def _slice_axes(n: View) -> list[int]:
    rank = len(n.shape(0))
    return [int(a) % rank for a in (n.weight(3) if n.given(3) is not None else range(n.shape(1)[0]))]


def _gather(n: View, axis: int) -> list[np.ndarray]:
    """Other axes pass; along the gathered one the indices must be constant."""
    rank = len(n.shape(0))
    along = int_attribute(n.node, "axis", 0) % rank
    if along == axis:
        indices = n.weight(1)
        if indices.ndim > 1:
            raise Unsupported("indices of several axes")
        return [_labels(n, axis).take(indices, axis)]
    return [_labels(n, axis).take(np.zeros((1,) * len(n.shape(1)), int), along)]


def _expand(n: View, axis: int) -> list[np.ndarray]:
    labels = _labels(n, axis)
    return [labels.reshape((1,) * (len(n.shape_of(n.node.outputs[0])) - labels.ndim) + labels.shape)]


def _tile(n: View, axis: int) -> list[np.ndarray]:
    times = n.shape_of(n.node.outputs[0])[axis] // n.shape(0)[axis]
    return [np.concatenate([_labels(n, axis)] * times, axis)]


def _pad(n: View, axis: int) -> list[np.ndarray]:
    """Positions before and behind are nobody's; only a constant can stand there."""
    labels, where = _labels(n, axis), _pad_axes(n)
    if axis not in where:
        return [labels]
    pads, index = n.weight(1), where.index(axis)
    before, behind = int(pads[index]), int(pads[index + len(where)])
    if before < 0 or behind < 0 or string_attribute(n.node, "mode", "constant") != "constant":
        if before == behind == 0:
            return [labels]
        raise Unsupported("channels cropped, or padded with their neighbours")
    return [
        np.pad(labels, [(before, behind) if a == axis else (0, 0) for a in range(labels.ndim)], constant_values=NOTHING)
    ]


def _pad_axes(n: View) -> list[int]:
    rank = len(n.shape(0))
    return [int(a) % rank for a in (n.weight(3) if n.given(3) is not None else range(rank))]


def _depth_to_space(n: View, axis: int) -> list[np.ndarray]:
    """[N, b·b·C, H, W] → [N, C, b·H, b·W]; DCR: the blocks are outermost in depth, CRD: innermost."""
    if axis != 1:
        raise Unsupported("space is moved too")
    b = int_attribute(n.node, "blocksize", 1)
    rows = _labels(n, 1)
    if string_attribute(n.node, "mode", "DCR") == "DCR":
        return [rows.reshape(1, b, b, -1, 1, 1).transpose(0, 3, 4, 1, 5, 2).reshape(1, -1, b, b)]
    return [rows.reshape(1, -1, b, b, 1, 1).transpose(0, 1, 4, 2, 5, 3).reshape(1, -1, b, b)]


def _space_to_depth(n: View, axis: int) -> list[np.ndarray]:
    """[N, C, b·H, b·W] → [N, b·b·C, H, W]: channel (i·b + j)·C + c."""
    if axis != 1:
        raise Unsupported("space is moved too")
    b = int_attribute(n.node, "blocksize", 1)
    if n.shape(0)[1] * b * b != n.shape_of(n.node.outputs[0])[1]:
        raise Unsupported(f"{n.shape(0)[1]} channels in blocks of {b} × {b}")
    return [np.tile(np.arange(n.shape(0)[1]), b * b).reshape(1, -1, 1, 1)]


MOVES: dict[str, Callable[[View, int], list[np.ndarray]]] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}


@rule("Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Tile", "DepthToSpace", "SpaceToDepth")
def plain(n: View) -> Iterator[Relation]:
    """Nothing in these nodes names a number of channels."""
    yield Moved()


@rule("Reshape")
def reshape(n: View) -> Iterator[Relation]:
    """Input 1 holds the new sizes."""
    yield Moved()
    yield Sizes(1, tuple(n.out(axis) for axis in range(len(n.shape_of(n.node.outputs[0])))))


@rule("Expand")
def expand(n: View) -> Iterator[Relation]:
    """Input 1 holds the new sizes, aligned at the right; what is repeated along a new axis can be cut anywhere."""
    yield Moved()
    shape, out = n.shape(0), n.shape_of(n.node.outputs[0])
    for axis, size in enumerate(out):
        own = axis - len(out) + len(shape)
        if size > 1 and (own < 0 or shape[own] == 1):
            yield Fresh(n.out(axis))
    length = n.shape(1)[0]
    yield Sizes(1, tuple(n.out(axis) if axis >= 0 else None for axis in range(len(out) - length, len(out))))


@rule("ConstantOfShape")
def constant_of_shape(n: View) -> Iterator[Relation]:
    """The same everywhere."""
    out = n.shape_of(n.node.outputs[0])
    for axis in range(len(out)):
        yield Fresh(n.out(axis))
    yield Sizes(0, tuple(n.out(axis) for axis in range(len(out))))


@rule("Split")
def split(n: View) -> Iterator[Relation]:
    """Sizes of the parts."""
    yield Moved()
    yield Parts(int_attribute(n.node, "axis", 0) % len(n.shape(0)))


@rule("Slice")
def window(n: View) -> Iterator[Relation]:
    """Inputs 1 and 2 hold the first index and the one behind the last."""
    yield Moved()
    if n.given(3) is None or constant(n.given(3)) is not None:
        yield Window(tuple(_slice_axes(n)))


@rule("Gather")
def gather(n: View) -> Iterator[Relation]:
    """Input 1 holds indices."""
    yield Moved()
    yield Picks(1, int_attribute(n.node, "axis", 0) % len(n.shape(0)))


@rule("Pad")
def pad(n: View) -> Iterator[Relation]:
    """Input 1 holds how many elements are put before and behind."""
    yield Moved()
    if constant(n.given(1)) is not None:
        yield Pads(1, tuple(_pad_axes(n)))
