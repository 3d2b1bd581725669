"""Convolutions and products: channels of the input are contracted with the weight, others come from it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxcomp.ops.attributes import int_attribute, string_attribute
from onnxcomp.ops.axes.relations import Contracted, Count, Mixed, Relation, Tied, Unsupported, View, rule


@rule("Conv", "com.microsoft:FusedConv")
def conv(n: View) -> Iterator[Relation]:
    """Y[n, o] = Σᵢ W[o, i] ⋆ X[n, g(o)·c + i] + b[o]; w: [out, in/groups, k…].

    Depthwise (c = 1): output o reads channel ⌊o / m⌋ only. Grouped: the same offsets in every group, so that all groups
    stay equally large.
    """
    yield from _convolved(n)
    if n.given(2) is not None:
        yield Tied((n.slot(2, 0), n.out(1)))
    if n.given(3) is not None:  # FusedConv adds a tensor of the output's shape
        yield Tied((n.slot(3, 1), n.out(1)))


def _convolved(n: View) -> Iterator[Relation]:
    out, own, *_ = n.shape(1)
    groups = n.parts("group", out)
    yield Tied((n.slot(0, 0), n.out(0)))
    yield Tied((n.slot(1, 0), n.out(1)))
    if groups == 1:
        yield Contracted((n.slot(0, 1), n.slot(1, 1)))
        return
    multiplier = out // groups
    if own == 1:
        yield Tied((n.slot(0, 1).at(np.repeat(np.arange(groups), multiplier)), n.out(1)))
        yield Count("group", n.slot(0, 1))
        return
    for group in range(groups):
        yield Contracted((n.slot(0, 1).part(group * own, (group + 1) * own), n.slot(1, 1)))
        yield Tied((n.out(1).part(0, multiplier), n.out(1).part(group * multiplier, (group + 1) * multiplier)))


@rule("DeformConv")
def deform_conv(n: View) -> Iterator[Relation]:
    """As Conv, of X sampled at offsets; inputs: x, w, offset, bias, mask. One group and one group of offsets."""
    if int_attribute(n.node, "group", 1) != 1 or int_attribute(n.node, "offset_group", 1) != 1:
        raise Unsupported("several groups")
    yield Contracted((n.slot(0, 1), n.slot(1, 1)))
    yield Tied((n.slot(1, 0), n.out(1)))
    if n.given(3) is not None:
        yield Tied((n.slot(3, 0), n.out(1)))


@rule("ConvTranspose")
def conv_transpose(n: View) -> Iterator[Relation]:
    """Y[n, o] = Σᵢ W[i, o] ⋆ᵀ X[n, i] + b[o]; w: [in, out/groups, k…]. Depthwise: o and i are one channel."""
    channels, own, *_ = n.shape(1)
    groups = n.parts("group", channels)
    yield Tied((n.slot(0, 0), n.out(0)))
    if n.given(2) is not None:
        yield Tied((n.slot(2, 0), n.out(1)))
    if groups == 1:
        yield Contracted((n.slot(0, 1), n.slot(1, 0)))
        yield Tied((n.slot(1, 1), n.out(1)))
    elif groups == channels and own == 1:
        yield Tied((n.slot(0, 1), n.slot(1, 0), n.out(1)))
        yield Count("group", n.slot(0, 1))
    else:
        size = channels // groups
        for group in range(groups):
            yield Contracted((n.slot(0, 1).part(0, size), n.slot(0, 1).part(group * size, (group + 1) * size)))
            yield Tied((n.slot(1, 0).part(group * size, (group + 1) * size), n.slot(0, 1).part(0, size)))
            yield Tied((n.slot(1, 1), n.out(1).part(group * own, (group + 1) * own)))


@rule("Gemm", "com.microsoft:FusedGemm")
def gemm(n: View) -> Iterator[Relation]:
    """Y[m, n] = α·Σₖ A[m, k]·B[k, n] + β·C[m, n]; A and B may be given transposed, C broadcasts."""
    a, b = int_attribute(n.node, "transA", 0), int_attribute(n.node, "transB", 0)
    yield Contracted((n.slot(0, 0 if a else 1), n.slot(1, 1 if b else 0)))
    yield Tied((n.slot(0, 1 if a else 0), n.out(0)))
    yield Tied((n.slot(1, 0 if b else 1), n.out(1)))
    shape = () if n.given(2) is None else n.shape(2)
    for own, size in enumerate(shape):
        if size > 1:
            yield Tied((n.slot(2, own), n.out(2 - len(shape) + own)))


@rule("MatMul", "com.microsoft:FusedMatMul")
def matmul(n: View) -> Iterator[Relation]:
    """Y[…, m, n] = Σₖ A[…, m, k]·B[…, k, n]; batch axes broadcast. FusedMatMul may transpose the last two."""
    a, b = len(n.shape(0)), len(n.shape(1))
    if any(int_attribute(n.node, name, 0) for name in ("transBatchA", "transBatchB")):
        raise Unsupported("batch axes transposed")
    across, along = int_attribute(n.node, "transA", 0), int_attribute(n.node, "transB", 0)
    yield Contracted((n.slot(0, -2 if across and a > 1 else -1), n.slot(1, -1 if along or b == 1 else -2)))
    out = n.node.outputs[0]
    rank = len(n.shape_of(out))
    if a > 1:
        yield Tied((n.slot(0, -1 if across else -2), n.at(out, -2 if b > 1 else -1)))
    if b > 1:
        yield Tied((n.slot(1, -2 if along else -1), n.at(out, -1)))
    for axis in range(rank - 2 if a > 1 and b > 1 else 0):
        slots = [n.at(out, axis)]
        for index, own in ((0, axis - rank + a), (1, axis - rank + b)):
            if own >= 0 and n.shape(index)[own] > 1:
                slots.append(n.slot(index, own))
        yield Tied(tuple(slots))


@rule("MatMulInteger", "ConvInteger")
def integers(n: View) -> Iterator[Relation]:
    """Σₖ (x − zₓ)·(w − z_w): a zero in w is not nothing. Masks can't tell what the pruned model computes, so that its
    inputs count as mixed."""
    if any(n.given(index) is not None and n.shape(index) not in ((), (1,)) for index in (2, 3)):
        raise Unsupported("a zero point for each row or column")
    plain = n.node.op_type == "MatMulInteger"
    yield from matmul(n) if plain else _convolved(n)
    yield Mixed(n.slot(0, -1 if plain else 1))


@rule("Einsum")
def einsum(n: View) -> Iterator[Relation]:
    """One letter is one axis, wherever it stands; a letter that the output lacks is summed away."""
    equation = string_attribute(n.node, "equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or not arrow or any(len(set(t)) != len(t) for t in (*terms, right)):
        raise Unsupported(f"the equation {equation!r} (ellipsis, diagonal or no output)")
    for letter in dict.fromkeys("".join(terms)):
        slots = [n.slot(i, t.index(letter)) for i, t in enumerate(terms) if letter in t]
        slots = [s for s in slots if n.shape_of(s.value)[s.axis] > 1] or slots[:1]
        yield Tied((*slots, n.out(right.index(letter)))) if letter in right else Contracted(tuple(slots))
