"""Operators that look at all channels at once: what they touch stays, or is pruned only approximately."""

from __future__ import annotations

import onnx_ir as ir

from topologies.net import Net
from topologies.registry import topology


def _stem(n: Net, out: int = 48) -> str:
    return n.relu(n.conv(n.input("x", "N", 3, 8, 8), out))


@topology(exact=False)
def mean_over_channels() -> ir.Model:
    """An attention map: the mean of all channels."""
    n = Net()
    x = _stem(n)
    y = n.mul(x, n.node("Sigmoid", n.mean(x, 1)))
    return n.build(n.conv(n.relu(n.conv(y, 32)), 12))


@topology()
def sum_over_channels() -> ir.Model:
    """A contraction with ones: a channel without weights adds nothing."""
    n = Net()
    x = _stem(n)
    energy = n.node("ReduceSum", n.mul(x, x), n.ints(1), keepdims=1)
    return n.build(n.conv(n.node("Div", x, n.add(energy, n.scalar(1.0))), 12))


@topology()
def l2_normalised_embedding() -> ir.Model:
    """The embedding is an output; the hidden features are normalised too."""
    n = Net()
    x = n.mean(_stem(n), 2, 3, keepdims=0)
    x = n.node("Div", x, n.node("ReduceL2", x, axes=[1], keepdims=1))
    y = n.gemm(n.relu(n.gemm(x, 64)), 16)
    return n.build(n.node("LpNormalization", y, axis=1, p=2))


@topology(exact=False)
def cbam() -> ir.Model:
    """Channel attention by a shared MLP, then spatial attention by mean and maximum over channels (Woo et al. 2018)."""
    n = Net()
    x = _stem(n)
    first, second = n.weight(12, 48, 1, 1), n.weight(48, 12, 1, 1)
    gates = [
        n.node("Conv", n.relu(n.node("Conv", n.node(pool, x), first)), second)
        for pool in ("GlobalAveragePool", "GlobalMaxPool")
    ]
    x = n.mul(x, n.node("Sigmoid", n.add(*gates)))
    maps = n.concat(n.mean(x, 1), n.node("ReduceMax", x, axes=[1], keepdims=1))
    return n.build(n.conv(n.mul(x, n.node("Sigmoid", n.conv(maps, 1, 7))), 12))


@topology()
def efficient_channel_attention() -> ir.Model:
    """A convolution along the channels: neighbours in the order of channels matter (Wang et al. 2020)."""
    n = Net()
    x = n.relu(n.conv(_stem(n), 32))
    pooled = n.transpose(n.node("Squeeze", n.node("GlobalAveragePool", x), n.ints(-1)), 0, 2, 1)
    gate = n.node("Sigmoid", n.conv(pooled, 1, bias=False))
    gate = n.node("Unsqueeze", n.transpose(gate, 0, 2, 1), n.ints(-1))
    return n.build(n.conv(n.mul(x, gate), 12))


@topology(exact=False)
def product_of_sigmoids() -> ir.Model:
    """Two embeddings against each other: a channel without weights adds sigmoid(0)² to every product."""
    n = Net()
    pooled = n.mean(_stem(n), 2, 3, keepdims=0)
    a, b = (n.node("Sigmoid", n.gemm(pooled, 32)) for _ in range(2))
    total = n.node("ReduceSum", n.mul(a, b), n.ints(1), keepdims=1)
    return n.build(n.gemm(n.mul(a, total), 10))


@topology()
def top_channels() -> ir.Model:
    """TopK over the channels: they stay."""
    n = Net()
    x = n.relu(n.conv(_stem(n, 32), 40))
    values, _ = n.nodes("TopK", x, n.ints(16), count=2, axis=1)
    return n.build(n.conv(values, 12))


@topology()
def top_positions() -> ir.Model:
    """TopK over the positions leaves the channels free."""
    n = Net()
    x = n.reshape(n.relu(n.conv(_stem(n, 32), 40)), 0, 40, -1)
    values, _ = n.nodes("TopK", x, n.ints(8), count=2, axis=2)
    return n.build(n.conv(values, 12, 1))


@topology()
def cumulative_channels() -> ir.Model:
    """CumSum over the channels: they stay."""
    n = Net()
    x = n.node("CumSum", n.conv(_stem(n, 32), 24), n.const(n.rng.integers(1, 2, ())))
    return n.build(n.conv(n.relu(n.conv(x, 32)), 12))


@topology()
def softmax_over_channels() -> ir.Model:
    n = Net()
    x = n.node("Softmax", n.conv(_stem(n, 32), 24), axis=1)
    return n.build(n.conv(n.relu(n.conv(x, 32)), 12))


@topology()
def local_response_norm() -> ir.Model:
    """LRN reads the neighbouring channels: they stay."""
    n = Net()
    x = n.node("LRN", _stem(n, 32), size=5, alpha=0.1, beta=0.75)
    return n.build(n.conv(n.relu(n.conv(x, 32)), 12))


@topology()
def channel_covariance() -> ir.Model:
    """Second-order pooling: the channels against themselves."""
    n = Net()
    x = n.reshape(n.conv(_stem(n), 16, 1), 0, 16, -1)
    gram = n.mul(n.node("MatMul", x, n.transpose(x, 0, 2, 1)), n.scalar(1 / 64))
    return n.build(n.gemm(n.node("Flatten", gram), 10))


@topology()
def non_local_block() -> ir.Model:
    """Attention over positions in embedded channels (Wang et al. 2018)."""
    n = Net()
    x = _stem(n)
    theta, phi, g = (n.reshape(n.conv(x, 24, 1), 0, 24, -1) for _ in range(3))
    scores = n.node("Softmax", n.mul(n.node("MatMul", n.transpose(theta, 0, 2, 1), phi), n.scalar(0.2)), axis=-1)
    y = n.reshape(n.transpose(n.node("MatMul", scores, n.transpose(g, 0, 2, 1)), 0, 2, 1), 0, 24, 8, 8)
    return n.build(n.classifier(n.add(x, n.conv(y, 48, 1))))


@topology()
def channel_attention_matrix() -> ir.Model:
    """Softmax over a channel-by-channel matrix (DANet): each channel reads all others."""
    n = Net()
    x = _stem(n, 32)
    flat = n.reshape(x, 0, 32, -1)
    energy = n.mul(n.node("MatMul", flat, n.transpose(flat, 0, 2, 1)), n.scalar(1 / 64))
    y = n.reshape(n.node("MatMul", n.node("Softmax", energy, axis=-1), flat), 0, 32, 8, 8)
    return n.build(n.conv(n.relu(n.conv(n.add(x, y), 24)), 12))
