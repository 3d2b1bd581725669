"""Residual networks and their kin: shortcuts, squeeze-and-excitation, dense and branched blocks."""

from __future__ import annotations

import onnx_ir as ir

from topologies.net import Net
from topologies.registry import topology


def _basic_block(n: Net, x: str, out: int, *, stride: int = 1, bn: bool = True) -> str:
    layer = n.conv_bn if bn else n.conv
    y = layer(n.relu(layer(x, out, 3, stride=stride)), out, 3)
    shortcut = x if stride == 1 and n.width(x) == out else layer(x, out, 1, stride=stride)
    return n.relu(n.add(y, shortcut))


def _resnet(*, bn: bool) -> ir.Model:
    """ResNet (He et al. 2015), two stages with identity and projection shortcuts."""
    n = Net()
    x = n.input("x", "N", 3, 12, 12)
    x = n.relu(n.conv_bn(x, 32) if bn else n.conv(x, 32))
    for out, stride in ((32, 1), (32, 1), (64, 2), (64, 1)):
        x = _basic_block(n, x, out, stride=stride, bn=bn)
    return n.build(n.classifier(x))


@topology()
def resnet_with_batch_norm() -> ir.Model:
    return _resnet(bn=True)


@topology()
def resnet_folded() -> ir.Model:
    return _resnet(bn=False)


@topology()
def resnet_option_a() -> ir.Model:
    """The shortcut without weights: every other pixel, and zeros for the new channels."""
    n = Net(13)
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 12, 12), 16))
    x = _basic_block(n, x, 16)
    for out in (32, 64):
        pad = (out - n.width(x)) // 2
        half = n.node("Slice", x, n.ints(0, 0), n.ints(2**62, 2**62), n.ints(2, 3), n.ints(2, 2))
        shortcut = n.node("Pad", half, n.ints(0, pad, 0, 0, 0, pad, 0, 0))
        y = n.conv_bn(n.relu(n.conv_bn(x, out, stride=2)), out)
        x = n.relu(n.add(y, shortcut))
    return n.build(n.classifier(x))


@topology()
def resnet_bottleneck() -> ir.Model:
    n = Net(18)
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 12, 12), 32))
    for width, out, stride in ((32, 128, 1), (32, 128, 1), (64, 256, 2)):
        y = n.relu(n.conv_bn(x, width, 1))
        y = n.conv_bn(n.relu(n.conv_bn(y, width, stride=stride)), out, 1)
        x = n.relu(n.add(y, x if n.width(x) == out else n.conv_bn(x, out, 1, stride=stride)))
    return n.build(n.classifier(x))


@topology()
def resnet_preactivation() -> ir.Model:
    """BatchNorm and Relu before each convolution: the stream itself is never normalised (He et al. 2016)."""
    n = Net()
    x = n.conv(n.input("x", "N", 3, 8, 8), 48)
    for _ in range(2):
        y = n.conv(n.relu(n.bn(x)), 48, bias=False)
        x = n.add(x, n.conv(n.relu(n.bn(y)), 48, bias=False))
    return n.build(n.classifier(n.relu(n.bn(x))))


@topology()
def resnext() -> ir.Model:
    """Grouped convolutions in the bottleneck (Xie et al. 2017)."""
    n = Net(21)
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 64))
    for _ in range(2):
        y = n.relu(n.conv_bn(x, 64, 1))
        y = n.conv_bn(n.relu(n.conv_bn(y, 64, group=8)), 64, 1)
        x = n.relu(n.add(x, y))
    return n.build(n.classifier(x))


@topology()
def repvgg_branches() -> ir.Model:
    """3x3, 1x1 and identity, each with its BatchNorm, added (Ding et al. 2021)."""
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 48))
    for _ in range(2):
        x = n.relu(n.node("Sum", n.conv_bn(x, 48), n.conv_bn(x, 48, 1), n.bn(x)))
    return n.build(n.classifier(x))


