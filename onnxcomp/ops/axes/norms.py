"""Normalisations. Statistics of one channel leave the others alone; statistics over channels make a cut approximate."""

from __future__ import annotations

from collections.abc import Iterator

from onnxcomp.ops.attributes import int_attribute
from onnxcomp.ops.axes.relations import Mixed, Relation, Slot, Tied, Unsupported, View, passed, rule


@rule("BatchNormalization", "InstanceNormalization")
def per_channel(n: View) -> Iterator[Relation]:
    """y[n, c] = scale[c]·(x[n, c] − mean[c]) / √(var[c] + ε) + b[c]: each channel for itself."""
    yield Tied((n.slot(0, 0), n.out(0)))
    parameters = [n.slot(i, 0) for i in range(1, len(n.node.inputs)) if n.given(i) is not None]
    yield Tied((n.slot(0, 1), *parameters, n.out(1)))
    yield from passed(n, 0, range(2, len(n.shape(0)))) if n.node.op_type == "BatchNormalization" else ()


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_norm(n: View) -> Iterator[Relation]:
    """y[…, c] = scale[c]·(x[…, c] − mean) / √(var + ε) + b[c], mean and var over `axis` and those behind it."""
    rank = len(n.shape(0))
    first = int_attribute(n.node, "axis", -1) % rank
    for axis in range(rank):
        slots = [n.slot(0, axis)]
        for index in range(1, len(n.node.inputs)):
            shape = () if n.given(index) is None else n.shape(index)
            own = axis - rank + len(shape)
            if own >= 0 and shape[own] > 1:
                slots.append(n.slot(index, own))
        yield Tied((*slots, n.out(axis)))
        if axis >= first:
            yield Mixed(n.out(axis))


@rule("com.microsoft:SkipLayerNormalization", "com.microsoft:SkipSimplifiedLayerNormalization")
def skip_layer_norm(n: View) -> Iterator[Relation]:
    """LayerNorm of x + skip + bias; output 3 is the sum itself."""
    rank = len(n.shape(0))
    sums = [n.at(v, -1) for v in n.outputs() if len(n.shape_of(v)) == rank and n.shape_of(v)[-1] == n.shape(0)[-1]]
    others = [n.slot(i, -1) for i in range(1, len(n.node.inputs)) if n.given(i) is not None]
    yield Tied((n.slot(0, -1), *others, *sums))
    yield Mixed(sums[0])
    for axis in range(rank - 1):
        yield Tied((n.slot(0, axis), *(Slot(s.value, axis) for s in sums)))


@rule("GroupNormalization", "com.microsoft:GroupNorm")
def group_norm(n: View) -> Iterator[Relation]:
    """Statistics over each block of C/groups channels: the same offsets in every block, so that blocks stay equal."""
    last = n.node.domain != ""
    if last and not int_attribute(n.node, "channels_last", 1):
        raise Unsupported("channels first in com.microsoft:GroupNorm")
    x, y = (n.slot(0, -1), n.out(-1)) if last else (n.slot(0, 1), n.out(1))
    channels = n.shape(0)[x.axis]
    groups = n.parts("groups" if last else "num_groups", channels, 0)
    yield Tied((n.slot(0, 0), n.out(0)))
    yield Tied((x, y, *(n.slot(i, 0) for i in (1, 2) if n.shape(i)[0] == channels)))
    size = channels // groups
    for group in range(1, groups):
        yield Tied((y.part(0, size), y.part(group * size, (group + 1) * size)))
    if size > 1:
        yield Mixed(y)
