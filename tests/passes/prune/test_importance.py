"""Every score against its formula written out by hand, on weights and activations taken from ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import context, feeds, graph, run
from pruning import studied

from onnxcomp.model.normalize import clone
from onnxcomp.passes.prune.importance import curve, scores
from onnxcomp.passes.prune.ranking import ranked

CHAIN = """g (float[N,3,6,6] x, float[6,3,3,3] w1, float[6] wb1, float[5,6,3,3] w2) => (float[N,5,4,4] y) {
    a = Conv<pads = [1,1,1,1]>(x, w1, wb1)
    b = Relu(a)
    y = Conv(b, w2)
}"""
NORMED = """g (float[N,3,6,6] x, float[6,3,3,3] w1, float[6] wg, float[6] wb, float[6] wm, float[6] wv,
    float[5,6,3,3] w2) => (float[N,5,4,4] y) {
    a = Conv<pads = [1,1,1,1]>(x, w1)
    n = BatchNormalization(a, wg, wb, wm, wv)
    b = Relu(n)
    y = Conv(b, w2)
}"""
FORKED = """g (float[N,3,6,6] x, float[6,3,3,3] w1, float[6] wb1, float[5,6,3,3] w2, float[4,6,1,1] w3)
    => (float[N,5,4,4] y, float[N,4,6,6] z) {
    a = Conv<pads = [1,1,1,1]>(x, w1, wb1)
    b = Relu(a)
    y = Conv(b, w2)
    z = Conv(b, w3)
}"""
JOINED = """g (float[N,3,6,6] x, float[6,3,1,1] w1, float[6,3,3,3] w2, float[5,6,1,1] w3) => (float[N,5,6,6] y) {
    a = Conv(x, w1)
    b = Conv<pads = [1,1,1,1]>(x, w2)
    s = Add(a, b)
    y = Conv(s, w3)
}"""


def array(model, name):
    return model.graph.initializers[name].const_value.numpy().astype(np.float64)


def by_hand(values):
    """Σ of all elements of each slice along the first axis."""
    return np.array([v.sum() for v in values])


def activations(model, name, items):
    """The values of a tensor on all feeds, [feeds·batch, channels, …], by ONNX Runtime."""
    copy = clone(model)
    copy.graph.outputs[:] = [next(v for n in copy.graph for v in n.outputs if v.name == name)]
    return np.concatenate([run(copy, f)[0] for f in items]).astype(np.float64)


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
def test_a_norm_is_the_product_of_what_makes_a_channel_and_what_reads_it(name, power):
    model, analysis = studied(graph(CHAIN))
    made = by_hand(np.abs(array(model, "w1")) ** power)
    read = by_hand(np.abs(array(model, "w2").swapaxes(0, 1)) ** power)
    np.testing.assert_allclose(scores(model, analysis, 0, name, {}), (made * read) ** (1 / power), rtol=1e-9)


def test_the_makers_and_the_readers_of_a_channel_are_each_added_up():
    model, analysis = studied(graph(JOINED))
    made = by_hand(np.abs(array(model, "w1"))) + by_hand(np.abs(array(model, "w2")))
    expected = made * by_hand(np.abs(array(model, "w3").swapaxes(0, 1)))
    np.testing.assert_allclose(scores(model, analysis, 0, "l1", {}), expected, rtol=1e-9)
    model, analysis = studied(graph(FORKED))
    read = by_hand(np.abs(array(model, "w2").swapaxes(0, 1))) + by_hand(np.abs(array(model, "w3").swapaxes(0, 1)))
    expected = by_hand(np.abs(array(model, "w1"))) * read
    np.testing.assert_allclose(scores(model, analysis, 0, "l1", {}), expected, rtol=1e-9)


@pytest.mark.parametrize("importance", ["l1", "l2"])
@pytest.mark.parametrize("side", ["made", "read"])
def test_a_channel_that_is_never_made_or_never_read_scores_zero(importance, side):
    weight = graph(CHAIN).graph.initializers["w1" if side == "made" else "w2"].const_value.numpy().copy()
    weight[(2,) if side == "made" else (slice(None), 2)] = 0
    model, analysis = studied(graph(CHAIN, **{"w1" if side == "made" else "w2": weight}))
    found = scores(model, analysis, 0, importance, {})
    assert found[2] == 0
    assert (np.delete(found, 2) > 0).all()


@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_the_scale_that_one_layer_hands_to_the_next_cancels(importance):
    model, analysis = studied(graph(CHAIN))
    scale = np.array([1, 0.01, 100, 3, 1, 7], np.float32)
    w1 = array(model, "w1") * scale[:, None, None, None]
    w2 = array(model, "w2") / scale[:, None, None]
    other, same = studied(graph(CHAIN, w1=w1.astype(np.float32), w2=w2.astype(np.float32)))
    assert not np.allclose(by_hand(np.abs(w1)), by_hand(np.abs(array(model, "w1"))))
    expected = scores(model, analysis, 0, importance, {})
    np.testing.assert_allclose(scores(other, same, 0, importance, {}), expected, rtol=1e-5)


def test_bn_is_the_absolute_gamma_of_the_norm_that_the_channels_pass():
    gamma = np.array([1, -3, 0, 0.5, 2, -0.1], np.float32)
    model, analysis = studied(graph(NORMED, wg=gamma, wv=np.ones(6, np.float32)))
    np.testing.assert_allclose(scores(model, analysis, 0, "bn", {}), np.abs(gamma), rtol=1e-6)


def test_bn_is_l1_where_no_batch_norm_is():
    model, analysis = studied(graph(CHAIN))
    np.testing.assert_array_equal(scores(model, analysis, 0, "bn", {}), scores(model, analysis, 0, "l1", {}))


def test_fpgm_is_the_sum_of_the_distances_to_all_other_filters():
    model, analysis = studied(graph(CHAIN))
    filters = array(model, "w1").reshape(6, -1)
    expected = [sum(np.linalg.norm(f - g) for g in filters) for f in filters]
    np.testing.assert_allclose(scores(model, analysis, 0, "fpgm", {}), expected, rtol=1e-6)


def test_fpgm_lets_the_filter_in_the_middle_go_first_and_l1_the_smallest():
    line = np.zeros((6, 3, 3, 3), np.float32)
    line[:, 0, 0, 0] = [1, 2, 3.9, 4, 9, 12]  # the geometric median of these is a filter at 3.9 to 4
    model, analysis = studied(graph(CHAIN, w1=line, w2=np.ones((5, 6, 3, 3), np.float32)))
    assert curve(scores(model, analysis, 0, "fpgm", {}))[0][0] in (2, 3)
    assert curve(scores(model, analysis, 0, "l1", {}))[0][0] == 0


def test_fpgm_of_equal_filters_is_zero_not_a_root_of_a_negative_number():
    model, analysis = studied(graph(CHAIN, w1=np.full((6, 3, 3, 3), 0.1, np.float32)))
    found = scores(model, analysis, 0, "fpgm", {})
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("importance", "formula"),
    [
        ("wanda", lambda w, x: np.linalg.norm(w) * np.sqrt((x**2).mean())),
        ("activation", lambda w, x: np.linalg.norm(w) ** 2 * x.var()),
    ],
)
@pytest.mark.parametrize("text", [CHAIN, FORKED])
def test_scores_from_activations_are_those_of_the_values_that_onnx_runtime_computes(importance, formula, text):
    model, analysis = studied(graph(text))
    items = feeds(model, 7, batch=3)
    values = activations(model, "b", items)
    expected = np.zeros(6)
    for weight in ("w2", "w3") if text is FORKED else ("w2",):
        w = array(model, weight)
        each = np.array([formula(w[:, c], values[:, c]) for c in range(6)])
        expected += each / each.sum()  # every reader counts alike
    removal = ranked(model, analysis, importance, context(items))["Conv_a"]
    ascending = np.sort(expected)
    np.testing.assert_array_equal(removal.order, np.argsort(expected))
    np.testing.assert_allclose(removal.loss[1:], np.cumsum(ascending) / expected.mean(), rtol=1e-4)


def test_a_constant_channel_is_worth_nothing_by_variance_and_something_by_wanda():
    weight = graph(CHAIN).graph.initializers["w1"].const_value.numpy().copy()
    weight[4] = 0
    bias = np.array([0, 0, 0, 0, 5, 0], np.float32)
    model, analysis = studied(graph(CHAIN, w1=weight, wb1=bias))
    items = context(feeds(model, 4))
    assert ranked(model, analysis, "activation", items)["Conv_a"].order[0] == 4
    assert ranked(model, analysis, "wanda", items)["Conv_a"].order[0] != 4


def test_without_data_a_score_from_activations_falls_back_to_l1():
    model, analysis = studied(graph(CHAIN))
    np.testing.assert_array_equal(scores(model, analysis, 0, "wanda", {}), scores(model, analysis, 0, "l1", {}))


def test_the_curve_of_losses_rises_and_ends_with_the_number_of_classes():
    values = np.random.default_rng(0).random(12)
    order, loss = curve(values)
    assert (np.diff(values[order]) >= 0).all()
    assert (np.diff(loss) >= 0).all()
    assert loss[-1] == pytest.approx(12)
    assert curve(np.zeros(3))[1].tolist() == [0, 0, 0, 0]
