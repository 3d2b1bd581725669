"""Convolutions one after the other, and what stands between them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.net import Net
from topologies.registry import topology


@topology()
def conv_relu_conv() -> ir.Model:
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 64))
    return n.build(n.conv(x, 16))


@topology()
def conv_bn_relu() -> ir.Model:
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 32))
    x = n.relu(n.conv_bn(x, 64, stride=2))
    return n.build(n.classifier(n.relu(n.conv_bn(x, 64))))


@topology()
def conv1d_chain() -> ir.Model:
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 16, 40), 64, 5))
    x = n.node("MaxPool", x, kernel_shape=[2], strides=[2])
    x = n.relu(n.bn(n.conv(x, 96, dilation=2)))
    return n.build(n.conv(x, 20, 1))


@topology()
def conv3d_chain() -> ir.Model:
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 2, 4, 6, 6), 24))
    x = n.node("AveragePool", x, kernel_shape=[1, 2, 2], strides=[1, 2, 2])
    return n.build(n.classifier(n.relu(n.conv_bn(x, 32))))


@topology()
def depthwise_separable() -> ir.Model:
    """MobileNetV1 (Howard et al. 2017)."""
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 12, 12), 32, stride=2))
    for out, stride in ((64, 1), (128, 2), (128, 1)):
        x = n.relu(n.conv_bn(x, n.width(x), stride=stride, group=n.width(x)))
        x = n.relu(n.conv_bn(x, out, 1))
    return n.build(n.classifier(x))


@topology()
def depthwise_multiplier_2() -> ir.Model:
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 32))
    x = n.relu(n.conv_bn(x, 64, group=32))
    return n.build(n.classifier(n.relu(n.conv(x, 48, 1))))


@topology()
def grouped_conv_4() -> ir.Model:
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 64))
    x = n.relu(n.conv_bn(x, 96, group=4))
    return n.build(n.classifier(n.relu(n.conv(x, 32))))


@topology()
def grouped_after_grouped() -> ir.Model:
    """Two group counts that don't divide the channels alike, one after the other."""
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 96))
    x = n.relu(n.conv(x, 96, group=4))
    x = n.relu(n.conv(x, 48, group=6))
    return n.build(n.conv(x, 8, 1))


@topology()
def deconv_chain() -> ir.Model:
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 6, 6), 48))
    x = n.relu(n.bn(n.deconv(x, 32)))
    return n.build(n.deconv(x, 3))


@topology()
def grouped_deconv() -> ir.Model:
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 6, 6), 64))
    x = n.relu(n.deconv(x, 32, group=4))
    return n.build(n.conv(x, 8))


@topology()
def depthwise_deconv() -> ir.Model:
    """Learned upsampling, channel by channel."""
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 6, 6), 48))
    x = n.relu(n.deconv(x, 48, group=48))
    return n.build(n.conv(x, 8))


@topology()
def deformable_conv() -> ir.Model:
    """DeformConv with offsets and mask from convolutions of the same input (Zhu et al. 2019)."""
    n = Net(19)
    x = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 32))
    offset = n.mul(n.conv(x, 18), n.scalar(0.1))
    mask = n.node("Sigmoid", n.conv(x, 9))
    y = n.node("DeformConv", x, n.weight(48, 32, 3, 3), offset, n.small(48), mask, kernel_shape=[3, 3], pads=[1] * 4)
    return n.build(n.conv(n.relu(y), 8, 1))


@topology()
def parametric_relu() -> ir.Model:
    n = Net()
    x = n.conv(n.input("x", "N", 3, 8, 8), 32)
    x = n.node("PRelu", x, n.positive(32, 1, 1))
    x = n.conv(x, 48)
    x = n.node("PRelu", x, n.positive(1, 1, 1))
    return n.build(n.classifier(x))


@topology()
def many_activations() -> ir.Model:
    n = Net()
    x = n.node("Clip", n.conv(n.input("x", "N", 3, 8, 8), 32), n.scalar(0.0), n.scalar(6.0))
    x = n.node("LeakyRelu", n.conv(x, 48), alpha=0.1)
    x = n.node("HardSwish", n.conv(x, 40))
    x = n.silu(n.conv(x, 32))
    x = n.mul(x, n.node("Tanh", n.node("Softplus", x)))  # Mish
    x = n.node("Elu", n.conv(x, 24))
    return n.build(n.classifier(n.node("HardSigmoid", n.conv(x, 32))))


