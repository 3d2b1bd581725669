"""Weights that are stored another way, computed in the graph, or read by more than one node."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.net import Net
from topologies.registry import topology


def _stem(n: Net, out: int = 48) -> str:
    return n.relu(n.conv(n.input("x", "N", 3, 8, 8), out))


@topology()
def transposed_in_the_graph() -> ir.Model:
    """Linear layers whose weight [out, in] goes through a Transpose that nobody folded."""
    n = Net()
    x = n.input("x", "N", 9, 40)
    for width, out in ((40, 96), (96, 64), (64, 10)):
        x = n.node("MatMul", n.relu(x), n.transpose(n.weight(out, width), 1, 0))
    return n.build(x)


@topology()
def kernels_stored_flat() -> ir.Model:
    """Convolution weights kept as [out, in·k·k] and reshaped before use."""
    n = Net()
    kernel = n.reshape(n.weight(40, 48 * 9), 40, 48, 3, 3)
    y = n.node("Conv", _stem(n), kernel, n.small(40), pads=[1] * 4)
    return n.build(n.classifier(n.relu(y)))


@topology()
def kernels_concatenated() -> ir.Model:
    """One convolution whose weight is the Concat of two initializers along its outputs."""
    n = Net()
    kernel = n.concat(n.weight(24, 48, 3, 3), n.weight(16, 48, 3, 3), axis=0)
    y = n.node("Conv", _stem(n), kernel, pads=[1] * 4)
    return n.build(n.classifier(n.relu(y)))


@topology(exact=False)
def weight_standardisation() -> ir.Model:
    """Each kernel is centred and scaled by its own statistics, in the graph (Qiao et al. 2019)."""
    n = Net()
    kernel = n.weight(40, 48, 3, 3)
    centred = n.node("Sub", kernel, n.mean(kernel, 1, 2, 3))
    deviation = n.node("Sqrt", n.mean(n.mul(centred, centred), 1, 2, 3))
    kernel = n.mul(n.node("Div", centred, deviation), n.scalar((2 / (48 * 9)) ** 0.5))
    return n.build(n.classifier(n.relu(n.node("Conv", _stem(n), kernel, pads=[1] * 4))))


@topology(exact=False)
def weight_normalisation() -> ir.Model:
    """g · v / ‖v‖ with the norm taken in the graph (Salimans and Kingma 2016)."""
    n = Net()
    v, g = n.weight(40, 48, 3), n.positive(40, 1, 1)
    kernel = n.mul(g, n.node("Div", v, n.node("ReduceL2", v, axes=[1, 2], keepdims=1)))
    x = n.relu(n.conv(n.input("x", "N", 8, 24), 48))
    return n.build(n.conv(n.relu(n.node("Conv", x, kernel, pads=[1, 1])), 10))


@topology()
def weights_scaled_in_the_graph() -> ir.Model:
    """Equalised learning rate: a factor for all weights, and one for each output channel (StyleGAN)."""
    n = Net()
    kernel = n.mul(n.mul(n.weight(40, 48, 3, 3), n.scalar(0.5)), n.positive(40, 1, 1, 1))
    return n.build(n.classifier(n.relu(n.node("Conv", _stem(n), kernel, n.small(40), pads=[1] * 4))))


@topology()
def low_rank_adapter() -> ir.Model:
    """x · W + x · A · B · scale (Hu et al. 2021)."""
    n = Net()
    x = n.input("x", "N", 9, 40)
    for width, out in ((40, 96), (96, 32)):
        adapter = n.node("MatMul", n.node("MatMul", x, n.weight(width, 16)), n.weight(16, out, fan_in=16))
        x = n.relu(n.add(n.linear(x, out), n.mul(adapter, n.scalar(0.25))))
    return n.build(n.linear(x, 10))


@topology()
def product_of_two_weights() -> ir.Model:
    """A MatMul of two initializers makes the weight."""
    n = Net()
    x = n.relu(n.linear(n.input("x", "N", 40), 64))
    weight = n.node("MatMul", n.weight(64, 16, fan_in=64), n.weight(16, 48, fan_in=16))
    return n.build(n.linear(n.relu(n.node("MatMul", x, weight)), 10))


@topology()
def mixed_kernels() -> ir.Model:
    """The kernel is a mixture of four, with weights from a second input (CondConv with a batch of one)."""
    n = Net()
    x = n.relu(n.conv(n.input("x", 1, 3, 8, 8), 32))
    mixture = n.node("Softmax", n.gemm(n.input("context", 1, 12), 4), axis=-1)
    kernel = n.reshape(n.node("MatMul", mixture, n.weight(4, 40 * 32 * 9, fan_in=32 * 9)), 40, 32, 3, 3)
    return n.build(n.classifier(n.relu(n.node("Conv", x, kernel, pads=[1] * 4))))


@topology()
def bias_shared_by_two_layers() -> ir.Model:
    """Two convolutions with one bias initializer: their outputs are pruned together or not at all."""
    n = Net()
    x, bias = _stem(n), n.small(40)
    y = n.relu(n.node("Conv", x, n.weight(40, 48, 3, 3), bias, pads=[1] * 4))
    y = n.relu(n.node("Conv", y, n.weight(40, 40, 3, 3), bias, pads=[1] * 4))
    return n.build(n.classifier(y))


@topology()
def constant_shared_by_many() -> ir.Model:
    """A vector of ones is scale here, variance there, and a bias of another layer of the same width."""
    n = Net()
    ones, zeros = n.const(np.ones(32, np.float32)), n.const(np.zeros(32, np.float32))
    x = n.node("BatchNormalization", n.conv(n.input("x", "N", 3, 8, 8), 32, bias=False), ones, zeros, zeros, ones)
    x = n.node("BatchNormalization", n.conv(n.relu(x), 32, bias=False), ones, zeros, zeros, ones)
    x = n.node("Conv", n.relu(x), n.weight(32, 32, 1, 1), ones)
    return n.build(n.classifier(n.relu(x)))


@topology()
def residual_through_the_bias_of_gemm() -> ir.Model:
    """The third operand of a Gemm is an activation."""
    n = Net()
    x = n.relu(n.gemm(n.input("x", "N", 40), 64))
    hidden = n.relu(n.gemm(x, 96))
    return n.build(n.gemm(n.relu(n.node("Gemm", hidden, n.weight(64, 96), x, transB=1)), 10))


@topology()
def scored_by_a_vector() -> ir.Model:
    """A MatMul with a weight of one axis."""
    n = Net()
    x = n.relu(n.linear(n.input("x", "N", 40), 64))
    y = n.relu(n.linear(x, 32))
    return n.build(n.node("MatMul", y, n.weight(32, fan_in=32)), n.linear(x, 5))
