"""Operators over windows or whole axes: pooling, resizing, softmax, reductions."""

from __future__ import annotations

from collections.abc import Iterator

from onnxcomp.ops.attributes import constant, int_attribute, ints_attribute
from onnxcomp.ops.axes.relations import Contracted, Mixed, Relation, Sizes, Slot, Tied, Unsupported, View, passed, rule


@rule(
    *("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"),
    *("GridSample", "com.microsoft:NhwcMaxPool"),
)
def pool(n: View) -> Iterator[Relation]:
    """Windows over space: sample and channel pass."""
    yield from passed(n, 0, (0, 1))


@rule("MaxRoiPool", "RoiAlign")
def roi(n: View) -> Iterator[Relation]:
    """Windows over space, one row for each region: the channel passes."""
    yield Tied((n.slot(0, 1), n.out(1)))


@rule("Resize", "Upsample")
def resize(n: View) -> Iterator[Relation]:
    """Axes that keep their size pass; an input with the sizes of all axes holds theirs too."""
    shape = n.shape(0)
    axes = ints_attribute(n.node, "axes", range(len(shape)))
    yield from passed(n, 0, [a for a, size in enumerate(shape) if n.shape_of(n.node.outputs[0])[a] == size])
    if n.given(3) is not None:
        yield Sizes(3, tuple(n.out(axis) for axis in axes))


@rule("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "CumSum", "Trilu", "TopK")
def along_one_axis(n: View) -> Iterator[Relation]:
    """What is computed along an axis needs all of it; the other axes pass."""
    rank = len(n.shape(0))
    whole = {int_attribute(n.node, "axis", -1) % rank}
    if n.node.op_type == "CumSum":
        whole = {int(n.weight(1).item()) % rank}
    if n.node.op_type == "Trilu":
        whole = {rank - 1, rank - 2}
    yield from passed(n, 0, [axis for axis in range(rank) if axis not in whole])


@rule("ArgMax", "ArgMin")
def arg(n: View) -> Iterator[Relation]:
    """The index of the largest one needs all of the axis; the other axes pass."""
    rank = len(n.shape(0))
    yield from _kept(n, {int_attribute(n.node, "axis", 0) % rank})


SUMS = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"})


@rule(
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSum"),
    *("ReduceLogSumExp", "ReduceSumSquare", "ReduceProd"),
)
def reduction(n: View) -> Iterator[Relation]:
    """y = f over the axes. A sum (of squares, …) without a channel is one with a zero there; else the result changes,
    as that of a norm does. Other axes pass."""
    rank, axes = len(n.shape(0)), ints_attribute(n.node, "axes", ())
    if n.given(1) is not None:
        given = constant(n.input(1))
        if given is None:
            raise Unsupported("axes computed at run time")
        axes = tuple(int(a) for a in given.ravel())
    if not axes and int_attribute(n.node, "noop_with_empty_axes", 0):
        yield from passed(n, 0, range(rank))
        return
    reduced = {a % rank for a in axes} if axes else set(range(rank))
    for axis in sorted(reduced):
        yield Contracted((n.slot(0, axis),)) if n.node.op_type in SUMS else Mixed(n.slot(0, axis))
    yield from _kept(n, reduced)


def _kept(n: View, reduced: set[int]) -> Iterator[Relation]:
    """The axes that are not reduced, where they come to stand."""
    keep = int_attribute(n.node, "keepdims", 1)
    left = [axis for axis in range(len(n.shape(0))) if axis not in reduced]
    for place, axis in enumerate(left):
        yield Tied((n.slot(0, axis), Slot(n.node.outputs[0], axis if keep else place)))


@rule("MeanVarianceNormalization")
def mean_variance(n: View) -> Iterator[Relation]:
    """(x − mean) / std over the axes."""
    rank = len(n.shape(0))
    yield from passed(n, 0, range(rank))
    for axis in sorted({a % rank for a in ints_attribute(n.node, "axes", (0, 2, 3))}):
        yield Mixed(n.out(axis))


@rule("ReverseSequence")
def reverse_sequence(n: View) -> Iterator[Relation]:
    """Turns the first steps of each sample around; the features pass."""
    yield from passed(n, 0, range(2, len(n.shape(0))))


@rule("ScatterElements")
def scatter_elements(n: View) -> Iterator[Relation]:
    """y[i[p, c], c] = u[p, c] along one axis: along the others each position is written from the same position."""
    rank = len(n.shape(0))
    for axis in set(range(rank)) - {int_attribute(n.node, "axis", 0) % rank}:
        if n.shape(0)[axis] == n.shape(1)[axis]:
            yield Tied((*(n.slot(index, axis) for index in range(3)), n.out(axis)))


@rule("GatherND", "ScatterND")
def nd(n: View) -> Iterator[Relation]:
    """Each row of indices names a place along the first axes of the data; what lies behind is taken or written."""
    if int_attribute(n.node, "batch_dims", 0):
        raise Unsupported("batch axes")
    rank, named = len(n.shape(0)), n.shape(1)[-1]
    for behind in range(1, rank - named + 1):
        updates = [n.slot(2, -behind)] if n.node.op_type == "ScatterND" else []
        yield Tied((n.slot(0, -behind), *updates, n.out(-behind)))


@rule("LRN")
def local_response(n: View) -> Iterator[Relation]:
    """Each channel is divided by a norm over its neighbours."""
    yield from passed(n, 0, range(len(n.shape(0))))
    yield Mixed(n.out(1))


@rule("Shape")
def sizes(n: View) -> Iterator[Relation]:
    """Reads no element: any axis may change (what the numbers stand for is written anew)."""
    for axis in range(len(n.shape(0))):
        yield Tied((n.slot(0, axis),))
