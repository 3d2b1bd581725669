"""Normalisation layers: as operators, and as exporters take them apart."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.net import Net
from topologies.registry import topology


def _stem(n: Net, out: int = 48) -> str:
    return n.conv(n.input("x", "N", 3, 8, 8), out)


def _mlp_input(n: Net, width: int = 64) -> str:
    """Tokens [N, 12, width], shifted by positions."""
    return n.add(n.linear(n.input("x", "N", 12, 20), width), n.small(12, width))


def _group_norm(n: Net, x: str, groups: int) -> str:
    """Scale and bias for each channel (opset 21)."""
    c = n.width(x)
    scale, bias = n.positive(c), n.small(c)
    return n.node("GroupNormalization", x, scale, bias, num_groups=groups, epsilon=1e-5, shape=n.shape(x))


def _decomposed(n: Net, x: str, *, axis: int = -1, square: str = "Pow") -> str:
    """LayerNorm as PyTorch exported it below opset 17; scale and bias follow the axis."""
    d = n.width(x, axis)
    shape = (d,) if axis == -1 else (d, 1, 1)
    centred = n.node("Sub", x, n.mean(x, axis))
    squared = n.node("Pow", centred, n.scalar(2.0)) if square == "Pow" else n.mul(centred, centred)
    deviation = n.node("Sqrt", n.add(n.mean(squared, axis), n.scalar(1e-5)))
    return n.add(n.mul(n.node("Div", centred, deviation), n.positive(*shape)), n.small(*shape))


def _rms(n: Net, x: str) -> str:
    d = n.width(x, -1)
    mean = n.mean(n.node("Pow", x, n.scalar(2.0)), -1)
    scale = n.node("Reciprocal", n.node("Sqrt", n.add(mean, n.scalar(1e-6))))
    return n.mul(n.positive(d), n.mul(x, scale))


@topology(exact=False)
def group_norm_op() -> ir.Model:
    n = Net(21)
    x = _group_norm(n, _stem(n), 6)
    return n.build(n.conv(n.silu(x), 12))


@topology(exact=False)
def group_norm_by_instance_norm() -> ir.Model:
    """What PyTorch exports: Reshape to groups, InstanceNormalization with ones, Reshape to the shape before."""
    n = Net()
    x = _stem(n)
    ones, zeros = n.const(np.ones(6, np.float32)), n.const(np.zeros(6, np.float32))
    y = n.node("InstanceNormalization", n.reshape(x, 0, 6, -1), ones, zeros)
    y = n.node("Reshape", y, n.node("Shape", x), shape=("N", 48, 8, 8))
    y = n.add(n.mul(y, n.positive(48, 1, 1)), n.small(48, 1, 1))
    return n.build(n.conv(n.silu(y), 12))


@topology(exact=False)
def layer_norm_op() -> ir.Model:
    n = Net()
    x = n.layer_norm(_mlp_input(n))
    y = n.add(x, n.linear(n.gelu(n.linear(x, 128)), 64))
    return n.build(n.linear(n.layer_norm(y), 10))


@topology(exact=False)
def layer_norm_over_two_axes() -> ir.Model:
    n = Net()
    x = _mlp_input(n)
    y = n.node("LayerNormalization", x, n.positive(12, 64), n.small(12, 64), axis=1)
    return n.build(n.linear(n.relu(n.linear(y, 96)), 10))


@topology(exact=False)
def layer_norm_decomposed() -> ir.Model:
    n = Net()
    x = _decomposed(n, _mlp_input(n))
    y = n.add(x, n.linear(n.relu(n.linear(x, 128)), 64))
    return n.build(n.linear(_decomposed(n, y, square="Mul"), 10))


@topology(exact=False)
def layer_norm_channels_first() -> ir.Model:
    """Decomposed, over axis 1 of [N, C, H, W] (ConvNeXt's downsampling, SAM)."""
    n = Net()
    x = n.relu(_decomposed(n, _stem(n), axis=1))
    return n.build(n.classifier(n.relu(n.conv(x, 32, stride=2))))


@topology(exact=False)
def rms_norm_decomposed() -> ir.Model:
    n = Net()
    x = _mlp_input(n)
    y = n.add(x, n.linear(n.silu(n.linear(_rms(n, x), 128)), 64))
    return n.build(n.linear(_rms(n, y), 10))


@topology(exact=False)
def rms_norm_op() -> ir.Model:
    n = Net(23)
    x = _mlp_input(n)
    y = n.node("RMSNormalization", x, n.positive(64), axis=-1, epsilon=1e-6)
    y = n.add(x, n.linear(n.silu(n.linear(y, 128)), 64))
    return n.build(n.linear(n.node("RMSNormalization", y, n.positive(64), axis=-1, epsilon=1e-6), 10))


@topology()
def mean_variance_norm() -> ir.Model:
    """Normalised over the positions of each channel: exact, like InstanceNorm."""
    n = Net()
    x = n.node("MeanVarianceNormalization", _stem(n), axes=[2, 3], shape=("N", 48, 8, 8))
    return n.build(n.conv(n.relu(x), 12))


@topology(exact=False)
def diffusion_blocks() -> ir.Model:
    """Residual blocks with GroupNorm, as in diffusion UNets, with a time embedding added to the channels."""
    n = Net(21)
    time = n.silu(n.gemm(n.input("t", "N", 16), 64))
    x = _stem(n)
    for _ in range(2):
        y = n.silu(_group_norm(n, x, 4))
        y = n.add(n.conv(y, 48), n.node("Unsqueeze", n.gemm(time, 48), n.ints(2, 3)))
        y = n.silu(_group_norm(n, y, 4))
        x = n.add(x, n.conv(y, 48))
    return n.build(n.conv(n.silu(x), 3))
