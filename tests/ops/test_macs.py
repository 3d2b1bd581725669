"""MACs against numbers worked out by hand."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from graphs import graph

from onnxcomp.model import shapes
from onnxcomp.model.cost import cost
from onnxcomp.ops.macs import macs, static_shape


def _macs(text: str) -> int | None:
    model = graph(text)
    shapes.refresh(model)
    return macs(model.graph[-1])


def _tensor(name: str, *shape: int) -> ir.Value:
    return ir.val(name, ir.DataType.FLOAT, shape)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("g (float[2,3,8,8] x, float[4,3,3,3] w) => (float[2,4,6,6] y) { y = Conv(x, w) }", 2 * 4 * 36 * 27),
        ("g (float[1,6,8,8] x, float[6,1,3,3] w) => (float[1,6,8,8] y) { y = Conv<group=6, pads=[1,1,1,1]>(x, w) }",
         6 * 64 * 9),
        ("g (float[1,4,5] x, float[4,3,2] w) => (float[1,6,6] y) { y = ConvTranspose<group=2>(x, w) }", 4 * 5 * 6),
        ("g (float[2,5,3] x, float[3,7] w) => (float[2,5,7] y) { y = MatMul(x, w) }", 2 * 5 * 7 * 3),
        ("g (float[3] x, float[3,7] w) => (float[7] y) { y = MatMul(x, w) }", 21),
        ("g (float[3] x, float[3] w) => (float y) { y = MatMul(x, w) }", 3),
        ("g (float[3,5] x, float[3,7] w) => (float[5,7] y) { y = Gemm<transA=1>(x, w) }", 5 * 7 * 3),
        ("g (float[5,3] x, float[7,3] w) => (float[5,7] y) { y = Gemm<transB=1>(x, w) }", 5 * 7 * 3),
        ('g (float[2,3,4] x, float[2,4,5] w) => (float[2,3,5] y) { y = Einsum<equation="bij, bjk->bik">(x, w) }',
         2 * 3 * 4 * 5),
        ("g (float[7,2,3] x, float[1,16,3] w, float[1,16,4] w1) => (float[7,1,2,4] y) "
         "{ y = LSTM<hidden_size=4>(x, w, w1) }", 7 * 2 * (16 * 3 + 16 * 4)),
        ("g (uint8[1,2,4,4] x, float s, uint8 z, uint8[3,2,1,1] k) => (uint8[1,3,4,4] y) "
         "{ y = QLinearConv(x, s, z, k, s, z, s, z) }", 3 * 16 * 2),
        ("g (uint8[2,4] x, float s, uint8 z, uint8[4,3] k) => (uint8[2,3] y) "
         "{ y = QLinearMatMul(x, s, z, k, s, z, s, z) }", 2 * 3 * 4),
        ("g (uint8[1,2,4,4] x, uint8[3,2,1,1] k) => (int32[1,3,4,4] y) { y = ConvInteger(x, k) }", 3 * 16 * 2),
        ("g (uint8[2,4] x, uint8[4,3] k) => (int32[2,3] y) { y = MatMulInteger(x, k) }", 24),
        ("g (float[2,4] x) => (float[2,4] y) { y = Relu(x) }", 0),
    ],
)  # fmt: skip
def test_the_count_is_that_of_the_hand(text, expected):
    assert _macs(text) == expected


@pytest.mark.parametrize(
    ("op_type", "attributes", "shapes_in", "out", "expected"),
    [
        ("FusedMatMul", {"transA": 1}, [(3, 5), (3, 7)], (5, 7), 105),
        ("QGemm", {"transA": 1}, [(3, 5), (), (), (3, 7)], (5, 7), 105),
        ("FusedConv", {}, [(1, 2, 4, 4), (3, 2, 1, 1)], (1, 3, 4, 4), 96),
        ("MatMulNBits", {}, [(2, 8), (6, 1, 4)], (2, 6), 96),
        ("MatMulIntegerToFloat", {}, [(2, 4), (4, 3)], (2, 3), 24),
        ("Attention", {}, [(1, 8, 16)], (1, 8, 16), None),
    ],
)
def test_contrib_operators_count_as_what_they_stand_for(op_type, attributes, shapes_in, out, expected):
    inputs = [_tensor(f"i{k}", *shape) for k, shape in enumerate(shapes_in)]
    node = ir.node(op_type, inputs, attributes, domain="com.microsoft")
    node.outputs[0].shape = ir.Shape(out)
    assert macs(node) == expected


@pytest.mark.parametrize(
    "text",
    [
        "g (float[N,3] x, float[3,4] w) => (float[N,4] y) { y = MatMul(x, w) }",
        'g (float[2,3] x, float[3,4] w) => (float[2,4] y) { y = Einsum<equation="...j,jk">(x, w) }',
    ],
)
def test_an_unknown_size_is_unknown_and_not_zero(text):
    assert _macs(text) is None


def test_the_shape_of_a_missing_input_is_unknown():
    assert static_shape(None) is None
    assert static_shape(ir.val("x")) is None


def test_mobilenet_like_block_adds_up_at_bound_shapes():
    model = graph("""g (float[N,8,h,v] x, float[16,8,1,1] w1, float[16,1,3,3] w2, float[8,16,1,1] w3) =>
        (float[N,8,h,v] y) {
        a = Conv(x, w1) b = Conv<group=16, pads=[1,1,1,1]>(a, w2) y = Conv(b, w3) }""")
    assert cost(model).macs_unknown == 3
    found = cost(model, {"x": (2, 8, 10, 10)})
    assert found.macs == 2 * 100 * (16 * 8 + 16 * 9 + 8 * 16)
    assert found.macs_unknown == 0
