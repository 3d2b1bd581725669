"""Where channels become features: Flatten, Reshape with its many spellings, shapes computed at run time."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from topologies.net import Net
from topologies.registry import topology


def _features(n: Net, out: int = 32) -> str:
    x = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 24))
    return n.relu(n.conv(x, out, stride=2))


@topology()
def conv_gap_flatten_gemm() -> ir.Model:
    n = Net()
    return n.build(n.classifier(_features(n)))


@topology()
def conv_flatten_gemm() -> ir.Model:
    """A row of the Gemm for each of C·H·W."""
    n = Net()
    x = n.relu(n.gemm(n.node("Flatten", _features(n)), 64))
    return n.build(n.gemm(x, 10))


@topology()
def conv_reshape_constant_gemm() -> ir.Model:
    n = Net()
    return n.build(n.gemm(n.reshape(_features(n), -1, 32 * 16), 10))


@topology()
def conv_reshape_zero_gemm() -> ir.Model:
    n = Net()
    x = n.node("Reshape", _features(n), n.ints(0, -1))
    return n.build(n.gemm(x, 10, width=32 * 16))


@topology()
def conv_dynamic_reshape_gemm() -> ir.Model:
    """x.view(x.size(0), -1), as PyTorch exports it."""
    n = Net(13)
    x = _features(n)
    batch = n.node("Gather", n.node("Shape", x), n.const(np.array(0)), axis=0)
    target = n.concat(n.node("Unsqueeze", batch, n.ints(0)), n.ints(-1), axis=0)
    return n.build(n.gemm(n.node("Reshape", x, target, shape=("N", 512)), 10))


@topology()
def channel_count_at_run_time() -> ir.Model:
    """x.view(B, C, H * W) with every size from Shape."""
    n = Net(21)
    x = _features(n)
    b, c, h, w = (n.node("Gather", n.node("Shape", x), n.ints(i), axis=0) for i in range(4))
    y = n.node("Reshape", x, n.concat(b, c, n.mul(h, w), axis=0), shape=("N", 32, 16))
    return n.build(n.conv(n.relu(y), 12, 1))


@topology()
def channel_count_computed_and_baked() -> ir.Model:
    """A shape that is half computed at run time, half literals: the literal holds the channel count."""
    n = Net()
    x = _features(n)
    batch = n.node("Slice", n.node("Shape", x), n.ints(0), n.ints(1), n.ints(0))
    y = n.node("Reshape", x, n.concat(batch, n.ints(32), n.ints(16), axis=0), shape=("N", 32, 16))
    return n.build(n.conv(n.relu(y), 12, 1))


@topology()
def reshape_zeros_and_minus_one() -> ir.Model:
    n = Net()
    x = n.reshape(_features(n), 0, 0, -1)
    x = n.reshape(n.relu(n.conv(x, 48, 1)), 0, -1, 4, 4)
    x = n.reshape(n.relu(n.conv(x, 32)), 0, 32, -1)
    return n.build(n.linear(n.transpose(x, 0, 2, 1), 10))


@topology()
def reshape_with_a_shared_target() -> ir.Model:
    """One shape constant for two Reshapes, whose channels are pruned apart."""
    n = Net()
    x = n.input("x", "N", 3, 8, 8)
    target = n.ints(-1, 32 * 16)
    left = n.gemm(n.node("Reshape", n.relu(n.conv(x, 32, stride=2)), target), 10)
    right = n.gemm(n.node("Reshape", n.relu(n.conv(x, 32, stride=2)), target), 10)
    return n.build(n.add(left, right))


@topology()
def flatten_of_a_concat() -> ir.Model:
    n = Net()
    x = _features(n)
    y = n.concat(n.relu(n.conv(x, 16)), n.node("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4))
    return n.build(n.gemm(n.node("Flatten", y), 10))


@topology()
def squeeze_after_pool() -> ir.Model:
    n = Net()
    x = n.node("Squeeze", n.node("GlobalAveragePool", _features(n)), n.ints(2, 3))
    x = n.node("Unsqueeze", n.relu(n.gemm(x, 48)), n.ints(2))
    return n.build(n.conv(x, 10, 1))


@topology()
def spatial_mean() -> ir.Model:
    n = Net()
    return n.build(n.gemm(n.mean(_features(n), 2, 3, keepdims=0), 10))


@topology()
def spatial_statistics() -> ir.Model:
    """Mean and maximum over the positions, concatenated; the axes of opset 18 are an input."""
    n = Net(18)
    x = n.reshape(_features(n, 48), 0, 48, -1)
    peak = n.node("ReduceMax", x, n.ints(-1), keepdims=0)
    return n.build(n.gemm(n.concat(n.mean(x, -1, keepdims=0), peak), 10))


@topology()
def constant_of_the_same_shape() -> ir.Model:
    """torch.ones_like: a constant whose shape, channels too, is read from the data."""
    n = Net()
    x = _features(n)
    ones = n.node("ConstantOfShape", n.node("Shape", x), value=_one(), shape=("N", 32, 4, 4))
    return n.build(n.conv(n.node("Sub", ones, n.node("Sigmoid", x)), 12))


@topology()
def zero_channels_concatenated() -> ir.Model:
    """Zeros of a baked width for each sample, concatenated to the channels."""
    n = Net()
    x = _features(n)
    batch = n.node("Slice", n.node("Shape", x), n.ints(0), n.ints(1), n.ints(0))
    zeros = n.node("ConstantOfShape", n.concat(batch, n.ints(16, 4, 4), axis=0), shape=("N", 16, 4, 4))
    return n.build(n.conv(n.relu(n.add(n.concat(x, zeros), n.small(48, 1, 1))), 12))


@topology()
def expand_to_a_baked_shape() -> ir.Model:
    """A gate for each channel, expanded to a constant shape that holds the channel count."""
    n = Net()
    x = _features(n)
    gate = n.node("Sigmoid", n.conv(n.node("GlobalAveragePool", x), 32, 1))
    return n.build(n.conv(n.mul(x, n.node("Expand", gate, n.ints(1, 32, 4, 4))), 12))


@topology()
def expand_of_one_channel() -> ir.Model:
    """One channel made into as many as there are, by a baked count."""
    n = Net()
    x = _features(n)
    mask = n.node("Sigmoid", n.conv(x, 1))
    return n.build(n.conv(n.mul(x, n.node("Expand", mask, n.ints(1, 32, 1, 1))), 12))


@topology()
def expand_to_the_shape_of_another() -> ir.Model:
    n = Net()
    x = _features(n)
    context = n.relu(n.conv(n.node("GlobalAveragePool", x), 32, 1))
    wide = n.node("Expand", context, n.node("Shape", x), shape=("N", 32, 4, 4))
    return n.build(n.conv(n.concat(x, wide), 12))


@topology()
def resize_sizes_with_channels() -> ir.Model:
    """Resize takes all four sizes, the channel count among them."""
    n = Net()
    x = _features(n)
    head = n.node("Slice", n.node("Shape", x), n.ints(0), n.ints(1), n.ints(0))
    sizes = n.concat(head, n.ints(32, 8, 8), axis=0)
    y = n.node("Resize", x, "", "", sizes, mode="nearest", shape=("N", 32, 8, 8))
    return n.build(n.conv(n.relu(y), 12))


@topology()
def resize_sizes_at_run_time() -> ir.Model:
    """F.interpolate(x, size=y.shape[2:]): N and C from x, the rest from y."""
    n = Net(13)
    y = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 24))
    x = n.relu(n.conv(y, 40, stride=2))
    channels = n.node("Slice", n.node("Shape", x), n.ints(0), n.ints(2), n.ints(0))
    places = n.node("Slice", n.node("Shape", y), n.ints(2), n.ints(4), n.ints(0))
    z = n.node("Resize", x, "", "", n.concat(channels, places, axis=0), mode="linear", shape=("N", 40, 8, 8))
    return n.build(n.conv(n.concat(z, y), 12))


def _one() -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(1, np.float32))