@topology()
def mobilenet_v2() -> ir.Model:
    """Inverted residuals (Sandler et al. 2018)."""
    n = Net(18)

    def relu6(x: str) -> str:
        return n.node("Clip", x, n.scalar(0.0), n.scalar(6.0))

    x = relu6(n.conv_bn(n.input("x", "N", 3, 12, 12), 16, stride=2))
    for out, stride in ((24, 1), (24, 1), (32, 2), (32, 1)):
        hidden = 4 * n.width(x)
        y = relu6(n.conv_bn(x, hidden, 1))
        y = n.conv_bn(relu6(n.conv_bn(y, hidden, stride=stride, group=hidden)), out, 1)
        x = n.add(x, y) if stride == 1 and n.width(x) == out else y
    return n.build(n.classifier(relu6(n.conv_bn(x, 128, 1))))


def _squeeze_excite(n: Net, x: str) -> str:
    gate = n.relu(n.conv(n.node("GlobalAveragePool", x), n.width(x) // 4, 1))
    return n.mul(x, n.node("HardSigmoid", n.conv(gate, n.width(x), 1), alpha=1 / 6, beta=0.5))


@topology()
def mobilenet_v3() -> ir.Model:
    """Inverted residuals with squeeze-and-excitation and HardSwish (Howard et al. 2019)."""
    n = Net()
    x = n.node("HardSwish", n.conv_bn(n.input("x", "N", 3, 12, 12), 16, stride=2))
    for out, hidden in ((24, 64), (24, 96)):
        y = n.node("HardSwish", n.conv_bn(x, hidden, 1))
        y = _squeeze_excite(n, n.node("HardSwish", n.conv_bn(y, hidden, 5, group=hidden)))
        y = n.conv_bn(y, out, 1)
        x = n.add(x, y) if n.width(x) == out else y
    x = n.node("GlobalAveragePool", n.node("HardSwish", n.conv_bn(x, 96, 1)))
    x = n.node("HardSwish", n.conv(x, 128, 1))
    return n.build(n.gemm(n.node("Flatten", x), 10))


@topology()
def squeeze_excite_gemm_reshape() -> ir.Model:
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 64))
    gate = n.relu(n.gemm(n.node("Flatten", n.node("GlobalAveragePool", x)), 16))
    gate = n.reshape(n.node("Sigmoid", n.gemm(gate, 64)), -1, 64, 1, 1)
    return n.build(n.classifier(n.relu(n.conv(n.mul(x, gate), 48))))


@topology()
def squeeze_excite_gemm_unsqueeze() -> ir.Model:
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 64))
    gate = n.relu(n.linear(n.mean(x, 2, 3, keepdims=0), 16))
    gate = n.node("Unsqueeze", n.node("Sigmoid", n.linear(gate, 64)), n.ints(2, 3))
    return n.build(n.classifier(n.relu(n.conv(n.mul(gate, x), 48))))


@topology()
def efficientnet_block() -> ir.Model:
    n = Net()
    x = n.silu(n.conv_bn(n.input("x", "N", 3, 8, 8), 24))
    for _ in range(2):
        y = n.silu(n.conv_bn(x, 96, 1))
        y = n.silu(n.conv_bn(y, 96, group=96))
        gate = n.silu(n.conv(n.mean(y, 2, 3), 8, 1))
        x = n.add(n.conv_bn(n.mul(y, n.node("Sigmoid", n.conv(gate, 96, 1))), 24, 1), x)
    return n.build(n.classifier(x))


@topology()
def selective_kernel() -> ir.Model:
    """Two branches weighed against each other, channel by channel, by a Softmax over the branches (Li et al. 2019)."""
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 32))
    a, b = n.relu(n.conv_bn(x, 48)), n.relu(n.conv_bn(x, 48, 5))
    squeezed = n.relu(n.conv_bn(n.node("GlobalAveragePool", n.add(a, b)), 16, 1))
    scores = n.reshape(n.conv(squeezed, 96, 1), 0, 2, 48, 1)
    weights = n.node("Softmax", scores, axis=1)
    first, second = n.split(weights, 1, 1, axis=1)
    first, second = (n.reshape(w, 0, 48, 1, 1) for w in (first, second))
    return n.build(n.classifier(n.add(n.mul(a, first), n.mul(b, second))))


