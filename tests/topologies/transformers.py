"""Whole transformers, two layers each."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.attention import grouped_query_attention, self_attention, split_heads
from topologies.net import Net
from topologies.registry import topology


def _encoder_layer(n: Net, x: str, *, hidden: int, bias: str = "") -> str:
    """Norm first, as in ViT and GPT."""
    x = n.add(x, self_attention(n, n.layer_norm(x), bias=bias))
    return n.add(x, n.linear(n.gelu(n.linear(n.layer_norm(x), hidden)), n.width(x, -1)))


def _embedded(n: Net, vocabulary: int = 200, width: int = 64, length: int = 10) -> str:
    table = n.const(n.rng.standard_normal((vocabulary, width)).astype(np.float32))
    return n.node("Gather", table, n.input("ids", "N", length, dtype=np.int64), axis=0)


@topology(exact=False)
def vision_transformer() -> ir.Model:
    """Patches, a class token expanded to the batch, positions, two layers, the class token's scores."""
    n = Net()
    x = n.input("x", "N", 3, 16, 16)
    x = n.node("Conv", x, n.weight(64, 3, 4, 4), n.small(64), strides=[4, 4])
    x = n.transpose(n.reshape(x, 0, 64, -1), 0, 2, 1)
    batch = n.node("Slice", n.node("Shape", x), n.ints(0), n.ints(1), n.ints(0))
    wanted = n.concat(batch, n.ints(-1, -1), axis=0)
    target = n.node("Where", n.node("Equal", wanted, n.ints(-1)), n.ints(1), wanted)  # expand(batch, -1, -1) in PyTorch
    token = n.node("Expand", n.small(1, 1, 64), target, shape=("N", 1, 64))
    x = n.add(n.concat(token, x, axis=1), n.small(1, 17, 64))
    for _ in range(2):
        x = _encoder_layer(n, x, hidden=256)
    x = n.node("Gather", n.layer_norm(x), n.const(np.array(0)), axis=1)
    return n.build(n.gemm(x, 10))


@topology(exact=False)
def bert() -> ir.Model:
    """Three embeddings added, norms after each block, an attention mask, a pooler with Tanh."""
    n = Net()
    words = _embedded(n)
    kinds = n.node("Gather", n.small(2, 64), n.input("token_type_ids", "N", 10, dtype=np.int64), axis=0)
    x = n.layer_norm(n.add(n.add(words, kinds), n.small(1, 10, 64)))
    mask = n.node("Cast", n.input("attention_mask", "N", 10, dtype=np.int64), to=1)
    mask = n.node("Sub", n.scalar(1.0), n.node("Unsqueeze", mask, n.ints(1, 2)))
    bias = n.mul(mask, n.scalar(-20.0))
    for _ in range(2):
        x = n.layer_norm(n.add(x, self_attention(n, x, bias=bias)))
        x = n.layer_norm(n.add(x, n.linear(n.gelu(n.linear(x, 256)), 64)))
    first = n.node("Squeeze", n.slice(x, 0, 1), n.ints(1))
    return n.build(n.gemm(n.node("Tanh", n.gemm(first, 64)), 3))


@topology(exact=False)
def gpt_with_tied_embedding() -> ir.Model:
    """The embedding table serves as output projection too, transposed in the graph."""
    n = Net()
    table = n.const(n.rng.standard_normal((120, 64)).astype(np.float32))
    x = n.node("Gather", table, n.input("ids", "N", 10, dtype=np.int64), axis=0)
    triangle = n.const(np.triu(np.full((1, 1, 10, 10), -20, np.float32), 1))
    x = n.add(x, n.small(10, 64))
    for _ in range(2):
        x = _encoder_layer(n, x, hidden=192, bias=triangle)
    return n.build(n.node("MatMul", n.layer_norm(x), n.transpose(table, 1, 0)))


@topology(exact=False)
def llama() -> ir.Model:
    """RMSNorm, grouped queries with rotary positions, SwiGLU."""
    n = Net()
    x = _embedded(n)

    def norm(y: str) -> str:
        mean = n.mean(n.node("Pow", y, n.scalar(2.0)), -1)
        return n.mul(n.positive(64), n.node("Div", y, n.node("Sqrt", n.add(mean, n.scalar(1e-6)))))

    for _ in range(2):
        x = n.add(x, grouped_query_attention(n, norm(x), heads=8, kv_heads=4, head=16))
        y = norm(x)
        gate, up = n.linear(y, 160, bias=False), n.linear(y, 160, bias=False)
        x = n.add(x, n.linear(n.mul(n.silu(gate), up), 64, bias=False))
    return n.build(n.linear(norm(x), 90, bias=False))


@topology(exact=False)
def t5_encoder() -> ir.Model:
    """A relative position bias shared by the layers, no scale in the scores, heads wider than the stream."""
    n = Net(20)
    x = _embedded(n)
    buckets = n.const(np.clip(np.subtract.outer(np.arange(10), np.arange(10)) + 8, 0, 15))
    bias = n.node("Gather", n.weight(16, 4, fan_in=1), buckets, axis=0)
    bias = n.node("Unsqueeze", n.transpose(bias, 2, 0, 1), n.ints(0))
    for _ in range(2):
        q, v = (split_heads(n, n.linear(x, 128, bias=False), 4) for _ in range(2))
        k = split_heads(n, n.linear(x, 128, bias=False), 4, 0, 2, 3, 1)
        scores = n.add(n.mul(n.node("MatMul", q, k), n.scalar(0.1)), bias)
        y = n.node("MatMul", n.node("Softmax", scores, axis=-1), v)
        y = n.reshape(n.transpose(y, 0, 2, 1, 3), 0, 0, 128)
        x = n.layer_norm(n.add(x, n.linear(y, 64, bias=False)))
        x = n.add(x, n.linear(n.relu(n.linear(x, 128, bias=False)), 64, bias=False))
    return n.build(n.linear(x, 10))


