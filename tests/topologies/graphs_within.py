"""Outputs inside the graph, and subgraphs that read values from around them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import helper

from topologies.net import Net
from topologies.registry import topology


def _stem(n: Net, out: int = 32) -> str:
    return n.relu(n.conv(n.input("x", "N", 3, 8, 8), out))


@topology()
def two_outputs() -> ir.Model:
    n = Net()
    x = n.relu(n.conv(_stem(n), 48))
    return n.build(n.classifier(x), n.conv(x, 4, 1))


@topology()
def output_used_inside() -> ir.Model:
    """A feature map is an output and goes on to the next layer: its channels stay."""
    n = Net()
    features = n.relu(n.conv(_stem(n), 24))
    return n.build(features, n.classifier(n.relu(n.conv(features, 32))))


@topology()
def input_added_to_the_output() -> ir.Model:
    """Residual image restoration: the ends of the shortcut are the model's own input and output."""
    n = Net()
    x = n.input("x", "N", 3, 8, 8)
    y = n.relu(n.conv(n.relu(n.conv(x, 48)), 32))
    return n.build(n.add(x, n.conv(y, 3)))


@topology()
def input_concatenated() -> ir.Model:
    """The input's channels stand beside hidden ones."""
    n = Net()
    x = n.input("x", "N", 5, 8, 8)
    return n.build(n.conv(n.relu(n.conv(n.concat(n.relu(n.conv(x, 43)), x), 32)), 12))


@topology()
def wide_input() -> ir.Model:
    """An input of 64 channels that is added to hidden ones: all of them stay."""
    n = Net()
    x = n.input("x", "N", 64, 4, 4)
    y = n.relu(n.conv(n.relu(n.conv(x, 96, 1)), 64))
    return n.build(n.classifier(n.relu(n.conv(n.add(x, y), 48))))


@topology()
def if_with_captured_value() -> ir.Model:
    """Both branches read the same feature map from outside, with weights of their own."""
    n = Net()
    free = n.relu(n.conv(_stem(n), 48))
    captured = n.relu(n.conv(free, 32))
    condition = n.node("Greater", n.mean(n.input("s", 1), 0, keepdims=0), n.scalar(0.0))
    branches = {}
    for name, k in (("then_branch", 3), ("else_branch", 1)):
        inner = Net(parent=n)
        branches[name] = inner.subgraph(name, inner.relu(inner.conv(captured, 40, k)))
    y = n.node("If", condition, shape=("N", 40, 8, 8), **branches)
    return n.build(n.classifier(n.relu(n.conv(y, 24))))


@topology()
def loop_with_captured_value() -> ir.Model:
    """Three steps of x = relu(conv(x)) + captured."""
    n = Net()
    free = n.relu(n.conv(_stem(n), 48))
    start = n.relu(n.conv(free, 32))
    inner = Net(parent=n)
    inner.input("step", dtype=np.int64)
    going = inner.input("going", dtype=np.bool_)
    state = inner.input("state", "N", 32, 8, 8)
    new = inner.add(inner.relu(inner.mul(inner.conv(state, 32), inner.scalar(0.3))), start)
    body = inner.subgraph("body", inner.node("Identity", going), new)
    y = n.node("Loop", n.const(np.array(3)), n.const(np.array(True)), start, body=body, shape=("N", 32, 8, 8))
    return n.build(n.classifier(n.relu(n.conv(y, 24))))


@topology()
def scan_over_time() -> ir.Model:
    """A recurrence written as Scan: its body holds the weights."""
    n = Net()
    x = n.linear(n.input("x", 8, "N", 24), 32)
    batch = n.slice(n.node("Shape", x), 1, 2, axis=0)
    start = n.node("Expand", n.scalar(0.0), n.concat(batch, n.ints(32), axis=0), shape=("N", 32))
    inner = Net(parent=n)
    state, step = inner.input("state", "N", 32), inner.input("step", "N", 32)
    new = inner.node("Tanh", inner.add(step, inner.linear(state, 32)))
    body = inner.subgraph("body", new, inner.node("Identity", new))
    _, y = n.nodes("Scan", start, x, count=2, body=body, num_scan_inputs=1, shape=("N", 32))
    n.types[y] = helper.make_tensor_type_proto(1, (8, "N", 32))
    return n.build(n.linear(n.relu(n.linear(y, 48)), 10))


@topology(tolerance=2e-3)
def half_precision_middle() -> ir.Model:
    """float16 weights between two Casts."""
    n = Net()
    x = n.node("Cast", _stem(n), to=10)
    weight = n.const((n.rng.standard_normal((48, 32, 3, 3)) / 17).astype(np.float16))
    x = n.node("Relu", n.node("Conv", x, weight, pads=[1] * 4))
    return n.build(n.classifier(n.node("Cast", x, to=1)))
