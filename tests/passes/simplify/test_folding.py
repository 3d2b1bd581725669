"""Constant folding and shape arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph
from simplify_cases import codes, kinds, simplified

from onnxcomp.model.save import weight_bytes
from onnxcomp.report.reasons import Reason


def test_arithmetic_on_constants_is_done_ahead():
    model = graph(
        "g (float[N,4] x, float[4] w1, float[4] w2) "
        "=> (float[N,4] y) { a = Add(w1, w2) b = Sqrt(a) c = Abs(b) y = Mul(x, c) }",
        w1=np.ones(4, np.float32),
        w2=np.ones(4, np.float32),
    )
    plan, after = simplified(model)
    assert kinds(after) == ["Mul"]
    assert {e.action for e in plan.edits} == {"computed ahead of time"}


def test_the_shape_of_a_fixed_input_is_known():
    model = graph(
        "g (float[2,3,4] x) => (float[2,12] y) { s = Shape(x) i = Constant<value = int64[1] "
        "{0}>() b = Gather(s, i) "
        "m = Constant<value = int64[1] {-1}>() t = Concat<axis=0>(b, m) y = Reshape(x, t) }"
    )
    assert kinds(simplified(model)[1]) == ["Reshape"]


def test_fixed_dimensions_of_a_partly_dynamic_shape_are_known():
    model = graph(
        "g (float[N,3,4] x) => (float[N,3,4] y) { s = Shape<start=1>(x) z = ConstantOfShape(s) y = Add(x, z) }"
    )
    assert kinds(simplified(model)[1]) == ["Add"]


def test_the_size_of_a_fixed_tensor_is_known_and_that_of_a_dynamic_one_is_not():
    text = "g (float[{}] x) => (float[{}] y) {{ s = Size(x) c = Cast<to=1>(s) y = Div(x, c) }}"
    assert kinds(simplified(graph(text.format("3,4", "3,4")))[1]) == ["Div"]
    assert kinds(simplified(graph(text.format("N,4", "N,4")))[1]) == ["Size", "Cast", "Div"]


VIEW = """g (float[N,3,T,4] x) => (float[{out}] y) {{ s = Shape(x)
    i0 = Constant<value = int64 {{0}}>() i2 = Constant<value = int64 {{2}}>() a = Constant<value = int64[1] {{0}}>()
    n0 = Gather(s, i0) b = Unsqueeze(n0, a) n2 = Gather(s, i2) t = Unsqueeze(n2, a)
    k = Constant<value = int64[1] {{{k}}}>() m = Constant<value = int64[1] {{-1}}>()
    target = Concat<axis=0>({parts}) y = Reshape(x, target) }}"""


@pytest.mark.parametrize(
    ("parts", "k", "out", "expected"),
    [
        ("b, m", 3, "N,a", [0, -1]),
        ("b, k, t, m", 3, "N,a,T,b", [0, 3, 0, -1]),
        ("b, k, m", 3, "N,a,b", [0, 3, -1]),
        ("m, t", 3, "a,T", None),  # the label is not at its own place, and −1 is taken
        ("k, m, b", 3, "a,b,N", None),
    ],
)
def test_a_reshape_that_copies_dimensions_needs_no_shape_arithmetic(parts, k, out, expected):
    model = graph(VIEW.format(parts=parts, k=k, out=out))
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3, 3, 4)).astype(np.float32)}
    _, after = simplified(model, feed=feed)
    if expected is None:
        assert kinds(after).count("Shape") == 1
    else:
        assert kinds(after) == ["Reshape"]
        assert after.graph.initializers[after.graph[0].inputs[1].name].const_value.numpy().tolist() == expected


def test_a_single_dynamic_dimension_elsewhere_becomes_minus_one():
    model = graph(
        "g (float[N,3,4] x) => (float[3,N,4] y) { i = Constant<value = int64[1] {0}>() s = "
        "Shape(x) b = Gather(s, i) "
        "k = Constant<value = int64[1] {3}>() l = Constant<value = int64[1] {4}>() "
        "t = Concat<axis=0>(k, b, l) y = Reshape(x, t) }"
    )
    _, after = simplified(model)
    assert kinds(after) == ["Reshape"]


def test_a_batch_of_nothing_still_passes_where_it_passed():
    model = graph(VIEW.format(parts="b, k, t, m", k=3, out="N,a,T,b").replace("-1", "4"))
    simplified(model, feed={"x": np.zeros((0, 3, 5, 4), np.float32)})


def test_the_shape_that_a_file_declares_for_an_output_is_not_believed():
    model = graph(
        "g (float[N,4] x) => (float[1,4] h, int64[2] y) { h = Relu(x) y0 = Shape(h) o = Constant<value = "
        "int64[1] {1}>() y = Mul(y0, o) }"
    )
    assert "Shape" in kinds(simplified(model, batch=3)[1])


@pytest.mark.parametrize(
    ("op_type", "body"),
    [
        ("ConstantOfShape", "z = ConstantOfShape(s)"),
        ("Expand", "k = Constant<value = float {1}>() z = Expand(k, s)"),
        ("Tile", "t = Constant<value = int64[2] {100,1}>() z = Tile(w, t)"),
        ("Expand", "k = Cast<to=10>(w) l = Cast<to=1>(k) z = Expand(l, s)"),
    ],
)
def test_a_constant_that_would_make_the_file_larger_stays_with_the_reason(op_type, body):
    model = graph(
        "g (float[N,100] x, float[1,100] w) => (float[100,100] y) "
        f"{{ s = Constant<value = int64[2] {{100,100}}>() {body} "
        "a = ReduceSum<keepdims=0>(x) y = Add(z, a) }"
    )
    plan, after = simplified(model)
    assert codes(plan)[op_type] is Reason.TOO_LARGE
    assert weight_bytes(after) < 2000


def test_weights_kept_in_half_precision_stay_in_half_precision():
    model = graph("g (float[N,64] x, float16[64,64] w) => (float[N,64] y) { k = Cast<to=1>(w) y = MatMul(x, k) }")
    plan, after = simplified(model)
    assert kinds(after) == ["Cast", "MatMul"]
    assert codes(plan) == {"Cast": Reason.TOO_LARGE}


def test_a_transposed_weight_folds_when_nobody_else_reads_it_and_stays_when_somebody_does():
    text = "g (float[N,64] x, float[64,64] w) => (float[N,64] y) {{ k = Transpose(w) a = MatMul(x, k) y = {} }}"
    assert kinds(simplified(graph(text.format("Relu(a)")))[1]) == ["MatMul", "Relu"]
    assert kinds(simplified(graph(text.format("MatMul(a, w)")))[1]) == ["Transpose", "MatMul", "MatMul"]


def test_a_weight_that_is_cut_and_put_together_again_folds_as_a_whole():
    """PaddlePaddle reorders the gates of an LSTM in the graph: each slice alone would only add bytes."""
    model = graph("""g (float[N,64] x, float[64,64] w) => (float[N,64] y) {
        a, b = Split<axis=1>(w) c = Concat<axis=1>(b, a) y = MatMul(x, c) }""")
    _, after = simplified(model)
    assert kinds(after) == ["MatMul"]


def test_results_beyond_the_limit_stay_with_the_reason_unless_they_replace_as_much():
    model = graph("g (float[N,64] x, float[64,64] w) => (float[N,64] y) { k = Transpose(w) y = MatMul(x, k) }")
    assert kinds(simplified(model, fold_limit=16)[1]) == ["MatMul"]
    model = graph(
        "g (float[N,4] x) => (float[N,4] y) { s = Constant<value = int64[1] {64}>() z = ConstantOfShape(s) "
        "a = ReduceSum<keepdims=0>(z) y = Add(x, a) }"
    )
    plan, _ = simplified(model, fold_limit=16)
    assert codes(plan) == {"ConstantOfShape": Reason.TOO_LARGE}


def test_a_76_byte_model_that_asks_for_terabytes_is_not_computed():
    model = graph(
        "g (float[N,4] x, bool k) => (float[N,4] y) { s = Constant<value = int64[2] {1048576,1048576}>() "
        "y = If(k) <then_branch = p () "
        "=> (float[N,4] r) { z = ConstantOfShape(s) a = ReduceMax<keepdims=0>(z) r = Add(x, a) }, "
        "else_branch = q () => (float[N,4] r) { r = Neg(x) }> }"
    )
    simplified(model, feed={"x": np.ones((1, 4), np.float32), "k": np.asarray(False)})


def test_a_constant_output_of_the_model_is_left_to_be_computed():
    model = graph("g (float[N,4] x, float[4] w) => (float[N,4] y, float[4] z) { z = Neg(w) y = Add(x, z) }")
    plan, after = simplified(model)
    assert kinds(after) == ["Neg", "Add"]
    assert codes(plan) == {"Neg": Reason.GRAPH_OUTPUT}


def test_excluded_nodes_are_not_computed():
    model = graph("g (float[N,4] x, float[4] w) => (float[N,4] y) { a = Neg(w) y = Add(x, a) }")
    assert kinds(simplified(model, exclude=("Neg",))[1]) == ["Neg", "Add"]


def test_quantised_weights_stay_quantised():
    model = graph(
        "g (float[N,64] x, int8[64,64] w, float w_s) => (float[N,64] y) "
        "{ k = DequantizeLinear(w, w_s) y = MatMul(x, k) }"
    )
    assert kinds(simplified(model)[1]) == ["DequantizeLinear", "MatMul"]


def test_new_constants_take_no_name_that_a_body_uses():
    model = graph("""g (float[2] x, bool k, float[2] w) => (float[2] y) { t = Neg(w) z = Add(x, t)
        y = If(k) <then_branch = p () => (float[2] r) { u = Neg(z) r = Add(u, t) },
                   else_branch = q () => (float[2] r) { r = Abs(z) }> }""")
    simplified(model, feed={"x": np.ones(2, np.float32), "k": np.asarray(True)})
