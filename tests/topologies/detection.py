"""Networks for dense prediction: encoders and decoders, pyramids, detection heads with their decoding."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.net import Net
from topologies.registry import topology


def _cbs(n: Net, x: str, out: int, k: int = 3, *, stride: int = 1) -> str:
    """YOLO's block with BatchNorm folded: convolution and SiLU."""
    return n.silu(n.conv(x, out, k, stride=stride))


def _up(n: Net, x: str) -> str:
    scales = n.const(np.array([1, 1, 2, 2], np.float32))
    return n.node("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric")


def _pyramid(n: Net) -> tuple[str, str, str]:
    """Three levels of features: 24, 48 and 96 channels at 8, 4 and 2 pixels."""
    a = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 24))
    b = n.relu(n.conv_bn(a, 48, stride=2))
    return a, b, n.relu(n.conv_bn(b, 96, stride=2))


@topology()
def unet_deconv() -> ir.Model:
    """Skips are concatenated after transposed convolutions (Ronneberger et al. 2015)."""
    n = Net(13)
    a, b, c = _pyramid(n)
    y = n.relu(n.conv_bn(n.concat(n.deconv(c, 48), b), 48))
    y = n.relu(n.conv_bn(n.concat(a, n.deconv(y, 24)), 24))
    return n.build(n.conv(y, 2, 1))


@topology()
def unet_resize() -> ir.Model:
    n = Net()
    a, b, c = _pyramid(n)
    y = n.relu(n.conv_bn(n.concat(_up(n, c), b), 48))
    y = n.relu(n.conv_bn(n.concat(_up(n, y), a), 24))
    return n.build(n.conv(y, 2, 1))


@topology()
def feature_pyramid() -> ir.Model:
    """Top-down additions after lateral 1x1 convolutions; a head on each level (Lin et al. 2017)."""
    n = Net(18)
    a, b, c = _pyramid(n)
    top = n.conv(c, 64, 1)
    middle = n.add(n.conv(b, 64, 1), _up(n, top))
    low = n.add(n.conv(a, 64, 1), _up(n, middle))
    return n.build(*(n.conv(n.relu(n.conv(level, 64)), 9) for level in (low, middle, top)))


@topology()
def path_aggregation() -> ir.Model:
    """Down the pyramid and up again, by concatenation (Liu et al. 2018, as in YOLO)."""
    n = Net(13)
    a, b, c = _pyramid(n)
    top = _cbs(n, c, 48, 1)
    middle = _cbs(n, n.concat(_up(n, top), b), 48)
    low = _cbs(n, n.concat(_up(n, middle), a), 32)
    middle = _cbs(n, n.concat(_cbs(n, low, 32, stride=2), middle), 48)
    top = _cbs(n, n.concat(_cbs(n, middle, 48, stride=2), top), 64)
    return n.build(*(n.conv(level, 12, 1) for level in (low, middle, top)))


@topology()
def yolo_focus() -> ir.Model:
    """Space to depth by four strided slices (YOLOv5), of the image and once more of features."""
    n = Net(13)

    def focus(x: str) -> str:
        rows = [n.slice(x, i, 2**62, axis=2, step=2) for i in (0, 1)]
        return n.concat(*(n.slice(row, j, 2**62, axis=3, step=2) for j in (0, 1) for row in rows))

    x = _cbs(n, focus(n.input("x", "N", 3, 16, 16)), 32)
    return n.build(n.classifier(_cbs(n, focus(x), 48)))


@topology()
def yolo_c2f() -> ir.Model:
    """YOLOv8: halves, bottlenecks on the last one, everything concatenated."""
    n = Net(18)
    x = _cbs(n, n.input("x", "N", 3, 8, 8), 64)
    parts = list(n.split(_cbs(n, x, 64, 1), 32, 32))
    for _ in range(2):
        parts.append(n.add(parts[-1], _cbs(n, _cbs(n, parts[-1], 32), 32)))
    return n.build(n.conv(_cbs(n, n.concat(*parts), 64, 1), 12, 1))


@topology()
def yolo_c2f_chunk() -> ir.Model:
    """The same with two Slices in the place of Split."""
    n = Net()
    x = _cbs(n, n.input("x", "N", 3, 8, 8), 64)
    parts = [n.slice(x, 0, 32), n.slice(x, 32, 64)]
    parts.append(n.add(parts[-1], _cbs(n, parts[-1], 32)))
    return n.build(n.conv(_cbs(n, n.concat(*parts), 64, 1), 12, 1))


