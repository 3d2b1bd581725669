from __future__ import annotations

import numpy as np
import pytest
from graphs import graph
from simplify_cases import kinds, simplified


def test_equal_nodes_are_kept_once():
    plan, after = simplified(graph("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) b = Relu(x) y = Add(a, b) }"))
    assert kinds(after) == ["Relu", "Add"]
    assert plan.edits[0].action == "merged"


def test_equality_goes_on_behind_equal_nodes_and_covers_several_outputs():
    model = graph("""g (float[N,4] x) => (float[N,2] y) {
        a = Relu(x) b = Relu(x) c, d = Split<axis=1>(a) e, f = Split<axis=1>(b) g1 = Add(c, f) h = Add(e, d) y
        = Mul(g1, h) }""")
    assert kinds(simplified(model)[1]) == ["Relu", "Split", "Add", "Mul"]


@pytest.mark.parametrize(
    "body",
    [
        "a = Elu<alpha=1.0>(x) b = Elu<alpha=2.0>(x) y = Add(a, b)",
        "a = Sub(x, w) b = Sub(w, x) y = Add(a, b)",
        "a = com.microsoft.Gelu(x) b = com.microsoft.Gelu(x) y = Add(a, b)",
    ],
)
def test_nodes_that_differ_or_might_keep_a_state_stay(body):
    assert len(kinds(simplified(graph(f"g (float[N,4] x, float[4] w) => (float[N,4] y) {{ {body} }}"))[1])) == 3


@pytest.mark.parametrize("op_type", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_two_draws_are_two_draws(op_type):
    model = graph(
        f"g (float[N,4] x) => (float[N,4] y) {{ a = {op_type}(x) b = {op_type}(x) c = Sub(a, b) y = Mul(c, x) }}"
    )
    assert kinds(simplified(model, feed={"x": np.zeros((1, 4), np.float32)})[1]).count(op_type) == 2


def test_outputs_that_compute_the_same_keep_their_names():
    model = graph("g (float[N,4] x) => (float[N,4] y, float[N,4] z) { a = Relu(x) y = Neg(a) b = Relu(x) z = Neg(b) }")
    assert kinds(simplified(model)[1]) == ["Relu", "Neg", "Neg"]


def test_an_output_takes_over_an_inner_node_that_computes_the_same():
    model = graph("g (float[N,4] x) => (float[N,4] y, float[N,4] z) { a = Relu(x) y = Neg(a) z = Relu(x) }")
    assert kinds(simplified(model)[1]) == ["Relu", "Neg"]


def test_equal_constants_of_any_size_are_kept_once_but_not_those_that_only_begin_alike():
    w = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    other = w.copy()
    other[-1, -1] = 0
    text = """g (float[N,64] x, float[64,64] w1, float[64,64] w2, float[64,64] w3) => (float[N,64] y)
        { a = MatMul(x, w1) b = MatMul(a, w2) y = MatMul(b, w3) }"""
    _, after = simplified(graph(text, w1=w / 1e4, w2=w / 1e4, w3=other / 1e4))
    assert list(after.graph.initializers) == ["w1", "w3"]


def test_constants_of_equal_bytes_and_another_shape_or_type_stay_apart():
    text = """g (float[N,4] x, float[1] w1, int32[1] w2, float[1,1] w3) => (float[N,4] y)
        { c = Cast<to=1>(w2) a = Add(x, w1) b = Add(a, w3) e = RandomNormalLike(b) s = Sub(e, e) f = Add(b, s)
        y = Add(f, c) }"""
    zero = {"w1": np.zeros(1, np.float32), "w2": np.zeros(1, np.int32), "w3": np.zeros((1, 1), np.float32)}
    _, after = simplified(graph(text, **zero), rules=("share-equal",))
    assert len(after.graph.initializers) == 3


def test_an_excluded_node_is_not_merged():
    model = graph("g (float[N,4] x) => (float[N,4] y) { a = Relu(x) b = Relu(x) y = Add(a, b) }")
    assert kinds(simplified(model, exclude=("Relu",))[1]) == ["Relu", "Relu", "Add"]
