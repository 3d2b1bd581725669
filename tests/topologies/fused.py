"""Transformers after fusion: operators of com.microsoft, and the Attention of opset 23."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.attention import rotate, split_heads, tokens
from topologies.net import CONTRIB, Net
from topologies.registry import topology

_SHAPE = ("N", 12, 64)


@topology()
def contrib_attention() -> ir.Model:
    """One weight [64, 3·64] with the three projections inside."""
    n = Net()
    x = tokens(n)
    weight = n.weight(64, 192, fan_in=128)
    y = n.node("Attention", x, weight, n.small(192), domain=CONTRIB, num_heads=4, shape=_SHAPE)
    return n.build(n.linear(n.add(x, n.linear(y, 64)), 10))


@topology()
def contrib_attention_of_two_widths() -> ir.Model:
    """Queries and keys are narrower than values (qkv_hidden_sizes)."""
    n = Net()
    x = tokens(n)
    weight, bias = n.weight(64, 32 + 32 + 64, fan_in=128), n.small(128)
    y = n.node(
        "Attention", x, weight, bias, domain=CONTRIB, num_heads=4, qkv_hidden_sizes=[32, 32, 64], shape=_SHAPE
    )  # fmt: skip
    return n.build(n.linear(n.add(x, n.linear(y, 64)), 10))


@topology()
def contrib_multi_head_attention() -> ir.Model:
    """Queries, keys and values as inputs, with one bias for all three."""
    n = Net()
    x = tokens(n)
    q, k, v = (n.linear(x, 64, bias=False) for _ in range(3))
    y = n.node("MultiHeadAttention", q, k, v, n.small(192), domain=CONTRIB, num_heads=4, shape=_SHAPE)
    return n.build(n.linear(n.add(x, n.linear(y, 64)), 10))


@topology(exact=False)
def contrib_skip_layer_norm() -> ir.Model:
    """The sum is the fourth output, the stream of a norm-first transformer."""
    n = Net()
    x = tokens(n)
    stream = x
    for _ in range(2):
        y = n.linear(n.relu(n.linear(x, 128)), 64, bias=False)
        x, _, _, stream = n.nodes(
            "SkipLayerNormalization", y, stream, n.positive(64), n.small(64), n.small(64),
            count=4, domain=CONTRIB, epsilon=1e-5, shape=_SHAPE,
        )  # fmt: skip
        n.types[stream] = n.types[x]
    return n.build(n.linear(n.add(x, stream), 10))


@topology()
def contrib_gelus() -> ir.Model:
    """BiasGelu and FastGelu carry the bias of the layer before."""
    n = Net()
    x = n.linear(tokens(n), 128, bias=False)
    x = n.node("BiasGelu", x, n.small(128), domain=CONTRIB, shape=("N", 12, 128))
    x = n.node("FastGelu", n.linear(x, 96, bias=False), n.small(96), domain=CONTRIB, shape=("N", 12, 96))
    x = n.node("Gelu", n.linear(x, 64), domain=CONTRIB, shape=_SHAPE)
    x = n.node("QuickGelu", n.linear(x, 48), domain=CONTRIB, alpha=1.702, shape=("N", 12, 48))
    return n.build(n.linear(x, 10))


@topology()
def contrib_fused_matmul() -> ir.Model:
    """A transposed weight and a factor."""
    n = Net()
    x = n.node(
        "FusedMatMul", tokens(n), n.weight(96, 64), domain=CONTRIB, transB=1, alpha=0.5, shape=("N", 12, 96)
    )  # fmt: skip
    return n.build(n.linear(n.relu(x), 10))


@topology()
def contrib_fused_conv() -> ir.Model:
    """FusedConv with an activation inside, and FusedGemm."""
    n = Net()
    x = n.input("x", "N", 3, 8, 8)
    x = n.node(
        "FusedConv", x, n.weight(32, 3, 3, 3), n.small(32), domain=CONTRIB, activation="Relu", pads=[1] * 4,
        shape=("N", 32, 8, 8),
    )  # fmt: skip
    x = n.mean(n.conv(x, 48), 2, 3, keepdims=0)
    weights = (n.weight(64, 48), n.small(64))
    x = n.node("FusedGemm", x, *weights, domain=CONTRIB, activation="Relu", transB=1, shape=("N", 64))
    return n.build(n.gemm(x, 10))


@topology()
def contrib_grouped_query() -> ir.Model:
    """GroupQueryAttention with an empty cache, as the Llama builders of ONNX Runtime write it."""
    n = Net()
    x = tokens(n)
    q, k, v = (n.linear(x, width, bias=False) for width in (128, 32, 32))
    past = [n.input(name, "N", 2, 0, 16) for name in ("past_key", "past_value")]
    ends = n.node("Expand", n.const(_int32(11)), n.slice(n.node("Shape", x), 0, 1, axis=0))
    y, *_ = n.nodes(
        "GroupQueryAttention", q, k, v, *past, ends, n.const(_int32(12)),
        count=3, domain=CONTRIB, num_heads=8, kv_num_heads=2, shape=("N", 12, 128),
    )  # fmt: skip
    return n.build(n.linear(n.add(x, n.linear(y, 64)), 10))


@topology()
def attention_opset_23() -> ir.Model:
    """The standard operator on [N, S, H·D], with numbers of heads as attributes."""
    n = Net(23)
    x = tokens(n)
    q, k, v = (n.linear(x, 64) for _ in range(3))
    y = n.node("Attention", q, k, v, q_num_heads=4, kv_num_heads=4, shape=_SHAPE)
    return n.build(n.linear(n.add(x, n.linear(y, 64)), 10))


@topology()
def grouped_attention_opset_23() -> ir.Model:
    """The same on [N, H, S, D], with rotary positions and half as many key-value heads."""
    n = Net(23)
    x = tokens(n)
    q, k = rotate(n, split_heads(n, n.linear(x, 128), 8)), rotate(n, split_heads(n, n.linear(x, 64), 4))
    v = split_heads(n, n.linear(x, 64), 4)
    y = n.node("Attention", q, k, v, is_causal=1, shape=("N", 8, 12, 16))
    y = n.reshape(n.transpose(y, 0, 2, 1, 3), 0, 0, 128)
    return n.build(n.linear(n.add(x, n.linear(y, 64)), 10))


@topology()
def gelu_opset_20() -> ir.Model:
    n = Net(20)
    x = n.node("Gelu", n.linear(tokens(n), 128))
    return n.build(n.linear(n.node("Gelu", n.linear(x, 96), approximate="tanh"), 10))


def _int32(value: int) -> np.ndarray:
    return np.array([value], np.int32)
