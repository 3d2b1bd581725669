"""Structure and batch proofs: what they notice, and what they let pass."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import feeds, graph

from onnxcomp.evaluate.proof import check_batches, check_structure, doubled_batch
from onnxcomp.model.signature import signature
from onnxcomp.runtime.session import SessionConfig

ONE_THREAD = SessionConfig(threads=1)
GOOD = graph("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")


def test_a_model_has_the_structure_of_itself():
    assert check_structure(GOOD, GOOD) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("g (float[N,4] z) => (float[N,4] y) { y = Relu(z) }", "inputs"),
        ("g (float[N,4] x) => (float[N,4] z) { z = Relu(x) }", "outputs"),
        ("g (double[N,4] x) => (double[N,4] y) { y = Relu(x) }", "inputs"),
        ("g (float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Relu(x) z = Relu(x) }", "outputs"),
    ],
    ids=["another input name", "another output name", "another type", "one output more"],
)
def test_another_signature_is_noticed(text, what):
    assert what in check_structure(GOOD, graph(text))


def test_an_invalid_graph_counts_only_where_the_original_is_valid():
    invalid = graph("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    invalid.graph[0].op_type = "Reluu"
    assert "onnx.checker" in check_structure(GOOD, invalid)
    assert check_structure(invalid, invalid) is None


def test_a_result_that_works_for_one_row_only_is_noticed_at_twice_the_batch():
    fixed = graph(
        "g (float[N,4] x) => (float[N,4] y) { s = Constant<value = int64[2] {1, 4}>() r = Reshape(x, s) y = Relu(r) }"
    )
    feed = feeds(GOOD, 1)[0]
    assert check_batches(GOOD, GOOD, feed, ONE_THREAD, 0.99) is None
    assert "fails at twice the batch" in check_batches(GOOD, fixed, feed, ONE_THREAD, 0.99)


def test_a_result_that_answers_otherwise_for_more_rows_is_noticed():
    mixing = graph(
        "g (float[N,4] x) "
        "=> (float[N,4] y) { a = Constant<value = int64[1] {0}>() s = ReduceProd<axes = [0]>(x) y = Mul(x, s) }"
    )
    feed = {"x": np.array([[1.0, 1.0, 1.0, 3.0]], np.float32)}
    same_for_one = graph("g (float[N,4] x) => (float[N,4] y) { y = Mul(x, x) }")
    assert "twice the batch" in check_batches(same_for_one, mixing, feed, ONE_THREAD, 0.9999)


def test_a_feed_on_which_a_result_is_further_off_is_so_at_its_own_batch_and_no_fault_of_the_batch():
    plain = graph("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    rough = graph("g (float[N,4] x) => (float[N,4] y) { r = Relu(x) y = Floor(r) }")
    feed = {"x": np.array([[1.9, 0.9, 3.2, 0.6]], np.float32)}
    assert check_batches(plain, rough, feed, ONE_THREAD, 0.9999) is None
    assert "twice the batch" in check_batches(plain, rough, feed, ONE_THREAD, 0.9999, exact=True)


def test_an_original_that_cannot_take_two_rows_proves_nothing():
    fixed = graph(
        "g (float[N,4] x) => (float[N,4] y) { s = Constant<value = int64[2] {1, 4}>() r = Reshape(x, s) y = Relu(r) }"
    )
    assert check_batches(fixed, fixed, feeds(GOOD, 1)[0], ONE_THREAD, 0.99) is None


def doubled(text, feed):
    return doubled_batch({k: np.zeros(v, np.float32) for k, v in feed.items()}, signature(graph(text)))


def test_every_input_with_the_batch_symbol_is_doubled_and_no_other():
    text = "g (float[N,4] x, float[N,2] u, float[M,4] v, float[4] c, float s) => (float[N,4] y) { y = Relu(x) }"
    found = doubled(text, {"x": (1, 4), "u": (1, 2), "v": (3, 4), "c": (4,), "s": ()})
    assert {k: v.shape for k, v in found.items()} == {"x": (2, 4), "u": (2, 2), "v": (3, 4), "c": (4,), "s": ()}


def test_a_fixed_batch_is_not_doubled():
    assert doubled("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }", {"x": (1, 4)}) is None
    assert doubled("g (float x) => (float y) { y = Relu(x) }", {"x": ()}) is None


def test_a_dynamic_input_that_became_static_is_refused_where_shapes_must_stay():
    static = graph("g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    dynamic = graph("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    assert check_structure(dynamic, static) is None
    assert "changed from ('N', 4) to (1, 4)" in check_structure(dynamic, static, same_shapes=True)
    assert check_structure(dynamic, dynamic, same_shapes=True) is None


@pytest.mark.parametrize("other", ["float[N,4,2] x", "float[N,5] x", "float[2,5] x"])
def test_models_whose_inputs_no_array_fits_both_are_no_two_forms_of_one(other):
    one = graph("g (float[N,4] x) => (float[M] y) { s = Constant<value_ints = [-1]>() y = Reshape(x, s) }")
    two = graph(f"g ({other}) => (float[M] y) {{ s = Constant<value_ints = [-1]>() y = Reshape(x, s) }}")
    complaint = check_structure(one, two)
    assert complaint is not None
    assert "input x takes" in complaint
    assert "[N, 4]" in complaint


def test_a_size_that_one_of_two_models_leaves_open_is_no_contradiction():
    one = graph("g (float[N,4] x) => (float[N,4] y) { y = Neg(x) }")
    two = graph("g (float[2,D] x) => (float[2,4] y) { y = Neg(x) }")
    assert check_structure(one, two) is None
