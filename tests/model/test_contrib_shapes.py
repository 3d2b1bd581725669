"""Shapes behind ONNX Runtime's own products are inferred, as ONNX Runtime computes them, and MACs are counted."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from graphs import context, feeds, graph, run

from onnxcomp.model import shapes
from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import normalize
from onnxcomp.passes.dynamic.dynamic import Dynamic
from onnxcomp.passes.weight_only.weight_only import WeightOnly

CHAIN = """g (float[N,5,64] x, float[64,96] w1, float[96] w2, float[96,80] w3) => (float[N,5,80] y) {
    a = MatMul(x, w1) b = Add(a, w2) c = Relu(b) d = MatMul(c, w3) y = Neg(d)
}"""


@pytest.mark.parametrize(
    ("step", "own"),
    [(Dynamic(), "DynamicQuantizeMatMul"), (WeightOnly(), "MatMulNBits")],
)
def test_the_macs_of_a_result_with_own_operators_are_those_of_its_source(step, own):
    before = normalize(graph(CHAIN)).model
    given = feeds(before, batch=3)
    ctx = context(given)
    after = step.apply(before, step.plan(before, ctx), ctx)
    assert own in {node.op_type for node in after.graph}
    sizes = {"x": (3, 5, 64)}
    assert cost(after, sizes).macs_unknown == 0
    assert cost(after, sizes).macs == cost(before, sizes).macs == 3 * 5 * (64 * 96 + 96 * 80)
    found = shapes.in_call(after, sizes)
    for value, array in zip(after.graph.outputs, run(after, given[0]), strict=True):
        assert found[value.name] == np.shape(array)


def test_products_of_integers_with_float_results_have_shape_and_type_behind_them():
    model = graph(
        """g (uint8[N,5,64] x, int8[64,96] w, float w_a, float[96] w_b) => (float[N,96,5] y) {
            p = com.microsoft.MatMulIntegerToFloat(x, w, w_a, w_b)
            t = Transpose<perm = [0, 2, 1]>(p)
            y = Neg(t)
        }"""
    )
    shapes.refresh(model)
    behind = {v.name: v for node in model.graph for v in node.outputs}["t"]
    assert list(behind.shape)[1:] == [96, 5]
    assert behind.dtype == ir.DataType.FLOAT
    assert cost(model, {"x": (2, 5, 64)}).macs == 2 * 5 * 64 * 96


def test_a_function_of_the_model_s_own_by_that_name_is_left_to_it():
    text = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[N,3] x) => (float[N,3] y) { y = com.microsoft.DynamicQuantizeMatMul(x, x) }
        <domain: "com.microsoft", opset_import: ["": 17]> DynamicQuantizeMatMul (a, b) => (c) { c = Add(a, b) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    shapes.refresh(model)
    assert len(model.functions) == 1
