"""QuantizeLinear and DequantizeLinear: scales of each channel go with the channel."""

from __future__ import annotations

from collections.abc import Iterator

from onnxcomp.ops.attributes import int_attribute
from onnxcomp.ops.axes.relations import Mixed, Relation, Tied, Unsupported, View, passed, rule


@rule("QuantizeLinear", "DequantizeLinear")
def quantize(n: View) -> Iterator[Relation]:
    """q[…, c, …] = x[…, c, …] / scale[c] + zero_point[c]; one scale for all where it is a scalar."""
    rank = len(n.shape(0))
    yield from passed(n, 0, range(rank))
    if int_attribute(n.node, "block_size", 0):
        raise Unsupported("scales for blocks of channels")
    axis = int_attribute(n.node, "axis", 1)
    for index in (1, 2):
        if n.given(index) is not None and n.shape(index) not in ((), (1,)):
            yield Tied((n.slot(index, 0), n.out(axis)))


@rule("DynamicQuantizeLinear")
def dynamic(n: View) -> Iterator[Relation]:
    """The scale is found from all values."""
    for axis in range(len(n.shape(0))):
        yield Tied((n.slot(0, axis), n.out(axis)))
        yield Mixed(n.out(axis))
