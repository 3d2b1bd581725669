"""The written graph: pairs, scales, shared parameters, names."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from graphs import graph
from quantize_cases import quantized

from onnxcomp.ops.attributes import constant

NET = """g (float[N,16,8,8] x, float[16,16,1,1] w1, float[16] w1b, float[16,16,1,1] w2) => (float[N,16,4,4] y) {
    a = Conv(x, w1, w1b)
    r = Relu(a)
    p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
    y = Conv(p, w2)
}"""


def pairs(model, op_type):
    return [n for n in model.graph if n.op_type == op_type]


def test_activation_scales_and_zero_points_are_scalars_and_there_is_always_a_zero_point():
    for node in pairs(quantized(graph(NET)).after, "QuantizeLinear"):
        scale, zero_point = (constant(v) for v in node.inputs[1:])
        assert scale.shape == zero_point.shape == ()
        assert (scale.dtype, zero_point.dtype) == (np.float32, np.uint8)


def test_weights_are_stored_as_int8_once_and_the_float_original_is_gone():
    found = quantized(graph(NET))
    assert not {"w1", "w2", "w1b"} & set(found.after.graph.initializers)
    assert sum(v.const_value.nbytes for v in found.after.graph.initializers.values()) < 0.5 * sum(
        v.const_value.nbytes for v in found.before.graph.initializers.values()
    )


def test_a_weight_that_a_float_node_reads_too_is_kept():
    found = quantized(
        graph("g (float[N,8] x, float[8,8] w) => (float[N,8] y, float[8,8] z) { y = MatMul(x, w) z = Neg(w) }")
    )
    assert "w" in found.after.graph.initializers


def test_the_written_bias_scale_is_the_product_of_the_written_scales():
    found = quantized(graph(NET))
    conv = next(n for n in found.after.graph if n.name == "Conv_a")
    x, w, b = (v.producer() for v in conv.inputs)
    np.testing.assert_array_equal(constant(b.inputs[1]), constant(x.inputs[1]) * constant(w.inputs[1]))
    assert constant(b.inputs[0]).dtype == np.int32


def test_tied_tensors_carry_the_same_scale_and_zero_point():
    found = quantized(graph(NET))
    assert found.plan.ties == {"p": "r"}
    by_name = {n.inputs[0].name: n for n in pairs(found.after, "QuantizeLinear")}
    assert by_name["p"].inputs[1:] == by_name["r"].inputs[1:]


def test_nothing_stands_between_a_convolution_and_its_relu():
    found = quantized(graph(NET))
    relu = next(n for n in found.after.graph if n.op_type == "Relu")
    assert relu.inputs[0].producer().op_type == "Conv"
    assert [u.node.op_type for u in relu.outputs[0].uses()] == ["QuantizeLinear"]


def test_the_result_passes_the_checker_and_every_node_has_its_own_name():
    found = quantized(graph(NET))
    onnx.checker.check_model(ir.to_proto(found.after), full_check=True)
    nodes = [n.name for n in found.after.graph]
    assert len(set(nodes)) == len(nodes)


def test_names_that_are_taken_are_not_taken_again():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,1,1] w) => (float[N,16,8,8] y) {
                "x.quantized" = Neg(x)
                "x.dequantized" = Neg("x.quantized")
                a = Conv("x.dequantized", w)
                y = Conv(x, w)
            }""".replace('"', "")
            .replace("x.quantized", "x_q")
            .replace("x.dequantized", "x_d")
        )
    )
    values = list(ir.convenience.create_value_mapping(found.after.graph))
    assert len(values) == len(set(values))
    assert found.cosine() > 0.99


def test_dynamic_dimensions_stay_dynamic():
    found = quantized(graph(NET), batch=3)
    assert [str(v.shape) for v in found.after.graph.inputs] == ["[N,16,8,8]"]
    assert found.after.graph.outputs[0].shape[0] == found.before.graph.outputs[0].shape[0]
