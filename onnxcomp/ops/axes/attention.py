"""Fused attention: whole heads stay or go, with all their columns of query, key and value."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxcomp.ops.attributes import int_attribute, ints_attribute
from onnxcomp.ops.axes.relations import Contracted, Count, Relation, Slot, Tied, Unsupported, View, rule


@rule("com.microsoft:Attention")
def packed(n: View) -> Iterator[Relation]:
    """softmax(QKᵀ/√d)·V with [Q K V] = x·W + b; w: [in, q + k + v columns]."""
    if any(n.given(i) is not None for i in range(4, len(n.node.inputs))):
        raise Unsupported("past states or a bias of the scores")
    columns = n.shape(1)[1]
    sizes = ints_attribute(n.node, "qkv_hidden_sizes", (columns // 3,) * 3)
    if len(sizes) != 3 or min(sizes) < 1 or sum(sizes) != columns:
        raise Unsupported(f"{columns} columns as parts of {list(sizes)[:4]}")
    heads = n.parts("num_heads", sizes[2])
    yield Contracted((n.slot(0, -1), n.slot(1, 0)))
    if n.given(2) is not None:
        yield Tied((n.slot(1, 1), n.slot(2, 0)))
    start, parts = 0, []
    for size in sizes:
        parts.append(n.slot(1, 1).part(start, start + size))
        start += size
    yield from _whole_heads(n, heads, *parts)
    yield Tied((parts[2], n.out(-1)))
    yield Count("num_heads", n.out(-1), sizes[2] // heads)
    if "qkv_hidden_sizes" in n.node.attributes:
        for entry, part in enumerate(parts):
            yield Count("qkv_hidden_sizes", part, entry=entry)
    yield from _rows(n)


@rule("com.microsoft:MultiHeadAttention")
def multi_head(n: View) -> Iterator[Relation]:
    """softmax(QKᵀ/√d)·V; q, k, v: [batch, sequence, heads·d], bias: [q + k + v]."""
    if any(n.given(i) is not None for i in (5, 6, 7)) or any(len(n.shape(i)) != 3 for i in (0, 1, 2)):
        raise Unsupported("past states, a bias of the scores, or packed inputs")
    heads = n.parts("num_heads", n.shape(2)[-1])
    parts = [n.slot(i, -1) for i in (0, 1, 2)]
    if n.given(3) is not None:
        start = 0
        for part, size in zip(parts, (n.shape(i)[-1] for i in (0, 1, 2)), strict=True):
            yield Tied((part, n.slot(3, 0).part(start, start + size)))
            start += size
    yield from _whole_heads(n, heads, *parts)
    yield Tied((parts[2], n.out(-1)))
    yield Count("num_heads", n.out(-1), n.shape(2)[-1] // heads)
    yield from _rows(n)


@rule("com.microsoft:GroupQueryAttention")
def grouped_query(n: View) -> Iterator[Relation]:
    """Several query heads read one key and value head: they stay or go with it. q: [batch, sequence, heads·d]."""
    if n.given(1) is None or n.given(2) is None:
        raise Unsupported("packed query, key and value")
    heads, shared = n.parts("num_heads", n.shape(0)[-1]), n.parts("kv_num_heads", n.shape(1)[-1])
    yield from _whole_heads(n, shared, *(n.slot(i, -1) for i in (0, 1, 2)))
    yield Tied((n.slot(0, -1), n.out(-1)))
    width = n.shape(0)[-1] // heads
    for index, axis in ((3, 1), (4, 1)):
        if n.given(index) is not None:  # past states: [batch, kv heads, sequence, d]
            yield Tied((n.slot(index, axis), n.slot(index - 2, -1).at(np.arange(shared) * width)))
    for out, source in zip(n.node.outputs[1:3], (1, 2), strict=False):
        yield Tied((n.at(out, 1), n.slot(source, -1).at(np.arange(shared) * width)))
    yield Count("num_heads", n.slot(0, -1), width)
    yield Count("kv_num_heads", n.slot(1, -1), width)
    yield from _rows(n)


@rule("Attention")
def standard(n: View) -> Iterator[Relation]:
    """ai.onnx 23: q: [batch, heads, sequence, d] or [batch, sequence, heads·d]; key and value heads may be fewer."""
    if len(n.outputs()) > 1 or any(n.given(i) is not None for i in range(4, len(n.node.inputs))):
        raise Unsupported("past states or the scores as an output")
    if len(n.shape(0)) == 4:
        shared = n.shape(1)[1]
        times = n.shape(0)[1] // shared
        each = np.repeat(np.arange(shared), times)
        yield Tied((n.slot(0, 1), n.slot(1, 1).at(each), n.slot(2, 1).at(each), n.out(1)))
        yield Tied((n.slot(2, 3), n.out(3)))
        # A mask may have a row for each head.
        if n.given(3) is not None and len(n.shape(3)) == 4 and n.shape(3)[1] > 1:
            yield Tied((n.slot(3, 1), n.out(1)))
        return
    heads, shared = n.parts("q_num_heads", n.shape(0)[-1]), n.parts("kv_num_heads", n.shape(1)[-1])
    if n.given(3) is not None and len(n.shape(3)) == 4 and n.shape(3)[1] > 1:
        raise Unsupported("a mask for each head")
    yield from _whole_heads(n, shared, *(n.slot(i, -1) for i in (0, 1, 2)))
    width, value = n.shape(0)[-1] // heads, n.shape(2)[-1] // shared
    block = np.arange(heads * value) // (value * (heads // shared))
    yield Tied((n.out(-1), n.slot(2, -1).at(block * value)))
    yield Count("q_num_heads", n.slot(0, -1), width)
    yield Count("kv_num_heads", n.slot(1, -1), n.shape(1)[-1] // shared)
    yield from _rows(n)


@rule("RotaryEmbedding", "com.microsoft:RotaryEmbedding")
def rotary(n: View) -> Iterator[Relation]:
    """Turns pairs inside each head; x: [batch, heads, sequence, d] or [batch, sequence, heads·d]."""
    if len(n.shape(0)) == 4:
        yield Tied((n.slot(0, 1), n.out(1)))
        return
    heads = int_attribute(n.node, "num_heads", 0)
    if not heads:
        raise Unsupported("the number of heads is not given")
    yield Tied((n.slot(0, -1), n.out(-1)))
    yield from _whole_heads(n, heads, n.slot(0, -1))
    yield Count("num_heads", n.out(-1), n.shape(0)[-1] // heads)


def _whole_heads(n: View, heads: int, *slots: Slot) -> Iterator[Tied]:
    """All columns of a head are one channel, in each slot; each holds `heads` equal blocks."""
    for slot in slots:
        positions = n.positions(slot).reshape(heads, -1)
        yield Tied((slot, slot.at(np.repeat(positions[:, 0], positions.shape[1]))))
        yield Tied((slots[0].at(n.positions(slots[0]).reshape(heads, -1)[:, 0]), slot.at(positions[:, 0])))


def _rows(n: View) -> Iterator[Tied]:
    yield Tied((n.slot(0, 0), n.out(0)))