@topology()
def yolo_csp() -> ir.Model:
    """YOLOv5 C3: a chain of bottlenecks beside a 1x1 convolution."""
    n = Net()
    x = _cbs(n, n.input("x", "N", 3, 8, 8), 48)
    y, z = _cbs(n, x, 24, 1), _cbs(n, x, 24, 1)
    for _ in range(2):
        y = n.add(y, _cbs(n, _cbs(n, y, 24, 1), 24))
    return n.build(n.conv(_cbs(n, n.concat(y, z), 48, 1), 12, 1))


@topology()
def yolo_decode() -> ir.Model:
    """YOLOv5's head with the decoding of boxes: 3 anchors × (4 + 1 + 3 classes) for each cell."""
    n = Net()
    x = _cbs(n, _cbs(n, n.input("x", "N", 3, 16, 16), 32, stride=2), 64)
    levels = []
    for size in (8, 4):
        y = n.transpose(n.reshape(n.conv(x, 24, 1), -1, 3, 8, size, size), 0, 1, 3, 4, 2)
        xy, wh, scores = n.split(n.node("Sigmoid", y), 2, 2, 4, axis=4)
        rows, columns = np.indices((size, size), np.float32)
        grid = n.const(np.stack([columns, rows], -1)[None, None] - 0.5)
        xy = n.mul(n.add(n.mul(xy, n.scalar(2.0)), grid), n.scalar(16 / size))
        wh = n.mul(n.node("Pow", n.mul(wh, n.scalar(2.0)), n.scalar(2.0)), n.positive(1, 3, 1, 1, 2))
        levels.append(n.reshape(n.concat(xy, wh, scores, axis=4), -1, 3 * size * size, 8))
        x = _cbs(n, x, 64, stride=2)
    return n.build(n.concat(*levels, axis=1))


@topology()
def yolo_distribution_head() -> ir.Model:
    """YOLOv8's head: boxes as the mean of a distribution, by Softmax and a fixed convolution (Li et al. 2020)."""
    n = Net()
    x = _cbs(n, n.input("x", "N", 3, 8, 8), 48)
    boxes = n.conv(_cbs(n, _cbs(n, x, 32), 32), 4 * 8, 1)
    classes = n.conv(_cbs(n, _cbs(n, x, 40), 40), 5, 1)
    both = n.reshape(n.concat(boxes, classes), 0, 37, -1)
    boxes, classes = n.split(both, 32, 5)
    spread = n.node("Softmax", n.transpose(n.reshape(boxes, 0, 4, 8, 64), 0, 2, 1, 3), axis=1)
    distance = n.node("Conv", spread, n.const(np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)))
    return n.build(n.concat(n.reshape(distance, 0, 4, 64), classes))


@topology()
def sppf() -> ir.Model:
    """Three max pools in a row, all concatenated."""
    n = Net()
    x = _cbs(n, _cbs(n, n.input("x", "N", 3, 8, 8), 64), 32, 1)
    parts = [x]
    for _ in range(3):
        parts.append(n.node("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2] * 4))
    return n.build(n.conv(_cbs(n, n.concat(*parts), 64, 1), 12, 1))


@topology()
def atrous_pyramid() -> ir.Model:
    """Convolutions of several dilations and the pooled image, concatenated (Chen et al. 2017)."""
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 48))
    parts = [n.relu(n.conv(x, 32, 1)), *(n.relu(n.conv(x, 32, dilation=d)) for d in (2, 3))]
    pooled = n.relu(n.conv(n.node("GlobalAveragePool", x), 32, 1))
    parts.append(n.node("Resize", pooled, "", n.const(np.array([1, 1, 8, 8], np.float32)), mode="linear"))
    return n.build(n.conv(n.relu(n.conv_bn(n.concat(*parts), 64, 1)), 5, 1))


@topology()
def images_of_any_size() -> ir.Model:
    """Height and width are symbols; the decoder takes the size of its skip from Shape."""
    n = Net()
    a = n.relu(n.conv_bn(n.input("x", "N", 3, "H", "W"), 24))
    b = n.relu(n.conv_bn(a, 40, stride=2))
    head, tail = n.slice(n.node("Shape", b), 0, 2, axis=0), n.slice(n.node("Shape", a), 2, 4, axis=0)
    up = n.node("Resize", b, "", "", n.concat(head, tail, axis=0), mode="linear", shape=("N", 40, "H", "W"))
    return n.build(n.conv(n.relu(n.conv(n.concat(up, a), 32)), 5, 1))