@topology()
def densenet() -> ir.Model:
    """Every layer reads all before it (Huang et al. 2017)."""
    n = Net(13)
    x = n.conv(n.input("x", "N", 3, 8, 8), 32, bias=False)
    for _ in range(4):
        y = n.conv(n.relu(n.bn(x)), 64, 1, bias=False)
        x = n.concat(x, n.conv(n.relu(n.bn(y)), 16, bias=False))
    x = n.node("AveragePool", n.conv(n.relu(n.bn(x)), 48, 1), kernel_shape=[2, 2], strides=[2, 2])
    return n.build(n.classifier(n.relu(n.bn(x))))


@topology()
def inception() -> ir.Model:
    n = Net(13)
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 32))
    pooled = n.node("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
    branches = [
        n.conv_bn(x, 24, 1),
        n.conv_bn(n.relu(n.conv_bn(x, 16, 1)), 32),
        n.conv_bn(n.relu(n.conv_bn(x, 8, 1)), 16, 5),
        n.conv_bn(pooled, 16, 1),
    ]
    return n.build(n.classifier(n.relu(n.conv(n.concat(*map(n.relu, branches)), 64))))


@topology()
def shufflenet_v2() -> ir.Model:
    """Half of the channels pass, the other half is worked on, then both are interleaved (Ma et al. 2018)."""
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 64))
    for _ in range(2):
        kept, y = n.split(x, 32, 32)
        y = n.relu(n.conv_bn(y, 32, 1))
        y = n.relu(n.conv_bn(n.conv_bn(y, 32, group=32), 32, 1))
        x = n.reshape(n.concat(kept, y), -1, 2, 32, 8, 8)
        x = n.reshape(n.transpose(x, 0, 2, 1, 3, 4), -1, 64, 8, 8)
    return n.build(n.classifier(n.relu(n.conv_bn(x, 96, 1))))


@topology()
def shufflenet_v1() -> ir.Model:
    """Grouped 1x1 convolutions with a shuffle in between (Zhang et al. 2018)."""
    n = Net(20)
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 48))
    y = n.relu(n.conv_bn(x, 24, 1, group=3))
    y = n.reshape(n.transpose(n.reshape(y, 0, 3, 8, 8, 8), 0, 2, 1, 3, 4), 0, 24, 8, 8)
    y = n.conv_bn(n.conv_bn(y, 24, group=24), 48, 1, group=3)
    return n.build(n.classifier(n.relu(n.add(x, y))))


@topology()
def ghost_module() -> ir.Model:
    """Half of the channels by a cheap depthwise operation on the other half (Han et al. 2020)."""
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 32))
    for out in (64, 32):
        primary = n.relu(n.conv_bn(x, out // 2, 1))
        x = n.concat(primary, n.relu(n.conv_bn(primary, out // 2, group=out // 2)))
    return n.build(n.classifier(x))


@topology()
def res2net() -> ir.Model:
    """Each quarter of the channels is added to the next before its convolution (Gao et al. 2019)."""
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 64))
    parts = n.split(n.relu(n.conv_bn(x, 64, 1)), 16, 16, 16, 16)
    done = [parts[0], n.relu(n.conv_bn(parts[1], 16))]
    for part in parts[2:]:
        done.append(n.relu(n.conv_bn(n.add(part, done[-1]), 16)))
    return n.build(n.classifier(n.relu(n.add(x, n.conv_bn(n.concat(*done), 64, 1)))))


@topology(exact=False)
def convnext() -> ir.Model:
    """Depthwise 7x7, NHWC LayerNorm, MLP, layer scale, shortcut (Liu et al. 2022)."""
    n = Net()
    x = n.conv(n.input("x", "N", 3, 16, 16), 48, 5, stride=2)
    for _ in range(2):
        y = n.layer_norm(n.transpose(n.conv(x, 48, 7, group=48), 0, 2, 3, 1))
        y = n.linear(n.gelu(n.linear(y, 192)), 48)
        x = n.add(x, n.transpose(n.mul(y, n.positive(48)), 0, 3, 1, 2))
    pooled = n.layer_norm(n.mean(x, 2, 3, keepdims=0))
    return n.build(n.gemm(pooled, 10))
