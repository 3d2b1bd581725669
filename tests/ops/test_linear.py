"""Nodes that are linear in a constant weight: W·rows + b must be what ONNX Runtime puts out, at every position."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import feeds, graph, run

from onnxcomp.ops.linear import LinearView, positions, store


def conv(x: str, w: str, attributes: str = "", bias: str = "") -> str:
    extra = f", float[{w.split(',')[0]}] wb" if bias else ""
    return f"g (float[{x}] x, float[{w}] w{extra}) => (float[a,b,c] y) {{ y = Conv{attributes}(x, w{bias}) }}"


CASES = {
    "conv": conv("2,3,7,6", "4,3,3,3", "<pads = [1,1,1,1]>", ", wb"),
    "strided": conv("2,3,9,8", "4,3,3,2", "<strides = [2,3], pads = [1,0,2,1]>"),
    "dilated": conv("2,3,9,9", "4,3,3,3", "<dilations = [2,1]>"),
    "grouped": conv("2,6,5,5", "4,3,3,3", "<group = 2>", ", wb"),
    "depthwise": conv("2,4,5,5", "8,1,3,3", "<group = 4, pads = [1,1,1,1]>"),
    "same upper": conv("2,3,7,8", "4,3,4,3", '<auto_pad = "SAME_UPPER", strides = [2,2]>'),
    "same lower": conv("2,3,7,8", "4,3,4,3", '<auto_pad = "SAME_LOWER", strides = [2,2]>'),
    "valid": conv("2,3,7,8", "4,3,3,3", '<auto_pad = "VALID">'),
    "one axis": conv("2,3,9", "4,3,3", "<pads = [2,1]>", ", wb"),
    "three axes": conv("2,3,5,4,6", "4,3,2,1,3", "<strides = [1,2,1]>"),
    "gemm": "g (float[5,3] x, float[3,4] w, float[4] wb) => (float[5,4] y) { y = Gemm(x, w, wb) }",
    "gemm scaled": """g (float[5,3] x, float[4,3] w, float[1,4] wb) => (float[5,4] y) {
        y = Gemm<transB = 1, alpha = 0.5, beta = 3.0>(x, w, wb) }""",
    "gemm of a transposed input": """g (float[3,5] x, float[4,3] w, float[4] wb) => (float[5,4] y) {
        y = Gemm<transA = 1, transB = 1>(x, w, wb) }""",
    "gemm scalar bias": "g (float[5,3] x, float[3,4] w, float[1] wb) => (float[5,4] y) { y = Gemm(x, w, wb) }",
    "matmul": "g (float[2,5,3] x, float[3,4] w) => (float[2,5,4] y) { y = MatMul(x, w) }",
    "matmul and add": """g (float[2,5,3] x, float[3,4] w, float[4] wb) => (float[2,5,4] y) {
        m = MatMul(x, w) y = Add(wb, m) }""",
}


def viewed(model):
    view = LinearView.of(model.graph[0])
    assert view is not None
    return view


def computed(view, x, chosen):
    """W·rows + b, [n, groups, out/groups]."""
    y = np.einsum("ngd,god->ngo", view.rows(x, chosen).astype(np.float64), view.matrix())
    return y if view.offset() is None else y + view.offset().reshape(y.shape[1:])


@pytest.mark.parametrize("name", CASES)
def test_rows_times_matrix_is_the_output_at_every_position(name):
    model = graph(CASES[name])
    view, feed = viewed(model), feeds(model, 1)[0]
    (y,) = run(model, feed)
    everywhere = np.arange(view.count(feed["x"].shape))
    assert len(everywhere) * view.shape[0] * view.shape[1] == y.size
    assert view.shape == view.matrix().shape
    np.testing.assert_allclose(computed(view, feed["x"], everywhere), view.targets(y, everywhere), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_stored_matrix_and_bias_are_what_the_runtime_computes(name):
    model = graph(CASES[name])
    view, feed = viewed(model), feeds(model, 1)[0]
    (before,) = run(model, feed)
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal(view.shape)
    bias = rng.standard_normal(view.shape[0] * view.shape[1]) if view.can_bias else None
    store(view, view.with_matrix(matrix, bias))
    (y,) = run(model, feed)
    again, everywhere = viewed(model), np.arange(view.count(feed["x"].shape))
    assert np.abs(y - before).max() > 0.1
    np.testing.assert_allclose(again.matrix(), matrix, atol=1e-6)
    if bias is not None:
        np.testing.assert_allclose(again.offset(), bias, atol=1e-6)
    np.testing.assert_allclose(computed(again, feed["x"], everywhere), again.targets(y, everywhere), atol=1e-5)


def test_chosen_positions_give_the_same_rows_as_all_of_them():
    model = graph(CASES["conv"])
    view, x = viewed(model), feeds(model, 1)[0]["x"]
    chosen = positions(view.count(x.shape), 10, np.random.default_rng(0))
    assert len(chosen) == 10 < view.count(x.shape)
    np.testing.assert_array_equal(view.rows(x, chosen), view.rows(x, np.arange(view.count(x.shape)))[chosen])


def test_columns_of_one_input_channel_are_neighbours():
    view = viewed(graph(CASES["grouped"]))
    w = view.weight.const_value.numpy()
    np.testing.assert_array_equal(view.matrix()[1, 0, 9:18], w[2, 1].ravel())


@pytest.mark.parametrize("limit", [1, 7, 99])
def test_positions_are_distinct_and_spread_over_all_of_them(limit):
    for rng in (None, np.random.default_rng(1)):
        chosen = positions(100, limit, rng)
        assert len(np.unique(chosen)) == limit
        assert (np.diff(chosen) <= 2 * 100 / limit + 1).all()
    np.testing.assert_array_equal(positions(5, 7), np.arange(5))


@pytest.mark.parametrize(
    "body",
    [
        "float[3,3] x, float[3,3] w) => (float[3,3] y) { a = MatMul(x, w) b = MatMul(a, w) y = Relu(b) }",
        "float[3,3] x, float[3,3] v) => (float[3,3] y) { y = MatMul(x, v) }",
        "float[3,3] x, float[3,3] w, float[3,3] v) => (float[3,3] y) { y = Gemm(x, w, v) }",
        "float[3,3] x, float[3,3] w, float[3,3] wb) => (float[3,3] y) { y = Gemm(x, w, wb) }",
        "float[2,3,3] x, float[2,3,3] w) => (float[2,3,3] y) { y = MatMul(x, w) }",
        "float[3,3] x) => (float[3,3] y) { y = Relu(x) }",
    ],
    ids=["tied", "computed", "computed bias", "bias by row", "batched weight", "not linear"],
)
def test_what_is_no_constant_matrix_of_its_own_gives_none(body):
    assert LinearView.of(graph(f"g ({body}").graph[0]) is None


def test_a_bias_that_another_node_reads_is_left_alone():
    model = graph(
        """g (float[2,3] x, float[3,3] w1, float[3,3] w2, float[3] wb) => (float[2,3] y) {
            a = Gemm(x, w1, wb) y = Gemm(a, w2, wb) }"""
    )
    view, old = viewed(model), model.graph.initializers["wb"].const_value.numpy().copy()
    store(view, view.with_matrix(view.matrix(), np.ones(3)))
    np.testing.assert_array_equal(viewed(model).offset(), np.ones(3))
    np.testing.assert_array_equal(LinearView.of(model.graph[1]).offset(), old)


def test_an_add_after_a_matmul_with_two_readers_is_no_bias():
    model = graph(
        """g (float[2,3] x, float[3,3] w, float[3] wb) => (float[2,3] y) {
            m = MatMul(x, w) a = Add(m, wb) y = Mul(a, m) }"""
    )
    assert not viewed(model).can_bias
    assert viewed(model).output.name == "m"


def test_half_precision_weights_stay_half_precision():
    model = graph("g (float16[2,3] x, float16[3,4] w) => (float16[2,4] y) { y = MatMul(x, w) }")
    view = viewed(model)
    arrays = view.with_matrix(view.matrix() * 2, None)
    assert arrays["w"].dtype == np.float16
    np.testing.assert_array_equal(arrays["w"], 2 * model.graph.initializers["w"].const_value.numpy())