@topology()
def activations_away_from_zero() -> ir.Model:
    """Sigmoid, Exp and Cos are not 0 at 0: a removed channel still had a value, which its readers' weights drop."""
    n = Net()
    x = n.node("Sigmoid", n.conv(n.input("x", "N", 3, 8, 8), 32))
    x = n.node("Exp", n.node("Tanh", n.conv(x, 32)))
    x = n.node("Cos", n.conv(x, 32))
    return n.build(n.classifier(x))


@topology()
def channel_constants() -> ir.Model:
    n = Net()
    x = n.mul(n.conv(n.input("x", "N", 3, 8, 8), 32), n.positive(1, 32, 1, 1))
    x = n.relu(n.add(x, n.small(32, 1, 1)))
    x = n.add(n.mul(n.conv(x, 48), n.scalar(0.5)), n.const(np.array([0.1], np.float32)))
    x = n.node("Div", n.node("Sub", x, n.small(1, 48, 1, 1)), n.positive(48, 1, 1))
    return n.build(n.classifier(n.node("Max", x, n.small(1, 48, 1, 1))))


@topology()
def position_constants() -> ir.Model:
    """A constant over all of [C, H, W], and one over [H, W] alone."""
    n = Net()
    x = n.add(n.conv(n.input("x", "N", 3, 8, 8), 32), n.small(1, 32, 8, 8))
    x = n.mul(n.relu(x), n.positive(8, 8))
    return n.build(n.classifier(n.conv(x, 32)))


@topology()
def where_mask() -> ir.Model:
    n = Net()
    mask = n.node("Greater", n.input("mask", "N", 1, 8, 8), n.scalar(0.0))
    x = n.conv(n.input("x", "N", 3, 8, 8), 48)
    x = n.node("Where", mask, x, n.scalar(0.0))
    y = n.conv(x, 32)
    y = n.node("Where", n.node("Less", y, n.small(32, 1, 1)), n.small(32, 1, 1), y)
    return n.build(n.classifier(n.relu(y)))


@topology()
def dropout_identity_cast() -> ir.Model:
    n = Net()
    x = n.node("Identity", n.relu(n.conv(n.input("x", "N", 3, 8, 8), 32)))
    x = n.node("Dropout", x, n.scalar(0.3))
    x = n.node("Cast", n.node("Cast", x, to=11), to=1)  # to double and back
    x = n.node("Identity", n.relu(n.conv(x, 48)))
    return n.build(n.classifier(n.node("Dropout", x)))


@topology()
def pools() -> ir.Model:
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 16, 16), 32))
    x = n.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    x = n.node("AveragePool", n.relu(n.conv(x, 48)), kernel_shape=[2, 2], strides=[2, 2])
    x = n.node("LpPool", n.relu(n.conv(x, 32)), kernel_shape=[2, 2], strides=[2, 2])
    x = n.node("GlobalMaxPool", n.conv(x, 64))
    return n.build(n.conv(x, 10, 1))


@topology()
def instance_norm() -> ir.Model:
    n = Net()
    x = n.conv(n.input("x", "N", 3, 8, 8), 32)
    x = n.relu(n.node("InstanceNormalization", x, n.positive(32), n.small(32)))
    return n.build(n.conv(x, 16))


@topology()
def constants_in_nodes() -> ir.Model:
    """Every weight in a Constant node, as PaddleOCR exports."""
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 32))
    model = n.build(n.classifier(n.relu(n.conv(x, 48))))
    for value in list(model.graph.initializers.values()):
        node = ir.node("Constant", [], {"value": value.const_value}, name=f"Constant_{value.name}")
        model.graph.insert_before(model.graph[0], node)
        constant = node.outputs[0]
        constant.shape, constant.type = value.shape, value.type
        value.replace_all_uses_with(constant)
        del model.graph.initializers[value.name or ""]
        constant.name = value.name
    return model


@topology()
def static_batch() -> ir.Model:
    """Every dimension is a number."""
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", 1, 3, 8, 8), 32))
    return n.build(n.classifier(n.relu(n.conv(x, 64))))


@topology()
def old_opset_13() -> ir.Model:
    n = Net(13)
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 32))
    left, right = n.nodes("Split", x, count=2, axis=1)
    return n.build(n.classifier(n.conv(n.mul(left, n.node("Sigmoid", right)), 32)))