@topology(exact=False)
def decoder_of_any_length() -> ir.Model:
    """The number of tokens is a symbol: positions and causal mask are slices of tables, sizes come from Shape."""
    n = Net()
    table = n.const(n.rng.standard_normal((120, 64)).astype(np.float32))
    ids = n.input("ids", "N", "S", dtype=np.int64)
    length = n.slice(n.node("Shape", ids), 1, 2, axis=0)
    zero, end = n.ints(0, 0), n.concat(length, length, axis=0)
    x = n.node("Gather", table, ids, axis=0)
    x = n.add(x, n.node("Slice", n.small(64, 64), n.ints(0), length, n.ints(0), shape=("S", 64)))
    triangle = n.const(np.triu(np.full((64, 64), -20, np.float32), 1))
    mask = n.node("Slice", triangle, zero, end, n.ints(0, 1), shape=("S", "S"))
    y = n.layer_norm(x)
    q, v = (split_heads(n, n.linear(y, 64), 4) for _ in range(2))
    k = split_heads(n, n.linear(y, 64), 4, 0, 2, 3, 1)
    scores = n.add(n.mul(n.node("MatMul", q, k), n.scalar(0.25)), mask)
    y = n.transpose(n.node("MatMul", n.node("Softmax", scores, axis=-1), v), 0, 2, 1, 3)
    x = n.add(x, n.linear(n.reshape(y, 0, -1, 64), 64))
    x = n.add(x, n.linear(n.gelu(n.linear(n.layer_norm(x), 128)), 64))
    return n.build(n.linear(n.layer_norm(x), 120))


@topology(exact=False)
def whisper_encoder() -> ir.Model:
    """Two Conv1d with GELU, transposed to tokens, positions, two layers."""
    n = Net(18)
    x = n.gelu(n.conv(n.input("mel", "N", 40, 32), 64))
    x = n.transpose(n.gelu(n.conv(x, 64, stride=2)), 0, 2, 1)
    x = n.add(x, n.small(16, 64))
    for _ in range(2):
        x = _encoder_layer(n, x, hidden=128)
    return n.build(n.linear(n.layer_norm(x), 20))


@topology(exact=False)
def mobile_vit() -> ir.Model:
    """Convolutions, positions unfolded into tokens, a transformer layer, folded back, concatenated with the input."""
    n = Net()
    x = n.silu(n.conv_bn(n.input("x", "N", 3, 8, 8), 32))
    y = n.conv(n.silu(n.conv_bn(x, 32)), 48, 1)
    y = n.transpose(n.reshape(y, -1, 48, 4, 2, 4, 2), 0, 3, 5, 2, 4, 1)
    y = _encoder_layer(n, n.reshape(y, -1, 16, 48), hidden=96)
    y = n.transpose(n.reshape(y, -1, 2, 2, 4, 4, 48), 0, 5, 3, 1, 4, 2)
    y = n.silu(n.conv_bn(n.reshape(y, -1, 48, 8, 8), 32, 1))
    return n.build(n.classifier(n.silu(n.conv_bn(n.concat(x, y), 48))))


@topology(exact=False)
def conformer_block() -> ir.Model:
    """Half-step MLPs around attention and a convolution module with GLU and BatchNorm (Gulati et al. 2020)."""
    n = Net()
    x = n.linear(n.input("x", "N", 12, 40), 64)

    def feed_forward(y: str) -> str:
        return n.mul(n.linear(n.silu(n.linear(n.layer_norm(y), 128)), 64), n.scalar(0.5))

    x = n.add(x, feed_forward(x))
    x = n.add(x, self_attention(n, n.layer_norm(x)))
    y = n.conv(n.transpose(n.layer_norm(x), 0, 2, 1), 128, 1)
    value, gate = n.split(y, 64, 64)
    y = n.conv(n.mul(value, n.node("Sigmoid", gate)), 64, 5, group=64)
    x = n.add(x, n.transpose(n.conv(n.silu(n.bn(y)), 64, 1), 0, 2, 1))
    x = n.add(x, feed_forward(x))
    return n.build(n.linear(n.layer_norm(x), 20))


@topology(exact=False)
def mlp_mixer() -> ir.Model:
    """MLPs over the tokens and over the channels in turns (Tolstikhin et al. 2021)."""
    n = Net(21)
    x = n.linear(n.input("x", "N", 16, 48), 64)
    for _ in range(2):
        y = n.transpose(n.layer_norm(x), 0, 2, 1)
        x = n.add(x, n.transpose(n.linear(n.gelu(n.linear(y, 32)), 16), 0, 2, 1))
        x = n.add(x, n.linear(n.gelu(n.linear(n.layer_norm(x), 128)), 64))
    return n.build(n.linear(n.mean(n.layer_norm(x), 1, keepdims=0), 10))
