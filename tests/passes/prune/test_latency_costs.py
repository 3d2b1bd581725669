"""The predicted latency follows the widths of the nodes, as the table times them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph

from onnxcomp.errors import ModelError
from onnxcomp.passes.prune.channel_costs import Axis
from onnxcomp.passes.prune.latency_costs import InputAxes, Modelled, latency_model, widths_of
from onnxcomp.runtime.cache import Cache
from onnxcomp.runtime.latency_surface import Width
from onnxcomp.runtime.node_latency import NodeTable
from onnxcomp.runtime.node_spec import NodeSpec, Port
from onnxcomp.runtime.session import SessionConfig

C0, C1 = Axis(32, ((0, 1),)), Axis(64, ((1, 1),))
TEXT = """g (float[1,3,8,8] x, float[32,3,3,3] w0, float[64,32,1,1] w1, float[64,1,3,3] w2) => (float[1,64,8,8] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0)
    r = Relu (a)
    b = Conv (r, w1)
    y = Conv <pads = [1, 1, 1, 1], group = 64> (b, w2)
}"""
SHAPES = {"x": (1, 3, 8, 8), "a": (1, 32, 8, 8), "r": (1, 32, 8, 8), "b": (1, 64, 8, 8), "y": (1, 64, 8, 8)}
AXES: InputAxes = {
    **dict.fromkeys(("a", "r"), (None, C0, None, None)),
    **dict.fromkeys(("b", "y"), (None, C1, None, None)),
    "w0": (C0, None, None, None),
    "w1": (C1, C0, None, None),
    "w2": (C1, None, None, None),
}


def arithmetic(spec: NodeSpec, config: SessionConfig) -> float:
    """A machine that spends 1 ms on every million of multiplications; a Relu is one for each value."""
    shapes = [port.shape for port in spec.inputs if port is not None]
    if spec.op_type == "NoKernel":
        raise ModelError("no kernel")
    pixels = int(np.prod(shapes[0][2:]))
    if spec.op_type == "Conv":
        group = dict(spec.attributes).get("group", 1)
        assert isinstance(group, int)
        assert shapes[0][1] == group * shapes[1][1], "a convolution that could not exist"
        return float(pixels * np.prod(shapes[1]) / 1e6)
    return float(np.prod(shapes[0]) / 1e6)


def modelled(model: ir.Model) -> Modelled:
    for i, node in enumerate(model.graph):
        node.name = f"n{i}"
        for value in node.outputs:
            value.dtype = ir.DataType.FLOAT
    table = NodeTable(SessionConfig(threads=1), Cache(None), arithmetic)
    return latency_model(model, SHAPES, AXES, [32, 64], table, unit=16)


@pytest.mark.parametrize("counts", [(32, 64), (16, 64), (32, 32), (16, 48), (16, 16)])
def test_the_prediction_is_the_sum_of_the_nodes_at_their_widths(counts: tuple[int, int]) -> None:
    first, second = counts
    expected = 64 * (first * 3 * 9 + first + first * second + second * 9) / 1e6
    made = modelled(graph(TEXT))
    assert made.left_out == ()
    assert made.costs.total(np.array(counts)) == pytest.approx(expected, rel=1e-9)


def test_a_node_that_can_not_be_timed_alone_is_left_out_and_named() -> None:
    made = modelled(graph(TEXT.replace("Relu", "NoKernel")))
    assert made.left_out == ("n1",)
    full, cut = (made.costs.total(np.array(c)) for c in ((32, 64), (16, 64)))
    assert cut < full


def test_a_node_whose_constants_count_channels_costs_the_same_at_every_width() -> None:
    text = """g (float[1,3,8,8] x, float[32,3,3,3] w0, int64[2] w_s) => (float[1,2048] y) {
        a = Conv <pads = [1, 1, 1, 1]> (x, w0)
        y = Reshape (a, w_s)
    }"""
    made = modelled(graph(text, w_s=np.array([1, 2048])))
    assert made.costs.total(np.array([16, 64])) == pytest.approx((64 * 16 * 27 + 2048) / 1e6)


def test_one_cell_on_both_sides_of_a_convolution_is_one_width() -> None:
    spec = NodeSpec("Conv", (Port((1, 32, 8, 8)), Port((32, 32, 3, 3), constant=True), Port((32,), constant=True)))
    held = widths_of(spec, [(None, C0, None, None), (C0, C0, None, None), (C0,)])
    assert held == {C0: Width(32, ((0, 1), (1, 0), (1, 1), (2, 0)))}


def test_groups_shrink_with_the_channels_of_a_depthwise_convolution_only() -> None:
    image, attributes = Port((1, 32, 8, 8)), (("group", 32),)
    depthwise = NodeSpec("Conv", (image, Port((32, 1, 3, 3), constant=True)), attributes)
    (width,) = widths_of(depthwise, [(None, C0, None, None), (C0, None, None, None)]).values()
    assert width == Width(32, ((0, 1), (1, 0)), ("group",))
    grouped = NodeSpec("Conv", (image, Port((64, 8, 3, 3), constant=True)), (("group", 4),))
    held = widths_of(grouped, [(None, Axis(32, ((0, 4),))), (C1, Axis(8, ((0, 1),)))])
    assert held == {Axis(32, ((0, 4),)): Width(32, ((0, 1), (1, 1))), C1: Width(64, ((1, 0),))}


def test_packed_gates_and_the_hidden_size_of_an_lstm_are_one_width() -> None:
    hidden, gates = Axis(16, ((0, 1),)), Axis(64, ((0, 4),))
    ports = (Port((5, 1, 8)), Port((1, 64, 8), constant=True), Port((1, 64, 16), constant=True))
    spec = NodeSpec("LSTM", ports, (("hidden_size", 16),))
    held = widths_of(spec, [(), (None, gates, None), (None, gates, hidden)])
    assert held == {gates: Width(64, ((1, 1), (2, 1), (2, 2)), ("hidden_size",))}
