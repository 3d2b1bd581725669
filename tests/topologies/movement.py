"""Channels on the move: slices, gathers, shuffles, tiles, pads, blocks of pixels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from topologies.net import Net
from topologies.registry import topology


def _stem(n: Net, out: int = 64) -> str:
    return n.relu(n.conv(n.input("x", "N", 3, 8, 8), out))


@topology()
def two_slices_multiplied() -> ir.Model:
    """SimpleGate of NAFNet."""
    n = Net()
    x = _stem(n)
    return n.build(n.conv(n.mul(n.slice(x, 0, 32), n.slice(x, 32, 64)), 12))


@topology()
def overlapping_slices() -> ir.Model:
    n = Net()
    x = _stem(n)
    return n.build(n.conv(n.add(n.slice(x, 0, 40), n.slice(x, 24, 64)), 12))


@topology()
def slices_from_the_end() -> ir.Model:
    """Negative starts and ends, an end beyond the axis, int32 indices."""
    n = Net()
    x = _stem(n)
    tail = n.slice(x, -24, 2**62)
    head = n.node("Slice", x, *(n.const(np.array([v], np.int32)) for v in (0, -40, 1)))
    return n.build(n.conv(n.mul(head, tail), 12))


@topology()
def every_other_channel() -> ir.Model:
    """Strided slices of the channels, and their order turned around."""
    n = Net()
    x = _stem(n)
    even, odd = n.slice(x, 0, 64, step=2), n.slice(x, 1, 64, step=2)
    turned = n.slice(odd, -1, -(2**62), step=-1)
    return n.build(n.conv(n.concat(even, turned), 12))


@topology()
def gather_permutation() -> ir.Model:
    n = Net(13)
    x = n.node("Gather", _stem(n), n.const(n.rng.permutation(64)), axis=1)
    return n.build(n.conv(n.relu(n.conv(x, 32)), 12))


@topology()
def gather_half() -> ir.Model:
    """Half of the channels is never read."""
    n = Net()
    x = n.node("Gather", _stem(n), n.const(n.rng.permutation(64)[:32]), axis=1)
    return n.build(n.conv(x, 12))


@topology()
def gather_one_channel() -> ir.Model:
    """A scalar index takes the axis away; the channel that it names is needed."""
    n = Net()
    x = _stem(n)
    mask = n.node("Unsqueeze", n.node("Gather", x, n.const(np.array(5)), axis=1), n.ints(1))
    return n.build(n.conv(n.mul(x, n.node("Sigmoid", mask)), 12))


@topology()
def gather_with_repeats() -> ir.Model:
    n = Net()
    x = n.node("Gather", _stem(n, 32), n.const(np.repeat(np.arange(32), 2)), axis=1)
    return n.build(n.conv(x, 12))


@topology()
def padded_channels() -> ir.Model:
    """A shortcut whose missing channels are zeros."""
    n = Net(13)
    x = _stem(n, 32)
    shortcut = n.node("Pad", x, n.ints(0, 8, 0, 0, 0, 24, 0, 0))
    return n.build(n.conv(n.relu(n.add(n.conv(x, 64), shortcut)), 12))


@topology()
def reflected_border() -> ir.Model:
    """Padding of the positions by reflection, channels untouched."""
    n = Net()
    x = n.node("Pad", _stem(n, 32), n.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    y = n.node("Conv", x, n.weight(48, 32, 3, 3), n.small(48))
    return n.build(n.conv(n.relu(y), 12))


@topology()
def tiled_channels() -> ir.Model:
    n = Net()
    x = n.node("Tile", _stem(n, 24), n.ints(1, 3, 1, 1))
    return n.build(n.conv(n.mul(x, n.positive(72, 1, 1)), 12))


@topology()
def concat_of_two_widths() -> ir.Model:
    """BatchNorm over the concatenation of 48 and 24 channels."""
    n = Net()
    x = _stem(n)
    y = n.relu(n.bn(n.concat(n.conv(x, 48), n.conv(x, 24, 1))))
    return n.build(n.classifier(y))


@topology()
def concat_with_itself() -> ir.Model:
    n = Net()
    x = _stem(n, 32)
    return n.build(n.conv(n.concat(x, n.node("Neg", x), x), 12))


@topology()
def concat_then_split_elsewhere() -> ir.Model:
    """40 + 24 channels concatenated, then parted as 16 + 48."""
    n = Net()
    x = _stem(n)
    a, b = n.split(n.concat(n.conv(x, 40), n.conv(x, 24)), 16, 48)
    return n.build(n.add(n.conv(n.relu(a), 12), n.conv(n.relu(b), 12)))


@topology()
def split_of_three() -> ir.Model:
    """Equal parts without sizes (opset 18), one of which is not read."""
    n = Net(18)
    a, b, _ = n.nodes("Split", _stem(n, 48), count=3, axis=1, num_outputs=3)
    return n.build(n.conv(n.mul(a, n.node("Sigmoid", b)), 12))


@topology()
def channel_shuffle() -> ir.Model:
    n = Net()
    x = n.reshape(_stem(n), 0, 4, 16, 8, 8)
    x = n.reshape(n.transpose(x, 0, 2, 1, 3, 4), 0, 64, 8, 8)
    return n.build(n.conv(n.relu(n.conv(x, 64, group=4)), 12))


def _pixel_shuffle(mode: str) -> ir.Model:
    n = Net()
    x = n.node("DepthToSpace", n.conv(_stem(n), 96), blocksize=2, mode=mode)
    return n.build(n.conv(n.relu(x), 3))


@topology()
def pixel_shuffle_dcr() -> ir.Model:
    return _pixel_shuffle("DCR")


@topology()
def pixel_shuffle_crd() -> ir.Model:
    return _pixel_shuffle("CRD")


@topology()
def pixel_shuffle_by_reshape() -> ir.Model:
    n = Net(18)
    x = n.reshape(n.conv(_stem(n), 96), 0, 24, 2, 2, 8, 8)
    x = n.reshape(n.transpose(x, 0, 1, 4, 2, 5, 3), 0, 24, 16, 16)
    return n.build(n.conv(n.relu(x), 3))


@topology()
def super_resolution() -> ir.Model:
    """The last convolution feeds the pixel shuffle into the output: only what comes before is free."""
    n = Net()
    x = n.relu(n.conv(_stem(n, 32), 32))
    return n.build(n.node("DepthToSpace", n.conv(x, 12), blocksize=2, mode="CRD"))


@topology()
def space_to_depth() -> ir.Model:
    n = Net()
    x = n.node("SpaceToDepth", _stem(n, 24), blocksize=2)
    return n.build(n.conv(n.relu(n.conv(x, 32)), 12))


@topology()
def maxout() -> ir.Model:
    """The larger of each pair of channels (Goodfellow et al. 2013)."""
    n = Net()
    x = n.reshape(n.conv(_stem(n), 64), 0, 32, 2, 8, 8)
    return n.build(n.conv(n.node("ReduceMax", x, axes=[2], keepdims=0), 12))


@topology()
def channels_last() -> ir.Model:
    """A TensorFlow export: NHWC between convolutions, each in a pair of Transposes; the bias is added in NHWC."""
    n = Net(18)
    x = n.input("x", "N", 8, 8, 3)
    for out in (32, 48, 10):
        y = n.transpose(n.conv(n.transpose(x, 0, 3, 1, 2), out, bias=False), 0, 2, 3, 1)
        x = n.add(y, n.small(out)) if out == 10 else n.relu(n.add(y, n.small(out)))
    return n.build(n.mean(x, 1, 2, keepdims=0))


@topology()
def conv1d_as_conv2d() -> ir.Model:
    n = Net()
    x = n.node("Unsqueeze", n.input("x", "N", 8, 32), n.ints(2))
    for out in (48, 32):
        x = n.node("Conv", x, n.weight(out, n.width(x), 1, 5), n.small(out), pads=[0, 2, 0, 2])
        x = n.relu(x)
    return n.build(n.conv(n.node("Squeeze", x, n.ints(2)), 12, 1))


@topology()
def space_to_batch() -> ir.Model:
    """Positions folded into the batch and back, by Reshape and Transpose."""
    n = Net()
    x = n.transpose(n.reshape(_stem(n, 32), -1, 32, 4, 2, 4, 2), 0, 3, 5, 1, 2, 4)
    x = n.relu(n.conv(n.reshape(x, -1, 32, 4, 4), 48))
    x = n.transpose(n.reshape(x, -1, 2, 2, 48, 4, 4), 0, 3, 4, 1, 5, 2)
    return n.build(n.conv(n.reshape(x, -1, 48, 8, 8), 12))


@topology()
def temporal_shift() -> ir.Model:
    """Some channels move one step in time (Lin et al. 2019): slices along two axes, padded and concatenated."""
    n = Net()
    x = n.relu(n.conv(n.input("x", "N", 6, 16), 32, 1))
    ahead = n.node("Pad", n.slice(n.slice(x, 0, 8), 1, 2**62, axis=2), n.ints(0, 0, 0, 0, 0, 1))
    behind = n.node("Pad", n.slice(n.slice(x, 8, 16), 0, -1, axis=2), n.ints(0, 0, 1, 0, 0, 0))
    return n.build(n.conv(n.concat(ahead, behind, n.slice(x, 16, 32)), 10))
