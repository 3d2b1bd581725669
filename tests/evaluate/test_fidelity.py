"""Closeness figures against their definitions, and against what a reader would expect of them."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from graphs import graph
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxcomp.evaluate.fidelity import Comparison, compare, cosine, divergence, looks_like_classes, score_outputs

RNG = np.random.default_rng(0)
Y = RNG.standard_normal((3, 10)).astype(np.float32)
FLOATS = arrays(np.float32, 12, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def figures(*pairs, scores=False):
    comparison = Comparison("y", scores)
    for reference, candidate in pairs:
        comparison.add(reference, candidate)
    return comparison.result()


@settings(max_examples=100, deadline=None)
@given(FLOATS)
def test_a_model_compared_with_itself_is_perfect_whatever_it_gives_out(values):
    found = figures((values, values.copy()))
    assert (found.cosine, found.sqnr_db, found.max_abs) == (1.0, inf, 0.0)


@settings(max_examples=100, deadline=None)
@given(FLOATS, FLOATS)
def test_a_cosine_lies_between_minus_one_and_one_and_takes_no_side(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    assert -1.0 <= cosine(a, b) <= 1.0
    assert cosine(a, b) == cosine(b, a)


def test_the_cosine_neither_overflows_nor_underflows():
    a = np.array([1.0, 2.0])
    for scale in (1e-300, 1e300):
        assert cosine(a * scale, np.array([2.0, 1.0])) == pytest.approx(0.8)


def test_zero_vectors_are_alike_and_unlike_everything_else():
    zero, one = np.zeros(3), np.ones(3)
    assert (cosine(zero, zero), cosine(zero, one), cosine(one, zero)) == (1.0, 0.0, 0.0)


def test_a_change_of_scale_keeps_the_cosine_and_shows_in_the_sqnr():
    found = figures((Y, Y * 2))
    assert found.cosine == pytest.approx(1.0)
    assert found.sqnr_db == pytest.approx(0.0, abs=1e-5)


def test_sqnr_and_largest_difference_follow_their_formulas_over_all_feeds():
    others = [RNG.standard_normal((3, 10)).astype(np.float32) for _ in range(3)]
    pairs = [(o, (o + 0.01 * RNG.standard_normal(o.shape)).astype(np.float32)) for o in others]
    y, z = (np.concatenate([p[i] for p in pairs]).astype(np.float64) for i in (0, 1))
    found = figures(*pairs)
    assert found.sqnr_db == pytest.approx(10 * np.log10((y**2).sum() / ((y - z) ** 2).sum()))
    assert found.max_abs == pytest.approx(np.abs(y - z).max())
    by_hand = [
        np.sum(a.astype(float) * b) / np.linalg.norm(a.astype(float)) / np.linalg.norm(b.astype(float))
        for a, b in pairs
    ]
    assert found.cosine == pytest.approx(np.mean(by_hand))


@pytest.mark.parametrize("bad", [np.nan, inf, -inf])
def test_an_output_that_turned_non_finite_counts_as_lost(bad):
    broken = Y.copy()
    broken[1, 2] = bad
    for pair in ((Y, broken), (broken, Y)):
        found = figures(pair, (Y, Y))
        assert (found.cosine, found.sqnr_db, found.max_abs) == (0.5, -inf, inf)


def test_values_that_are_not_finite_in_both_are_no_difference():
    masked = Y.copy()
    masked[0, :3] = [-inf, inf, np.nan]
    found = figures((masked, masked.copy()), scores=True)
    assert (found.cosine, found.sqnr_db, found.max_abs) == (1.0, inf, 0.0)
    assert (found.kl, found.top1_agreement) == (None, None)
    swapped = masked.copy()
    swapped[0, 0] = inf
    assert figures((masked, swapped)).cosine == 0.0


def test_an_output_of_another_shape_counts_as_lost():
    found = figures((Y, Y[:2]))
    assert (found.cosine, found.sqnr_db, found.max_abs) == (0.0, -inf, inf)


def test_integer_boolean_and_string_outputs_are_compared_element_by_element():
    a, b = np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])
    for reference, candidate in (
        (a, b),
        (a == 4, b == 5),
        (a.astype(str), b.astype(str)),
        (a.astype(object), b.astype(object)),
    ):
        expected = float((reference == candidate).mean())
        assert figures((reference, candidate)).cosine == expected
    assert figures((a, a[:0])).cosine == 0.0
    assert figures((a[:0], a[:0])).cosine == 1.0


def test_sequences_and_maps_are_compared_by_their_values():
    sequence = [Y, Y[:1]]
    near = [Y + np.float32(1e-3), Y[:1]]
    assert figures((sequence, sequence)).cosine == 1.0
    assert 0.999 < figures((sequence, near)).cosine < 1.0
    assert figures((sequence, [Y])).cosine == 0.0
    scores = [{"cat": 0.7, "dog": 0.3}, {"cat": 0.2, "dog": 0.8}]
    other = [{"dog": 0.31, "cat": 0.69}, {"cat": 0.2, "dog": 0.8}]
    assert 0.999 < figures((scores, other)).cosine < 1.0
    assert figures((["a", "b"], ["a", "c"])).cosine == 0.5
    assert figures(([], [])).cosine == 1.0


def test_half_floats_are_compared_in_double_precision():
    values = np.full(5000, 60000, np.float16)
    assert figures((values, values)).sqnr_db == inf


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_kl_of_logits_is_that_of_their_softmax_and_that_of_probabilities_their_own():
    other = Y + RNG.standard_normal(Y.shape).astype(np.float32)
    p, q = softmax(Y), softmax(other)
    expected = (p * np.log(p / q)).sum(axis=1).mean()
    assert figures((Y, other), scores=True).kl == pytest.approx(expected)
    assert figures((p, q)).kl == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(*[arrays(np.float64, (2, 5), elements=st.floats(-50, 50)) for _ in range(2)])
def test_kl_is_never_negative_and_zero_for_equal_rows(p, q):
    assert divergence(p, p) == 0.0
    assert divergence(p, q) >= 0.0
    assert divergence(softmax(p), softmax(q)) >= 0.0


def test_probabilities_that_int8_has_rounded_are_still_read_as_probabilities():
    p = softmax(RNG.standard_normal((4, 10)) * 3)
    rounded = np.round(p * 255) / 255 * 0.98  # rows no longer add up to 1, and some are exactly 0
    assert 0.0 <= divergence(p, rounded) / 4 < 0.05


def test_a_probability_of_zero_gives_a_finite_divergence():
    assert 0 < divergence(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])) < 20


def test_arg_max_agreement_counts_rows():
    other = Y.copy()
    other[1] = -other[1]
    assert figures((Y, other), scores=True).top1_agreement == pytest.approx(2 / 3)


def test_what_looks_like_classes_in_one_feed_only_is_not_called_so():
    probabilities = softmax(Y)
    for order in (((probabilities, probabilities), (Y, Y)), ((Y, Y), (probabilities, probabilities))):
        assert figures(*order).kl is None


def test_probabilities_are_known_by_themselves_and_a_matrix_only_by_its_graph():
    assert looks_like_classes(softmax(Y))
    assert looks_like_classes(softmax(RNG.standard_normal((2, 3, 4))))
    assert not looks_like_classes(Y)
    assert looks_like_classes(Y, scores=True)
    for array in (Y[0], Y[:, :1], Y[:0], np.zeros((2, 30_000)), RNG.standard_normal((2, 3, 4))):
        assert not looks_like_classes(array, scores=True)


@pytest.mark.parametrize(
    ("body", "is_score"),
    [
        ("y = Gemm(x, w)", True),
        ("m = MatMul(x, w) y = Add(m, wb)", True),
        ("m = MatMul(x, w) a = Add(wb, m) y = Softmax(a)", True),
        ("m = Gemm(x, w) r = Constant<value = int64[2] {0, -1}>() y = Reshape(m, r)", True),
        ("m = MatMul(x, w) k = Constant<value = float[1] {1.0}>() y = Add(m, k)", True),
        ("m = MatMul(x, w) y = Relu(m)", False),
        ("m = MatMul(x, w) n = Gemm(x, w) y = Add(m, n)", False),
        ("m = MatMul(x, w) a = Constant<value = int64[1] {1}>() n = ReduceL2(m, a) y = Div(m, n)", False),
        ("y = Identity(x)", False),
    ],
)
def test_scores_are_outputs_of_a_linear_layer_or_a_softmax_and_embeddings_are_none(body, is_score):
    model = graph(f"g (float[N,8] x, float[8,8] w, float[8] wb) => (float[N,8] y) {{ {body} }}", opset=18)
    assert score_outputs(model) == ({"y"} if is_score else set())


def test_every_output_has_its_own_figures():
    first, second = compare(["a", "b"], [([Y, Y], [Y, Y * 3])])
    assert (first.output, first.max_abs) == ("a", 0.0)
    assert second.max_abs == pytest.approx(2 * np.abs(Y).max(), rel=1e-6)


def test_no_feed_at_all_is_no_difference():
    assert figures().cosine == 1.0
