"""The refit against what it must reach: exact recovery where there is one, and never worse on feeds it has not seen."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import feeds, graph, reader, run

from onnxcomp.model.normalize import clone, normalize
from onnxcomp.model.shapes import refresh
from onnxcomp.refit.reach import Reach
from onnxcomp.refit.refit import RefitOptions, refit
from onnxcomp.runtime.session import SessionConfig

ONE = SessionConfig(threads=1)
FEW = RefitOptions(rows=4000)


def net(text, **weights):
    return normalize(graph(text, **weights)).model


def cut(model, **slices):
    """A copy with initializers cut: name -> index."""
    result = clone(model)
    for name, index in slices.items():
        value = result.graph.initializers[name]
        array = np.ascontiguousarray(value.const_value.numpy()[index])
        value.const_value, value.shape = ir.tensor(array, name=name), ir.Shape(array.shape)
    refresh(result)
    return result


def error(original, model, items):
    pairs = [(run(original, f)[0].astype(np.float64), run(model, f)[0]) for f in items]
    return sum(((y - z) ** 2).sum() for y, z in pairs) / sum((y**2).sum() for y, _ in pairs)


CHAIN = """g (float[N,3,6,6] x, float[8,3,3,3] w1, float[8] wb1, float[5,8,3,3] w2, float[5] wb2)
    => (float[N,5,6,6] y) {
    a = Conv<pads = [1,1,1,1]>(x, w1, wb1)
    b = Relu(a)
    y = Conv<pads = [1,1,1,1]>(b, w2, wb2)
}"""


def duplicated():
    """Channel 7 of the chain is channel 2, times 3."""
    model = net(CHAIN)
    w1 = model.graph.initializers["w1"].const_value.numpy().copy()
    b1 = model.graph.initializers["wb1"].const_value.numpy().copy()
    w1[7], b1[7] = 3 * w1[2], 3 * b1[2]
    return net(CHAIN, w1=w1, wb1=b1)


def chain_cut(model, kept):
    keep = dict.fromkeys(("a", "b"), (None, kept, None, None))
    return cut(model, w1=kept, wb1=kept, w2=(slice(None), kept)), keep


def test_a_channel_that_another_one_replaces_is_recovered_exactly():
    model = duplicated()
    pruned, keep = chain_cut(model, np.arange(7))
    items, unseen = feeds(model, 30), feeds(model, 5, seed=9)
    options = RefitOptions(strengths=(1e-6,), rows=10_000)
    result = refit(model, pruned, keep, reader(items), ONE, options)
    assert error(model, pruned, unseen) > 0.05
    assert error(model, result.model, unseen) < 1e-8
    assert result.after < 1e-8 < result.before
    assert "1 layer refitted" in result.sentence
    assert [layer.node for layer in result.layers] == [n.name for n in model.graph if n.op_type == "Conv"]


@pytest.mark.parametrize("kept", [[0, 2, 3, 5], [1, 4, 6]])
def test_a_refitted_network_is_closer_on_feeds_it_has_not_seen(kept):
    model = net(CHAIN)
    pruned, keep = chain_cut(model, np.array(kept))
    result = refit(model, pruned, keep, reader(feeds(model, 40)), ONE, FEW)
    unseen = feeds(model, 10, seed=9)
    assert error(model, result.model, unseen) < 0.8 * error(model, pruned, unseen)


def test_neither_model_is_changed():
    model = net(CHAIN)
    pruned, keep = chain_cut(model, np.arange(5))
    before = [ir.to_proto(m).SerializeToString() for m in (model, pruned)]
    refit(model, pruned, keep, reader(feeds(model, 10)), ONE, FEW)
    assert [ir.to_proto(m).SerializeToString() for m in (model, pruned)] == before


def test_a_missing_bias_is_added_to_take_up_the_mean_of_what_went():
    text = CHAIN.replace(", float[5] wb2", "").replace("(b, w2, wb2)", "(b, w2)").replace("Relu(a)", "Sigmoid(a)")
    model = net(text)
    pruned, keep = chain_cut(model, np.arange(6))
    result = refit(model, pruned, keep, reader(feeds(model, 20)), ONE, FEW)
    assert len(result.model.graph[2].inputs) == 3
    assert error(model, result.model, feeds(model, 5, seed=9)) < 0.5 * error(model, pruned, feeds(model, 5, seed=9))


RESIDUAL = """g (float[N,6] x, float[6,4] w1, float[4] wb1, float[4,6] w2, float[6] wb2, float[6,6] w3, float[6] wb3)
    => (float[N,6] y, float[N,6] z) {
    s = Gemm(x, w3, wb3)
    z = MatMul(x, w3)
    a = Gemm(s, w1, wb1)
    b = Relu(a)
    c = Gemm(b, w2, wb2)
    y = Add(s, c)
}"""


def test_the_last_layer_of_a_branch_makes_up_for_what_the_stream_lost():
    model = net(RESIDUAL)
    # w3 has two readers and so stays as it is: the stream comes out wrong, by something that the branch can see.
    pruned, items = clone(model), feeds(model, 200)
    broken = pruned.graph.initializers["w3"]
    broken.const_value = ir.tensor(broken.const_value.numpy() * np.float32(0.9), name="w3")
    result = refit(model, pruned, {}, reader(items), ONE, FEW)
    last = next(layer for layer in result.layers if layer.node == model.graph[4].name)
    assert last.level == "least squares"
    assert last.after < last.before
    unseen = feeds(model, 20, seed=9)
    assert error(model, result.model, unseen) < 0.9 * error(model, pruned, unseen)


def test_what_is_as_it_was_stays_as_it_was():
    model = net(CHAIN)
    result = refit(model, clone(model), {}, reader(feeds(model, 20)), ONE, FEW)
    assert result.layers == ()
    assert "brought nothing" in result.sentence
    for name, value in model.graph.initializers.items():
        np.testing.assert_array_equal(
            result.model.graph.initializers[name].const_value.numpy(), value.const_value.numpy()
        )


def test_weights_too_large_to_solve_get_a_scale_and_a_bias():
    model = net(CHAIN)
    pruned, keep = chain_cut(model, np.arange(6))
    options = RefitOptions(rows=4000, largest=30)
    result = refit(model, pruned, keep, reader(feeds(model, 40)), ONE, options)
    assert {layer.level for layer in result.layers} <= {"as it was", "bias", "scale and bias"}
    old, new = (m.graph.initializers["w2"].const_value.numpy() for m in (pruned, result.model))
    factors = (new / old).reshape(5, -1)
    np.testing.assert_allclose(factors, factors[:, :1] * np.ones_like(factors), rtol=1e-3)
    assert result.after < result.before


def test_a_depthwise_layer_is_refitted_channel_by_channel():
    text = """g (float[N,4,6,6] x, float[4,4,1,1] w0, float[4,1,3,3] w1) => (float[N,4,6,6] y) {
        a = Conv(x, w0) y = Conv<group = 4, pads = [1,1,1,1]>(a, w1) }"""
    model = net(text)
    pruned = clone(model)
    spoilt = pruned.graph.initializers["w1"]
    noise = np.random.default_rng(0).standard_normal((4, 1, 3, 3)).astype(np.float32)
    spoilt.const_value = ir.tensor(spoilt.const_value.numpy() + noise, name="w1")
    options = RefitOptions(strengths=(1e-7,), rows=4000)
    result = refit(model, pruned, {}, reader(feeds(model, 20)), ONE, options)
    new, old = (m.graph.initializers["w1"].const_value.numpy() for m in (result.model, model))
    np.testing.assert_allclose(new, old, atol=1e-3)


def test_batch_norm_matches_mean_and_variance_where_its_producer_could_not_be_refitted():
    text = """g (float[N,3,8,8] x, float[3] ws, float[3] wb, float[3] wm, float[3] wv) => (float[N,3,8,8] y) {
        a = Mul(x, x) y = BatchNormalization(a, ws, wb, wm, wv) }"""
    ones = {"ws": np.ones(3, np.float32), "wv": np.ones(3, np.float32)}
    model = net(text, **ones)
    pruned = net(text.replace("Mul(x, x)", "Abs(x)"), **ones)
    result = refit(model, pruned, {}, reader(feeds(model, 40)), ONE, FEW)
    (layer,) = result.layers
    assert layer.level == "moments"
    items = feeds(model, 20, seed=9)
    y, z = (np.concatenate([run(m, f)[0] for f in items]) for m in (model, result.model))
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), z.mean(axis=(0, 2, 3)), atol=0.1)
    np.testing.assert_allclose(y.std(axis=(0, 2, 3)), z.std(axis=(0, 2, 3)), rtol=0.15)


def test_layer_norm_gets_a_new_scale_and_bias():
    text = """g (float[N,5,8] x, float[8] ws, float[8] wb) => (float[N,5,8] y) {
        y = LayerNormalization<axis = -1>(x, ws, wb) }"""
    model = net(text)
    pruned = net(text, ws=np.ones(8, np.float32), wb=np.zeros(8, np.float32))
    result = refit(model, pruned, {}, reader(feeds(model, 40)), ONE, FEW)
    for name in ("ws", "wb"):
        new, old = (m.graph.initializers[name].const_value.numpy() for m in (result.model, model))
        np.testing.assert_allclose(new, old, atol=1e-3)


def test_values_that_a_relu_cuts_off_cost_nothing():
    # The second layer can't be fitted everywhere, but where its output is positive: a kink that only clipping explains.
    text = """g (float[N,2] x, float[2,3] w1, float[3] wb1, float[3,1] w2, float[1] wb2) => (float[N,1] y) {
        a = Gemm(x, w1, wb1) b = Relu(a) c = Gemm(b, w2, wb2) y = Relu(c) }"""
    w1 = np.array([[1, 0, -1], [0, 1, 0]], np.float32)
    weights = {
        "wb1": np.zeros(3, np.float32),
        "w2": np.array([[1], [1], [-3]], np.float32),
        "wb2": np.zeros(1, np.float32),
    }
    model = net(text, w1=w1, **weights)
    kept = np.arange(2)
    pruned = cut(model, w1=(slice(None), kept), wb1=kept, w2=kept)
    keep = dict.fromkeys(("a", "b"), (None, kept))
    result = refit(model, pruned, keep, reader(feeds(model, 2000)), ONE, FEW)
    unseen = feeds(model, 300, seed=9)
    plain, fitted = error(model, pruned, unseen), error(model, result.model, unseen)
    assert fitted < 0.95 * plain


@pytest.mark.parametrize("gain", [1.0, -2.0, 0.5])
def test_outside_of_the_bounds_the_activation_gives_one_value(gain):
    way = Reach(np.full(2, gain), np.full(2, 0.7), ends=(0.0, 6.0))
    rng = np.random.default_rng(0)
    other, y = rng.standard_normal((50, 1, 2)), 5 * rng.standard_normal((50, 1, 2))
    low, high = way.bounds(other)
    assert (low < high).all()
    assert ((y < low) | (y > high)).any()

    def activated(values):
        return np.clip(gain * values + 0.7 + other, 0.0, 6.0)

    np.testing.assert_allclose(activated(y), activated(np.clip(y, low, high)), atol=1e-12)


def test_a_model_that_cannot_be_cut_is_left_as_it_is_and_says_so():
    # The sequence is made before the second product, and read again after it.
    text = """g (float[N,4] x, float[4,4] w1, float[4,4] w2, int64 wi) => (float[N,4] y, float[N,8] z) {
        a = MatMul(x, w1)
        s = SequenceConstruct(a, x)
        b = SequenceAt(s, wi)
        y = MatMul(b, w2)
        z = ConcatFromSequence<axis = 1>(s)
    }"""
    model = net(text, wi=np.array(0))
    pruned = net(text, wi=np.array(0), w1=np.ones((4, 4), np.float32))
    result = refit(model, pruned, {}, reader(feeds(model, 10)), ONE, FEW)
    assert "can't be run in pieces" in result.sentence
    assert result.layers == ()


def test_the_byte_limit_is_said_aloud():
    model = net(CHAIN)
    pruned, keep = chain_cut(model, np.arange(6))
    result = refit(model, pruned, keep, reader(feeds(model, 40)), ONE, RefitOptions(rows=4000, limit=100_000))
    assert result.limited
    assert 1 < result.feeds < 40
    assert "memory limit" in result.sentence
