"""A PRelu with one slope for all is a LeakyRelu, which ONNX Runtime fuses and has in integers."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import context, feeds, graph, run
from hypothesis import given
from hypothesis import strategies as st
from simplify_cases import kinds, simplified

from onnxcomp.model.normalize import normalize
from onnxcomp.ops.attributes import float_attribute
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.runtime.audit import operator_counts, optimized_graph


def prelu(slopes: np.ndarray, *, opset: int = 17):
    shape = ",".join(map(str, slopes.shape))
    declared = f"float[{shape}] w" if shape else "float w"
    text = f"g (float[N,4,5] x, {declared}) => (float[N,4,5] y) {{ y = PRelu(x, w) }}"
    return graph(text, opset=opset, w=slopes.astype(np.float32))


@given(slope=st.floats(-2, 2, width=32), shape=st.sampled_from([(), (1,), (4, 1), (5,), (1, 4, 5)]))
def test_equal_slopes_are_one_attribute_and_nothing_else_changes(slope, shape):
    model = prelu(np.full(shape, slope))
    plan, after = simplified(model)
    feed = feeds(model, 1, batch=2)[0]
    np.testing.assert_array_equal(run(model, feed)[0], run(after, feed)[0])
    assert kinds(after) == (["LeakyRelu"] if slope else ["Relu"])
    assert float_attribute(after.graph[0], "alpha", 0.0) == slope
    assert [(e.op_type, e.action) for e in plan.edits] == [("PRelu", "written as a rectifier")]


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_the_rule_holds_at_old_opsets(opset):
    assert kinds(simplified(prelu(np.full((4, 1), 0.25), opset=opset))[1]) == ["LeakyRelu"]


@pytest.mark.parametrize(
    "slopes", [[0.25, 0.25, 0.25, 0.2500001], [0.25, 0.25, 0.25, -0.25], [np.inf] * 4, [np.nan] * 4]
)
def test_slopes_that_differ_or_are_no_numbers_stay(slopes):
    assert kinds(normalize(prelu(np.array(slopes)[:, None])).model) == ["PRelu"]
    assert kinds(simplified(prelu(np.array(slopes)[:, None]))[1]) == ["PRelu"]


def test_slopes_that_are_computed_stay():
    model = graph("g (float[N,4,5] x, float[4,1] s) => (float[N,4,5] y) { y = PRelu(x, s) }")
    assert kinds(simplified(model)[1]) == ["PRelu"]


def test_other_precisions_stay():
    model = graph("g (double[N,4] x, double[4] w) => (double[N,4] y) { y = PRelu(x, w) }", w=np.full(4, 0.25))
    assert kinds(simplified(model)[1]) == ["PRelu"]


def test_an_excluded_node_stays():
    assert kinds(simplified(prelu(np.full((4, 1), 0.25)), exclude=("PRelu",))[1]) == ["PRelu"]


def test_between_integer_convolutions_nothing_is_converted_any_more():
    text = """g (float[1,16,8,8] x, float[16,16,1,1] w1, float[16,1,1] w_s, float[16,16,1,1] w2) => (float[a,b,c,d] y) {
        a = Conv(x, w1) b = PRelu(a, w_s) y = Conv(b, w2) }"""
    model = graph(text, w_s=np.full((16, 1, 1), 0.25, np.float32))
    _, after = simplified(model)
    conversions = {}
    for name, source in (("PRelu", normalize(model).model), ("LeakyRelu", after)):
        ctx, step = context(feeds(source)), Quantize()
        counts = operator_counts(optimized_graph(step.apply(source, step.plan(source, ctx), ctx)))
        conversions[name] = counts["QuantizeLinear"] + counts["DequantizeLinear"]
        assert counts["com.microsoft:QLinearLeakyRelu"] == (name == "LeakyRelu"), counts
    assert conversions == {"PRelu": 4, "LeakyRelu": 2}
