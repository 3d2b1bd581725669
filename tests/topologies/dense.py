"""Networks of Gemm and MatMul, on vectors and tables: towers, gates, shared weights, embeddings."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.net import Net
from topologies.registry import topology


@topology()
def mlp_gemm() -> ir.Model:
    """The weight as [in, out] and [out, in], alpha and beta, a bias of two axes, and none."""
    n = Net(13)
    x = n.input("x", "N", 40)
    x = n.relu(n.node("Gemm", x, n.weight(40, 128, fan_in=40), n.small(128)))
    x = n.relu(n.node("Gemm", x, n.weight(96, 128), n.small(1, 96), transB=1, alpha=0.5, beta=2.0))
    x = n.relu(n.node("Gemm", x, n.weight(96, 64, fan_in=96)))
    return n.build(n.node("Gemm", x, n.weight(10, 64), n.small(10), transB=1))


@topology()
def mlp_transposed_input() -> ir.Model:
    """transA: the features are the first axis."""
    n = Net()
    x = n.transpose(n.relu(n.gemm(n.input("x", "N", 40), 96)), 1, 0)
    x = n.node("Gemm", x, n.weight(64, 96), n.small(64), transA=1, transB=1)
    return n.build(n.gemm(n.relu(x), 10))


@topology()
def gemm_bn_gemm() -> ir.Model:
    n = Net(18)
    x = n.relu(n.bn(n.gemm(n.input("x", "N", 40), 128)))
    return n.build(n.gemm(n.relu(n.bn(n.gemm(x, 64))), 10))


@topology()
def matmul_chain() -> ir.Model:
    n = Net()
    x = n.relu(n.linear(n.input("x", "N", 7, 40), 96))
    x = n.node("Tanh", n.linear(x, 48))
    return n.build(n.linear(x, 10))


@topology()
def matmul_with_the_weight_first() -> ir.Model:
    """W · x, columns are samples."""
    n = Net()
    x = n.transpose(n.input("x", "N", 40), 1, 0)
    x = n.relu(n.add(n.node("MatMul", n.weight(64, 40), x), n.small(64, 1)))
    return n.build(n.transpose(n.node("MatMul", n.weight(10, 64), x), 1, 0))


@topology()
def residual_mlp() -> ir.Model:
    n = Net()
    x = n.relu(n.gemm(n.input("x", "N", 40), 96))
    for _ in range(2):
        x = n.relu(n.add(x, n.gemm(n.relu(n.gemm(x, 64)), 96)))
    return n.build(n.gemm(x, 10))


@topology()
def autoencoder_with_skip() -> ir.Model:
    n = Net()
    x = n.input("x", "N", 40)
    a = n.relu(n.gemm(x, 96))
    b = n.relu(n.gemm(a, 32))
    y = n.relu(n.gemm(b, 96))
    return n.build(n.gemm(n.concat(y, a), 40), b)


@topology()
def swiglu() -> ir.Model:
    n = Net()
    x = n.input("x", "N", 9, 48)
    hidden = n.mul(n.silu(n.linear(x, 128, bias=False)), n.linear(x, 128, bias=False))
    return n.build(n.linear(hidden, 48, bias=False))


@topology()
def glu_by_split() -> ir.Model:
    """One projection for values and gates: channel i of the first half goes with channel i of the second."""
    n = Net(18)
    value, gate = n.split(n.linear(n.input("x", "N", 9, 48), 192), 96, 96, axis=-1)
    return n.build(n.linear(n.mul(value, n.node("Sigmoid", gate)), 16))


@topology()
def siamese() -> ir.Model:
    """Two inputs through the same weights; the difference is scored."""
    n = Net()
    first, second, bias = n.weight(96, 40), n.weight(48, 96), n.small(96)
    embedded = []
    for name in ("left", "right"):
        x = n.relu(n.node("Gemm", n.input(name, "N", 40), first, bias, transB=1))
        embedded.append(n.node("Gemm", x, second, transB=1))
    return n.build(n.gemm(n.node("Abs", n.node("Sub", *embedded)), 1))


@topology()
def siamese_cosine() -> ir.Model:
    """The dot product of two embeddings, by Mul and ReduceSum."""
    n = Net()
    weight = n.weight(64, 40)
    a, b = (n.relu(n.node("Gemm", n.input(name, "N", 40), weight, transB=1)) for name in ("left", "right"))
    return n.build(n.node("ReduceSum", n.mul(a, b), n.ints(1), keepdims=1))


@topology()
def weight_used_twice_in_a_row() -> ir.Model:
    """The same square weight for two layers: its rows and columns go together."""
    n = Net()
    x = n.relu(n.gemm(n.input("x", "N", 40), 64))
    weight, bias = n.weight(64, 64), n.small(64)
    for _ in range(2):
        x = n.relu(n.node("Gemm", x, weight, bias, transB=1))
    return n.build(n.gemm(x, 10))


@topology()
def tied_autoencoder() -> ir.Model:
    """The decoder's weight is the encoder's, by transB."""
    n = Net()
    weight = n.weight(64, 40)
    code = n.relu(n.node("Gemm", n.input("x", "N", 40), weight, n.small(64), transB=1))
    return n.build(n.node("Gemm", code, weight, n.small(40)))


@topology()
def mixture_of_experts() -> ir.Model:
    """All experts run, a Softmax weighs them; the weights are stacked to [E, in, out]."""
    n = Net()
    x = n.relu(n.linear(n.input("x", "N", 40), 64))
    gate = n.node("Unsqueeze", n.transpose(n.node("Softmax", n.linear(x, 4), axis=-1), 1, 0), n.ints(2))
    hidden = n.relu(n.node("MatMul", n.node("Unsqueeze", x, n.ints(0)), n.weight(4, 64, 96, fan_in=64)))
    y = n.mul(n.node("MatMul", hidden, n.weight(4, 96, 32, fan_in=96)), gate)
    return n.build(n.linear(n.node("ReduceSum", y, n.ints(0), keepdims=0), 10))


@topology()
def recommender() -> ir.Model:
    """Three embeddings and dense features; their dot products join the top MLP (DLRM, Naumov et al. 2019)."""
    n = Net()
    dense = n.relu(n.gemm(n.relu(n.gemm(n.input("dense", "N", 13), 64)), 16))
    rows = [n.node("Unsqueeze", dense, n.ints(1))]
    for i, size in enumerate((50, 30, 20)):
        table = n.const(n.rng.standard_normal((size, 16)).astype(np.float32))
        rows.append(n.node("Gather", table, n.input(f"category{i}", "N", 1, dtype=np.int64), axis=0))
    stacked = n.concat(*rows)
    dots = n.node("Flatten", n.node("MatMul", stacked, n.transpose(stacked, 0, 2, 1)))
    return n.build(n.gemm(n.relu(n.gemm(n.concat(dense, dots), 96)), 1))


@topology()
def embeddings_concatenated() -> ir.Model:
    """Wide columns of a table and embeddings side by side in one MLP."""
    n = Net()
    parts = [n.bn(n.input("numbers", "N", 12))]
    for i, (rows, width) in enumerate(((60, 24), (40, 16))):
        table = n.const(n.rng.standard_normal((rows, width)).astype(np.float32))
        parts.append(n.node("Gather", table, n.input(f"category{i}", "N", dtype=np.int64), axis=0))
    x = n.relu(n.gemm(n.concat(*parts), 96))
    return n.build(n.gemm(n.relu(n.gemm(x, 48)), 1))


@topology()
def factorisation_cross() -> ir.Model:
    """x0 · (W x + b) + x, a cross layer (Wang et al. 2021)."""
    n = Net()
    x0 = n.relu(n.gemm(n.input("x", "N", 40), 64))
    x = x0
    for _ in range(2):
        x = n.add(n.mul(x0, n.mul(n.gemm(x, 64), n.scalar(0.3))), x)
    return n.build(n.gemm(x, 5))


@topology()
def feature_modulation() -> ir.Model:
    """FiLM: a second input scales and shifts the channels (Perez et al. 2018)."""
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 48))
    scale, shift = n.split(n.gemm(n.relu(n.gemm(n.input("style", "N", 16), 64)), 96), 48, 48)
    scale, shift = (n.node("Unsqueeze", v, n.ints(2, 3)) for v in (scale, shift))
    return n.build(n.classifier(n.relu(n.add(n.mul(n.conv(x, 48), scale), shift))))


@topology()
def two_modalities() -> ir.Model:
    """An image and a vector, joined before the last layers."""
    n = Net()
    x = n.relu(n.conv(n.input("image", "N", 3, 8, 8), 40, stride=2))
    vector = n.relu(n.gemm(n.input("vector", "N", 20), 56))
    joined = n.concat(n.node("Flatten", x), vector)
    return n.build(n.gemm(n.relu(n.gemm(joined, 64)), 10))
