"""Attention in the many forms that exporters write it: separate or packed projections, groups, windows, Einsum."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.net import Net
from topologies.registry import topology

_TOKENS, _WIDTH, _HEADS = 12, 64, 4
_HEAD = _WIDTH // _HEADS


def tokens(n: Net) -> str:
    """Input [N, 12, 20] projected to [N, 12, 64]."""
    return n.linear(n.input("x", "N", _TOKENS, 20), _WIDTH)


def split_heads(n: Net, x: str, heads: int, *perm: int) -> str:
    """[N, S, H·D] to [N, H, S, D], or in the order of `perm`."""
    return n.transpose(n.reshape(x, 0, -1, heads, n.width(x, -1) // heads), *(perm or (0, 2, 1, 3)))


def attend(n: Net, q: str, k_transposed: str, v: str, *, scale: float = _HEAD**-0.5, bias: str = "") -> str:
    """q [N, H, S, D], k [N, H, D, S], v [N, H, S, D] to [N, S, H·D]."""
    scores = n.mul(n.node("MatMul", q, k_transposed), n.scalar(scale))
    weights = n.node("Softmax", n.add(scores, bias) if bias else scores, axis=-1)
    y = n.transpose(n.node("MatMul", weights, v), 0, 2, 1, 3)
    return n.reshape(y, 0, n.width(q, 2), n.width(v, 1) * n.width(v, -1))


def self_attention(n: Net, x: str, *, heads: int = _HEADS, bias: str = "") -> str:
    """Three projections, heads, and the output projection."""
    d = n.width(x, -1)
    q = split_heads(n, n.linear(x, d), heads)
    k = split_heads(n, n.linear(x, d), heads, 0, 2, 3, 1)
    v = split_heads(n, n.linear(x, d), heads)
    return n.linear(attend(n, q, k, v, scale=(d / heads) ** -0.5, bias=bias), d)


@topology()
def attention_three_projections() -> ir.Model:
    n = Net()
    x = tokens(n)
    return n.build(n.linear(n.add(x, self_attention(n, x)), 10))


@topology()
def attention_packed_gather() -> ir.Model:
    """One projection, Reshape [N, S, 3, H, D], Transpose, three Gathers (timm)."""
    n = Net()
    x = tokens(n)
    qkv = n.reshape(n.linear(x, 3 * _WIDTH), -1, _TOKENS, 3, _HEADS, _HEAD)
    qkv = n.transpose(qkv, 2, 0, 3, 1, 4)
    q, k, v = (n.node("Gather", qkv, n.const(np.array(i)), axis=0) for i in range(3))
    y = n.linear(attend(n, q, n.transpose(k, 0, 1, 3, 2), v), _WIDTH)
    return n.build(n.linear(n.add(x, y), 10))


@topology()
def attention_packed_split() -> ir.Model:
    """The same with Split and Squeeze."""
    n = Net(13)
    x = tokens(n)
    qkv = n.transpose(n.reshape(n.linear(x, 3 * _WIDTH), 0, 0, 3, _HEADS, _HEAD), 2, 0, 3, 1, 4)
    q, k, v = (n.node("Squeeze", part, n.ints(0)) for part in n.split(qkv, 1, 1, 1, axis=0))
    y = n.linear(attend(n, q, n.transpose(k, 0, 1, 3, 2), v), _WIDTH)
    return n.build(n.linear(n.add(x, y), 10))


@topology()
def attention_split_before_heads() -> ir.Model:
    """The packed projection is split along its last axis (GPT-2)."""
    n = Net()
    x = tokens(n)
    q, k, v = n.split(n.linear(x, 3 * _WIDTH), _WIDTH, _WIDTH, _WIDTH, axis=2)
    q, v = split_heads(n, q, _HEADS), split_heads(n, v, _HEADS)
    y = n.linear(attend(n, q, split_heads(n, k, _HEADS, 0, 2, 3, 1), v), _WIDTH)
    return n.build(n.linear(n.add(x, y), 10))


@topology()
def attention_packed_by_head() -> ir.Model:
    """Reshape [N, S, H, 3·D] and Split of the last axis (GPT-NeoX, BLOOM)."""
    n = Net(18)
    x = tokens(n)
    qkv = n.transpose(n.reshape(n.linear(x, 3 * _WIDTH), 0, 0, _HEADS, 3 * _HEAD), 0, 2, 1, 3)
    q, k, v = n.split(qkv, _HEAD, _HEAD, _HEAD, axis=3)
    y = n.linear(attend(n, q, n.transpose(k, 0, 1, 3, 2), v), _WIDTH)
    return n.build(n.linear(n.add(x, y), 10))


@topology()
def attention_of_images() -> ir.Model:
    """Heads out of the channels of [N, C, H, W]: 1x1 convolutions, and a depthwise one on the values (YOLO11)."""
    n = Net()
    x = n.silu(n.conv(n.input("x", "N", 3, 6, 6), 64))
    qkv = n.reshape(n.conv(x, 128, 1), 0, 4, 32, 36)
    q, k, v = n.split(qkv, 8, 8, 16, axis=2)
    scores = n.node("Softmax", n.mul(n.node("MatMul", n.transpose(q, 0, 1, 3, 2), k), n.scalar(8**-0.5)), axis=-1)
    y = n.reshape(n.node("MatMul", v, n.transpose(scores, 0, 1, 3, 2)), 0, 64, 6, 6)
    y = n.add(y, n.conv(n.reshape(v, 0, 64, 6, 6), 64, group=64))
    return n.build(n.classifier(n.add(x, n.conv(y, 64, 1))))


@topology()
def cross_attention() -> ir.Model:
    """Queries from one input, keys and values from another."""
    n = Net(21)
    x, context = tokens(n), n.input("context", "N", 9, 48)
    q = split_heads(n, n.linear(x, _WIDTH), _HEADS)
    k = split_heads(n, n.linear(context, _WIDTH, bias=False), _HEADS, 0, 2, 3, 1)
    v = split_heads(n, n.linear(context, _WIDTH, bias=False), _HEADS)
    return n.build(n.linear(n.add(x, n.linear(attend(n, q, k, v), _WIDTH)), 10))


@topology()
def attention_with_causal_mask() -> ir.Model:
    """Where with a constant triangle; dimensions by Shape and Concat, as the older PyTorch exporter writes them."""
    n = Net()
    x = tokens(n)

    def heads(y: str, *perm: int) -> str:
        sizes = (n.node("Gather", n.node("Shape", y), n.ints(i), axis=0) for i in (0, 1))
        target = n.concat(*sizes, n.ints(_HEADS), n.ints(_HEAD), axis=0)
        return n.transpose(n.node("Reshape", y, target, shape=("N", _TOKENS, _HEADS, _HEAD)), *perm)

    q, v = (heads(n.linear(x, _WIDTH), 0, 2, 1, 3) for _ in range(2))
    k = heads(n.linear(x, _WIDTH), 0, 2, 3, 1)
    scores = n.node("Div", n.node("MatMul", q, k), n.scalar(_HEAD**0.5))
    triangle = n.const(np.tril(np.ones((1, 1, _TOKENS, _TOKENS), bool)))
    weights = n.node("Softmax", n.node("Where", triangle, scores, n.scalar(-1e4)), axis=-1)
    y = n.transpose(n.node("MatMul", weights, v), 0, 2, 1, 3)
    sizes = (n.node("Gather", n.node("Shape", y), n.ints(i), axis=0) for i in (0, 1))
    y = n.node("Reshape", y, n.concat(*sizes, n.ints(_WIDTH), axis=0), shape=("N", _TOKENS, _WIDTH))
    return n.build(n.linear(n.add(x, n.linear(y, _WIDTH)), 10))


def rotate(n: Net, x: str) -> str:
    """Rotary positions (Su et al. 2021) of x [N, H, S, D]: x · cos + rotate_half(x) · sin, from tables [S, D]."""
    d, length = n.width(x, -1), n.width(x, 2)
    angles = np.arange(length)[:, None] * 10000.0 ** (-np.arange(0, d, 2) / d)
    cos, sin = (n.const(np.tile(f(angles), 2).astype(np.float32)) for f in (np.cos, np.sin))
    half = n.concat(n.node("Neg", n.slice(x, d // 2, 2**62, axis=3)), n.slice(x, 0, d // 2, axis=3), axis=3)
    return n.add(n.mul(x, cos), n.mul(half, sin))


def grouped_query_attention(n: Net, x: str, *, heads: int, kv_heads: int, head: int) -> str:
    """Each key-value head serves heads / kv_heads query heads: Unsqueeze, Expand, Reshape (repeat_kv of Llama)."""
    q = rotate(n, split_heads(n, n.linear(x, heads * head, bias=False), heads))
    k = rotate(n, split_heads(n, n.linear(x, kv_heads * head, bias=False), kv_heads))
    v = split_heads(n, n.linear(x, kv_heads * head, bias=False), kv_heads)

    def repeat(y: str) -> str:
        wide = n.node("Expand", n.node("Unsqueeze", y, n.ints(2)), n.ints(1, kv_heads, heads // kv_heads, 1, 1))
        return n.reshape(wide, -1, heads, n.width(y, 2), head)

    y = attend(n, q, n.transpose(repeat(k), 0, 1, 3, 2), repeat(v), scale=head**-0.5)
    return n.linear(y, n.width(x, -1), bias=False)


@topology()
def grouped_query_with_rope() -> ir.Model:
    n = Net()
    x = tokens(n)
    y = grouped_query_attention(n, x, heads=8, kv_heads=2, head=16)
    return n.build(n.linear(n.add(x, y), 10))


@topology()
def multi_query() -> ir.Model:
    """One key-value head for all query heads, by broadcasting."""
    n = Net()
    x = tokens(n)
    q = split_heads(n, n.linear(x, _WIDTH), _HEADS)
    k = n.node("Unsqueeze", n.transpose(n.linear(x, _HEAD), 0, 2, 1), n.ints(1))
    v = n.node("Unsqueeze", n.linear(x, _HEAD), n.ints(1))
    y = n.transpose(n.node("MatMul", n.node("Softmax", n.node("MatMul", q, k), axis=-1), v), 0, 2, 1, 3)
    return n.build(n.linear(n.add(x, n.linear(n.reshape(y, 0, _TOKENS, _WIDTH), _WIDTH)), 10))


@topology()
def swin_window() -> ir.Model:
    """Windows of 4x4 out of 8x8 tokens, a relative position bias for each head, and back (Liu et al. 2021)."""
    n = Net(18)
    x = n.transpose(n.conv(n.input("x", "N", 3, 8, 8), _WIDTH, 1), 0, 2, 3, 1)
    windows = n.transpose(n.reshape(x, -1, 2, 4, 2, 4, _WIDTH), 0, 1, 3, 2, 4, 5)
    windows = n.reshape(windows, -1, 16, _WIDTH)
    rows, columns = (a.ravel() for a in np.indices((4, 4)))
    index = (rows[:, None] - rows + 3) * 7 + columns[:, None] - columns + 3
    table = n.node("Gather", n.weight(49, _HEADS, fan_in=1), n.const(index.ravel()), axis=0)
    bias = n.node("Unsqueeze", n.transpose(n.reshape(table, 16, 16, _HEADS), 2, 0, 1), n.ints(0))
    y = self_attention(n, windows, bias=bias)
    y = n.transpose(n.reshape(y, -1, 2, 2, 4, 4, _WIDTH), 0, 1, 3, 2, 4, 5)
    y = n.add(x, n.reshape(y, -1, 8, 8, _WIDTH))
    return n.build(n.linear(n.mean(y, 1, 2, keepdims=0), 10))


@topology()
def swin_patch_merging() -> ir.Model:
    """Shifted by two Slices and a Concat (Roll), then four neighbours joined to one token of fourfold width."""
    n = Net()
    x = n.transpose(n.conv(n.input("x", "N", 3, 8, 8), 32, 1), 0, 2, 3, 1)
    x = n.concat(n.slice(x, 2, 2**62, axis=1), n.slice(x, 0, 2, axis=1), axis=1)
    rows = [n.slice(x, i, 2**62, axis=1, step=2) for i in (0, 1)]
    x = n.concat(*(n.slice(r, j, 2**62, axis=2, step=2) for j in (0, 1) for r in rows), axis=3)
    x = n.linear(n.reshape(x, 0, -1, 128), 64, bias=False)
    return n.build(n.linear(n.gelu(x), 10))


@topology()
def einsum_projections() -> ir.Model:
    """Projections into heads and out of them by Einsum (JAX, TensorFlow)."""
    n = Net()
    x = tokens(n)
    q, k, v = (n.node("Einsum", x, n.weight(64, 4, 16, fan_in=64), equation="bsd,dhe->bshe") for _ in range(3))
    q, k, v = (n.transpose(n.add(y, n.small(4, 16)), 0, 2, 1, 3) for y in (q, k, v))
    scores = n.node("Softmax", n.mul(n.node("MatMul", q, n.transpose(k, 0, 1, 3, 2)), n.scalar(0.25)), axis=-1)
    y = n.transpose(n.node("MatMul", scores, v), 0, 2, 1, 3)
    y = n.node("Einsum", y, n.weight(4, 16, 64, fan_in=64), equation="bshe,hed->bsd")
    return n.build(n.linear(n.add(x, y), 10))


@topology()
def einsum_attention() -> ir.Model:
    """Scores and weighted sum by Einsum, without a Transpose."""
    n = Net(13)
    x = tokens(n)
    q, k, v = (n.reshape(n.linear(x, _WIDTH), 0, 0, _HEADS, _HEAD) for _ in range(3))
    scores = n.mul(n.node("Einsum", q, k, equation="bqhd,bkhd->bhqk"), n.scalar(_HEAD**-0.5))
    y = n.node("Einsum", n.node("Softmax", scores, axis=-1), v, equation="bhqk,bkhd->bqhd")
    y = n.linear(n.reshape(y, 0, 0, _WIDTH), _WIDTH)
    return n.build(n.linear(n.add(x, y), 10))


@topology(exact=False)
def linear_attention() -> ir.Model:
    """Keys and values are contracted first: no Softmax over the tokens (Katharopoulos et al. 2020).

    elu(0) + 1 is 1: a channel of queries and keys without weights still adds to the product.
    """
    n = Net()
    x = tokens(n)
    q, k, v = (split_heads(n, n.linear(x, _WIDTH), _HEADS) for _ in range(3))
    q, k = (n.add(n.node("Elu", y), n.scalar(1.0)) for y in (q, k))
    context = n.node("MatMul", n.transpose(k, 0, 1, 3, 2), v)
    total = n.node("ReduceSum", k, n.ints(2), keepdims=1)
    norm = n.node("MatMul", q, n.transpose(total, 0, 1, 3, 2))
    y = n.transpose(n.node("Div", n.node("MatMul", q, context), norm), 0, 2, 1, 3)
    return n.build(n.linear(n.add(x, n.linear(n.reshape(y, 0, 0, _WIDTH), _WIDTH)), 10))


@topology()
def attention_pooling() -> ir.Model:
    """A learned query pools the tokens; the scores are a MatMul with one column."""
    n = Net()
    x = n.node("Tanh", tokens(n))
    scores = n.node("Softmax", n.linear(n.node("Tanh", n.linear(x, 48)), 1), axis=1)
    return n.build(n.linear(n.node("ReduceSum", n.mul(x, scores), n.ints(1), keepdims=0), 10))
