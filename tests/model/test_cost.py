"""Weights are counted by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from graphs import graph

from onnxcomp.model.cost import constants, cost, subgraph_share


def test_a_tied_weight_counts_once():
    model = graph("g (float[N,4] x, float[4,4] w) => (float[N,4] y) { a = MatMul(x, w) y = MatMul(a, w) }")
    assert cost(model).parameters == 16


def test_two_names_of_one_tensor_count_once():
    model = graph(
        "g (float[N,4] x, float[4,4] w1, float[4,4] w2) => (float[N,4] y) { a = MatMul(x, w1) y = MatMul(a, w2) }"
    )
    model.graph.initializers["w2"].const_value = model.graph.initializers["w1"].const_value
    assert cost(model).parameters == 16


def test_integer_constants_are_no_parameters():
    text = "g (float[2,8] x, int64[2] w) => (float[4,4] y) { y = Reshape(x, w) }"
    found = cost(graph(text, w=np.asarray([4, 4])))
    assert (found.parameters, found.weight_bytes) == (0, 16)


def test_weights_in_constant_nodes_and_in_bodies_count():
    text = """g (float[2] x, bool c) => (float[2] y) {
        k = Constant<value = float[2] {1,2}>() z = Add(x, k)
        y = If(c) <then_branch = a () => (float[2] r) { h = Constant<value = float[2] {3,4}>() r = Mul(z, h) },
                   else_branch = b () => (float[2] r) { r = Identity(z) }> }"""
    model = graph(text)
    found = cost(model)
    assert found.parameters == 4
    assert found.operators == {"Add": 1, "Identity": 1, "If": 1, "Mul": 1}
    assert subgraph_share(model) == 0.5


def test_integers_in_bodies_have_no_share_of_the_parameters():
    text = """g (float[2] x, bool c, float[2] w) => (float[2] y) { z = Add(x, w)
        y = If(c) <then_branch = a () => (float[2] r) { h = Constant<value = int64[1] {2}>() r = Reshape(z, h) },
                   else_branch = b () => (float[2] r) { r = Identity(z) }> }"""
    assert subgraph_share(graph(text)) == 0.0
    assert subgraph_share(graph("g (float[2] x) => (float[2] y) { y = Relu(x) }")) == 0.0


def test_scales_and_zero_points_are_no_parameters_but_quantised_weights_and_biases_are():
    text = """g (float[1,2,4,4] x, float w_scale, int8 w_zero, int8[3,2,1,1] w_int, float[3] w_scales, int8[3] w_zeros,
                 int32[3] w_bias, float[3] w_bscale) => (float[1,3,4,4] y) {
        q = QuantizeLinear(x, w_scale, w_zero) d = DequantizeLinear(q, w_scale, w_zero)
        k = DequantizeLinear<axis=0>(w_int, w_scales, w_zeros) b = DequantizeLinear<axis=0>(w_bias, w_bscale)
        y = Conv(d, k, b) }"""
    assert cost(graph(text)).parameters == 6 + 3


def test_operands_of_integer_operators_are_told_from_their_scales():
    text = """g (uint8[1,2,4,4] x, float w_s, uint8 w_z, int8[3,2,1,1] w_k, float[3] w_ks, int8[3] w_kz, int32[3] w_b)
        => (uint8[1,3,4,4] y) { a = QLinearConv(x, w_s, w_z, w_k, w_ks, w_kz, w_s, w_z, w_b)
        y = com.microsoft.QLinearConcat<axis=1>(w_s, w_z, a, w_s, w_z) }"""
    assert cost(graph(text)).parameters == 6 + 3


def test_four_bit_weights_count_by_elements():
    model = graph("g (float[N,4] x, float[4,4] w) => (float[N,4] y) { y = MatMul(x, w) }", opset=21)
    packed = onnx.helper.make_tensor("q", onnx.TensorProto.INT4, [3, 3], np.arange(-4, 5))
    model.graph.register_initializer(ir.val("q", const_value=ir.from_proto(packed)))
    found = cost(model)
    assert found.parameters == 16 + 9
    assert found.weight_bytes == 64 + 5


def test_functions_are_counted_where_they_stand():
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "f": 1]>
        g (float[2] x) => (float[2] y) { y = f.twice(x) }
        <domain: "f", opset_import: ["": 17]> twice (a) => (b) { k = Constant<value = float {2}>() b = Mul(a, k) }""")
    model = ir.from_proto(proto)
    assert [t.size for t in constants(model)] == [1]
    assert cost(model).operators == {"f:twice": 1}


def test_strings_are_no_parameters():
    model = graph("g (string[2] x, float[4,4] w) => (bool[2] y) { y = Equal(x, k) }", opset=19)
    model.graph.register_initializer(
        ir.val("k", const_value=ir.StringTensor([b"yes", b"no"], shape=ir.Shape([2]), name="k"))
    )
    assert cost(model).parameters == 16