@topology()
def high_resolution_fusion() -> ir.Model:
    """Two resolutions, each added to the other (Sun et al. 2019)."""
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 32))
    high, low = n.relu(n.conv_bn(x, 24)), n.relu(n.conv_bn(x, 48, stride=2))
    for _ in range(2):
        fused = n.relu(n.add(high, _up(n, n.conv_bn(low, 24, 1))))
        low = n.relu(n.add(low, n.conv_bn(high, 48, stride=2)))
        high = fused
    return n.build(n.conv(high, 6, 1), n.conv(low, 6, 1))


@topology()
def head_fan_out() -> ir.Model:
    """Classes, boxes and centres from one feature map: three outputs."""
    n = Net()
    x = n.relu(n.conv_bn(n.relu(n.conv_bn(n.input("x", "N", 3, 8, 8), 48)), 64))
    return n.build(*(n.conv(n.relu(n.conv(x, 32)), out, 1) for out in (7, 4, 1)))


@topology()
def single_shot_detector() -> ir.Model:
    """Heads on two levels, transposed, flattened and concatenated over the boxes (Liu et al. 2016)."""
    n = Net(21)
    _, b, c = _pyramid(n)
    scores = [n.reshape(n.transpose(n.conv(level, 12), 0, 2, 3, 1), 0, -1, 4) for level in (b, c)]
    boxes = [n.reshape(n.transpose(n.conv(level, 12), 0, 2, 3, 1), 0, -1, 4) for level in (b, c)]
    return n.build(n.concat(*scores), n.concat(*boxes))


@topology()
def shared_head() -> ir.Model:
    """One head with the same weights on two levels (RetinaNet)."""
    n = Net()
    a, b, _ = _pyramid(n)
    first, second = n.weight(48, 40, 3, 3), n.weight(9, 48, 3, 3)
    outputs = []
    for level in (a, b):
        x = n.relu(n.node("Conv", n.conv(level, 40, 1), first, pads=[1] * 4))
        outputs.append(n.node("Conv", x, second, pads=[1] * 4))
    return n.build(*outputs)


@topology()
def coordinate_channels() -> ir.Model:
    """Two constant channels with the coordinates, made for the batch by Expand (Liu et al. 2018)."""
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 32))
    grid = n.const(np.stack(np.meshgrid(*[np.linspace(-1, 1, 8)] * 2))[None].astype(np.float32))
    batch = n.node("Slice", n.node("Shape", x), n.ints(0), n.ints(1), n.ints(0))
    grid = n.node("Expand", grid, n.concat(batch, n.ints(2, 8, 8), axis=0), shape=("N", 2, 8, 8))
    return n.build(n.classifier(n.relu(n.conv(n.concat(x, grid), 48))))


@topology()
def upsample_by_tile() -> ir.Model:
    """Nearest neighbours without Resize: Reshape, Tile, Reshape."""
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 4, 4), 32))
    y = n.node("Tile", n.reshape(x, -1, 32, 4, 1, 4, 1), n.ints(1, 1, 1, 2, 1, 2))
    return n.build(n.conv(n.reshape(y, -1, 32, 8, 8), 6))


@topology()
def upsample_by_expand() -> ir.Model:
    """The same by Unsqueeze and Expand to a baked shape."""
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 4, 4), 32))
    y = n.node("Expand", n.node("Unsqueeze", x, n.ints(3, 5)), n.ints(1, 32, 4, 2, 4, 2))
    return n.build(n.conv(n.reshape(y, -1, 32, 8, 8), 6))


@topology()
def segmentation_argmax() -> ir.Model:
    """The class of each pixel, and the scores behind it."""
    n = Net()
    a, b, _ = _pyramid(n)
    scores = n.conv(n.relu(n.conv(n.concat(a, _up(n, b)), 32)), 5, 1)
    return n.build(n.node("ArgMax", scores, axis=1, keepdims=0), scores)


@topology()
def channel_argmax() -> ir.Model:
    """ArgMax over hidden channels is an output: they stay."""
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 3, 8, 8), 32))
    hidden = n.conv(x, 24)
    return n.build(n.node("ArgMax", hidden, axis=1, keepdims=0), n.conv(n.relu(hidden), 6))


@topology()
def correlation_volume() -> ir.Model:
    """Features of two images against each other: MatMul of activations over the channels (optical flow, stereo)."""
    n = Net()
    first, second = n.weight(32, 3, 3, 3), n.weight(48, 32, 3, 3)
    features = []
    for name in ("left", "right"):
        x = n.relu(n.node("Conv", n.input(name, "N", 3, 6, 6), first, pads=[1] * 4))
        features.append(n.reshape(n.node("Conv", x, second, pads=[1] * 4), 0, 48, -1))
    volume = n.node("MatMul", n.transpose(features[0], 0, 2, 1), features[1])
    return n.build(n.mul(volume, n.scalar(48**-0.5)))
