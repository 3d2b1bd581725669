"""Operators that come up now and then, and channels in places where one doesn't expect them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.attention import self_attention
from topologies.net import Net
from topologies.registry import topology


def _stem(n: Net, out: int = 32) -> str:
    return n.relu(n.conv(n.input("x", "N", 3, 8, 8), out))


@topology()
def channels_in_the_batch() -> ir.Model:
    """One blur for every channel: the channels are folded into the batch and back."""
    n = Net()
    x = n.conv(n.reshape(_stem(n), -1, 1, 8, 8), 1, 3)
    return n.build(n.classifier(n.relu(n.conv(n.reshape(x, -1, 32, 8, 8), 48))))


@topology(exact=False)
def mix_transformer() -> ir.Model:
    """Tokens go back to an image for a depthwise convolution inside the MLP; keys are strided (Xie et al. 2021)."""
    n = Net()
    x = n.conv(n.input("x", "N", 3, 8, 8), 48, stride=2)
    x = n.transpose(n.reshape(x, 0, 48, -1), 0, 2, 1)
    x = n.add(x, self_attention(n, n.layer_norm(x), heads=4))
    y = n.linear(n.layer_norm(x), 96)
    y = n.reshape(n.transpose(y, 0, 2, 1), 0, 96, 4, 4)
    y = n.transpose(n.reshape(n.conv(y, 96, group=96), 0, 96, -1), 0, 2, 1)
    x = n.layer_norm(n.add(x, n.linear(n.gelu(y), 48)))
    return n.build(n.conv(n.reshape(n.transpose(x, 0, 2, 1), 0, 48, 4, 4), 5, 1))


@topology()
def coordinate_attention() -> ir.Model:
    """Pooled rows and columns share a convolution, part again, and multiply as an outer product (Hou et al. 2021)."""
    n = Net()
    x = n.relu(n.conv(_stem(n), 48))
    rows, columns = n.mean(x, 3), n.transpose(n.mean(x, 2), 0, 1, 3, 2)
    y = n.node("HardSwish", n.conv_bn(n.concat(rows, columns, axis=2), 16, 1))
    rows, columns = n.split(y, 8, 8, axis=2)
    rows = n.node("Sigmoid", n.conv(rows, 48, 1))
    columns = n.node("Sigmoid", n.conv(n.transpose(columns, 0, 1, 3, 2), 48, 1))
    return n.build(n.classifier(n.mul(n.mul(x, rows), columns)))


@topology()
def outer_product_of_axes() -> ir.Model:
    """[N, C, 1, 1] times [N, 1, H, W]: only one of the two carries channels."""
    n = Net()
    x = _stem(n)
    channels = n.relu(n.conv(n.node("GlobalAveragePool", x), 48, 1))
    return n.build(n.classifier(n.relu(n.conv(n.mul(channels, n.conv(x, 1)), 24))))


@topology()
def variadic_mean_and_minimum() -> ir.Model:
    n = Net()
    x = _stem(n)
    y = n.node("Mean", n.conv(x, 48), n.conv(x, 48, 1), n.small(48, 1, 1))
    return n.build(n.classifier(n.node("Min", n.conv(y, 40), n.conv(y, 40, 1))))


@topology()
def lists_of_tensors() -> ir.Model:
    """SplitToSequence, SequenceAt and ConcatFromSequence, left over from exported Python lists."""
    n = Net()
    parts = n.node("SplitToSequence", _stem(n, 48), n.const(np.array(16)), axis=1)
    first, last = (n.node("SequenceAt", parts, n.const(np.array(i))) for i in (0, 2))
    both = n.node("SequenceConstruct", first, last)
    y = n.node("ConcatFromSequence", both, axis=1, shape=("N", 32, 8, 8))
    return n.build(n.classifier(n.relu(n.conv(y, 40))))


@topology()
def sampled_grid() -> ir.Model:
    """GridSample at places that a convolution predicts (spatial transformer)."""
    n = Net()
    x = _stem(n)
    flow = n.transpose(n.node("Tanh", n.conv(x, 2)), 0, 2, 3, 1)
    y = n.node("GridSample", n.conv(x, 40), flow, align_corners=1)
    return n.build(n.classifier(n.relu(n.conv(y, 24))))


@topology()
def regions_of_interest() -> ir.Model:
    """RoiAlign on boxes that are an input (second stage of a detector)."""
    n = Net()
    x = n.relu(n.conv(n.relu(n.conv(n.input("x", 1, 3, 8, 8), 32)), 40))
    boxes = n.mul(n.node("Abs", n.input("boxes", 5, 4)), n.const(np.array([1, 1, 4, 4], np.float32)))
    index = n.const(np.zeros(5, np.int64))
    y = n.node("RoiAlign", x, boxes, index, output_height=3, output_width=3, sampling_ratio=1, shape=(5, 40, 3, 3))
    return n.build(n.gemm(n.relu(n.gemm(n.node("Flatten", y), 48)), 4))


@topology()
def pooled_and_unpooled() -> ir.Model:
    """MaxPool's second output, the places of the maxima, counts through all channels: MaxUnpool needs them."""
    n = Net()
    x = n.relu(n.conv(_stem(n), 24))
    y, places = n.nodes("MaxPool", x, count=2, kernel_shape=[2, 2], strides=[2, 2])
    y = n.node("MaxUnpool", y, places, kernel_shape=[2, 2], strides=[2, 2])
    return n.build(n.conv(n.relu(n.conv(y, 32)), 3))


@topology()
def scattered_channels() -> ir.Model:
    """ScatterND writes 16 channels over the first 16 of 48 (in-place assignment in PyTorch)."""
    n = Net()
    x = n.transpose(n.input("x", "N", 20), 1, 0)
    x = n.relu(n.add(n.node("MatMul", n.weight(48, 20), x), n.small(48, 1)))
    update = n.relu(n.node("MatMul", n.weight(16, 48), x))
    y = n.node("ScatterND", x, n.const(np.arange(16)[:, None]), update)
    return n.build(n.transpose(n.node("MatMul", n.weight(10, 48), y), 1, 0))


@topology()
def elements_gathered() -> ir.Model:
    """GatherElements with constant indices over all of [C, H, W] locks the channels; those before stay free."""
    n = Net()
    x = n.reshape(n.relu(n.conv(n.input("x", 1, 3, 8, 8), 32)), 1, 32, 64)
    x = n.relu(n.conv(x, 24, 1))
    y = n.node("GatherElements", x, n.const(n.rng.integers(0, 24, (1, 24, 64))), axis=1)
    return n.build(n.conv(y, 10, 1))


@topology()
def reversed_sequence() -> ir.Model:
    """ReverseSequence over the steps of each sample leaves the features alone."""
    n = Net()
    x = n.relu(n.linear(n.input("x", 10, "N", 24), 48))
    length = n.node("Expand", n.const(np.array([6])), n.slice(n.node("Shape", x), 1, 2, axis=0))
    y = n.node("ReverseSequence", x, length, batch_axis=1, time_axis=0)
    return n.build(n.linear(n.relu(n.linear(n.add(x, y), 32)), 10))


@topology()
def triangle_of_scores() -> ir.Model:
    """Trilu on the last two axes, which are positions."""
    n = Net()
    x = n.linear(n.input("x", "N", 8, 24), 64)
    scores = n.node("Trilu", n.node("MatMul", x, n.transpose(n.linear(x, 64), 0, 2, 1)), upper=0)
    y = n.node("MatMul", n.mul(scores, n.scalar(0.02)), n.linear(x, 48))
    return n.build(n.linear(n.relu(y), 10))


@topology()
def one_hot_categories() -> ir.Model:
    """OneHot instead of an embedding: its width is part of the input's meaning."""
    n = Net()
    ids = n.input("ids", "N", 5, dtype=np.int64)
    values = n.const(np.array([0, 1], np.float32))
    x = n.node("OneHot", ids, n.const(np.array(24)), values, axis=-1, shape=("N", 5, 24))
    x = n.relu(n.linear(x, 64))
    return n.build(n.linear(n.relu(n.linear(n.mean(x, 1, keepdims=0), 48)), 10))


@topology()
def padding_by_name() -> ir.Model:
    """auto_pad SAME_UPPER, VALID pooling, ceil_mode: attributes that must survive."""
    n = Net()
    x = n.input("x", "N", 3, 9, 9)
    x = n.relu(n.node("Conv", x, n.weight(32, 3, 3, 3), n.small(32), auto_pad="SAME_UPPER", strides=[2, 2]))
    x = n.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    x = n.relu(n.node("Conv", x, n.weight(48, 32, 2, 2), n.small(48), auto_pad="VALID"))
    return n.build(n.classifier(x))


@topology()
def a_branch_that_nobody_reads() -> ir.Model:
    n = Net()
    x = _stem(n)
    n.node("Softmax", n.conv(x, 24), axis=1)
    return n.build(n.classifier(n.relu(n.conv(x, 40))))


@topology()
def masks_of_booleans() -> ir.Model:
    """A mask by comparison: booleans cast to float carry channels too."""
    n = Net()
    x = n.conv(_stem(n), 40)
    kept = n.node("Cast", n.node("Greater", x, n.small(40, 1, 1)), to=1)
    both = n.node("And", n.node("Less", x, n.scalar(1.0)), n.node("Not", n.node("Less", x, n.scalar(-1.0))))
    y = n.node("Where", both, n.mul(x, kept), n.scalar(0.1))
    return n.build(n.classifier(n.relu(n.conv(y, 24))))
