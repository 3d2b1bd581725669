"""Greedy block OBS against brute force: every loss is that of a least squares re-solve of all readers."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import feeds, graph, reader

from onnxcomp.errors import DataError
from onnxcomp.model.normalize import normalize
from onnxcomp.passes.prune.obs import CellUses, ObserveOptions, Use, observe_uses, removal_order
from onnxcomp.passes.prune.obs_sensitivity import FRACTIONS, curve, observe_sensitivity
from onnxcomp.runtime.session import SessionConfig

ONE = SessionConfig(threads=1)


def moments(columns, seed=0, groups=1, n=2000):
    """Correlated, well conditioned second moments [groups, columns, columns]."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, n, columns)) @ (np.eye(columns) + 0.5 * rng.standard_normal((columns, columns)))
    return np.swapaxes(x, 1, 2) @ x / n


def brute_force(uses, order, size):
    """Relative error of the readers after the first k classes, each solved anew by itself from the start."""
    losses = []
    for k in range(size + 1):
        shares = []
        for w, h, class_of in uses:
            taps = w.shape[0] * w.shape[2] // len(class_of)
            kept = np.repeat(~np.isin(class_of, order[:k]), taps).reshape(w.shape[0], -1)
            lost = total = 0.0
            for g in range(len(w)):
                new = np.zeros_like(w[g])
                s = kept[g]
                new[:, s] = w[g] @ h[g][:, s] @ np.linalg.inv(h[g][np.ix_(s, s)])
                lost += np.trace((w[g] - new) @ h[g] @ (w[g] - new).T)
                total += np.trace(w[g] @ h[g] @ w[g].T)
            shares.append(lost / total)
        losses.append(np.mean(shares))
    return np.array(losses)


def weights(groups, out, columns, seed=1):
    return np.random.default_rng(seed).standard_normal((groups, out, columns))


READERS = {
    "one product": [(weights(1, 4, 6), moments(6), np.arange(6))],
    "more outputs than columns": [(weights(1, 30, 6), moments(6), np.arange(6))],
    "taps": [(weights(1, 3, 18), moments(18), np.arange(6))],
    "two readers of other widths": [
        (weights(1, 4, 6), moments(6), np.arange(6)),
        (weights(1, 2, 54, seed=5), moments(54, 2), np.arange(6)[::-1]),
    ],
    "channels of other cells": [(weights(1, 4, 9), moments(9), np.array([-1, 0, 1, -1, 2, 3, 4, 5, -1]))],
    "classes of several channels": [(weights(1, 4, 10), moments(10), np.array([0, 1, 2, 3, 4, 5, 0, 1, 1, 5]))],
    "groups": [(weights(3, 2, 4), moments(4, groups=3), np.array([0, 1, 2, 3, 4, 5]))],
}


@pytest.mark.parametrize("name", READERS)
def test_every_loss_equals_the_least_squares_re_solve(name):
    uses = READERS[name]
    found = removal_order(uses, 6, ridge=1e-15)
    assert sorted(found.order) == list(range(6))
    assert found.loss[3] > 1e-3
    np.testing.assert_allclose(found.loss, brute_force(uses, found.order, 6), atol=1e-8)


@pytest.mark.parametrize("name", READERS)
def test_each_step_takes_the_class_that_costs_least(name):
    uses = READERS[name]
    found = removal_order(uses, 6, ridge=1e-15)
    for k in range(5):
        others = [c for c in range(6) if c not in found.order[:k]]
        costs = {c: brute_force(uses, np.array([*found.order[:k], c]), 6)[k + 1] for c in others}
        assert costs[int(found.order[k])] <= min(costs.values()) + 1e-9


def test_of_two_equal_channels_one_goes_first_and_costs_nothing():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 5))
    x[:, 3] = x[:, 1]
    found = removal_order([(weights(1, 4, 5), (x.T @ x / 500)[None], np.arange(5))], 5, ridge=1e-6)
    assert found.order[0] in (1, 3)
    assert found.loss[1] < 1e-5 < 1e-2 < found.loss[2]


def test_the_order_of_equal_classes_is_that_of_their_numbers():
    h, w = np.eye(6)[None], np.ones((1, 3, 6))
    found = removal_order([(w, h, np.arange(6))], 6)
    np.testing.assert_array_equal(found.order, np.arange(6))
    np.testing.assert_allclose(found.loss, np.arange(7) / 6, atol=1e-12)


def test_a_diagonal_takes_channels_as_independent():
    w, variance = weights(1, 3, 8), np.array([[4.0, 1.0, 9.0, 2.0, 1.0, 1.0, 3.0, 0.0]])
    found = removal_order([(w, variance, np.arange(4))], 4)
    own = ((w[0] ** 2).sum(axis=0) * variance[0]).reshape(4, 2).sum(axis=1)
    np.testing.assert_array_equal(found.order, np.argsort(own))
    np.testing.assert_allclose(found.loss[1:], np.cumsum(np.sort(own)) / own.sum())


def test_a_cell_without_readers_loses_nothing():
    found = removal_order([], 3)
    np.testing.assert_array_equal(found.order, np.arange(3))
    assert not found.loss.any()


NET = """g (float[N,3,8,8] x, float[6,3,3,3] w1, float[6] wb1, float[4,6,3,3] w2, float[5,6,1,1] w3)
    => (float[N,4,6,6] y, float[N,5,8,8] z) {
    a = Conv<pads = [1,1,1,1]>(x, w1, wb1)
    b = Relu(a)
    y = Conv(b, w2)
    z = Conv(b, w3)
}"""


def net():
    """Channels 1 and 4 of b are equal; channel 2 never changes, its bias is all there is."""
    rng = np.random.default_rng(0)
    w1 = rng.standard_normal((6, 3, 3, 3)).astype(np.float32)
    bias = np.zeros(6, np.float32)
    w1[4], w1[2], bias[2] = w1[1], 0, 50.0
    return normalize(graph(NET, w1=w1, wb1=bias)).model


def cell(model):
    names = [n.name for n in model.graph if n.op_type == "Conv"]
    return CellUses("b", 6, (Use(names[1], np.arange(6)), Use(names[2], np.arange(6))))


@pytest.mark.parametrize("memory", [1 << 30, 1])
def test_constant_and_equal_channels_of_a_network_go_first(memory):
    model = net()
    found = observe_uses(model, [cell(model)], reader(feeds(model, 20)), ONE, ObserveOptions(memory=memory))["b"]
    assert found.order[0] == 2, "a bias takes up a constant"
    assert found.order[1] in (1, 4)
    assert found.loss[2] < 1e-3 < 1e-2 < found.loss[3]


def test_without_a_bias_to_take_it_up_a_constant_channel_is_not_free():
    text = "g (float[N,4] x, float[4,3] w) => (float[N,3] y) { y = MatMul(x, w) }"
    model = normalize(graph(text)).model
    items = [{"x": f["x"] + np.array([0, 9, 0, 0], np.float32)} for f in feeds(model, 50)]
    uses = (Use(model.graph[0].name, np.arange(4)),)
    found = observe_uses(model, [CellUses("x", 4, uses)], reader(items), ONE)["x"]
    assert found.order[-1] == 1


def test_where_the_matrix_is_too_large_the_variance_decides():
    model = net()
    options = ObserveOptions(largest=8)
    found = observe_uses(model, [cell(model)], reader(feeds(model, 20)), ONE, options)["b"]
    assert found.order[0] == 2, "no variance"
    assert found.loss[2] > 1e-2, "equal channels are not seen as such"


def test_the_feeds_order_of_removal_and_the_model_are_reproducible():
    model = net()
    first, again = (observe_uses(model, [cell(model)], reader(feeds(model, 8)), ONE)["b"] for _ in range(2))
    np.testing.assert_array_equal(first.order, again.order)
    np.testing.assert_array_equal(first.loss, again.loss)
    np.testing.assert_array_equal(
        model.graph.initializers["w2"].const_value.numpy(), net().graph.initializers["w2"].const_value.numpy()
    )


def test_no_feeds_is_an_error():
    model = net()
    with pytest.raises(DataError, match="empty"):
        observe_uses(model, [cell(model)], reader([]), ONE)


def test_measured_errors_grow_with_what_goes_and_are_nothing_for_what_is_not_needed():
    model, told = net(), []
    removals, errors = observe_sensitivity(
        model, [cell(model)], reader(feeds(model, 20)), ONE, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 1)]
    assert len(errors["b"]) == len(FRACTIONS)
    assert errors["b"][1] < 1e-3 < 1e-2 < errors["b"][-1]
    whole = curve(removals["b"], errors["b"])
    assert len(whole) == 7
    assert (np.diff(whole) >= 0).all()
    for fraction, error in zip(FRACTIONS, np.maximum.accumulate(errors["b"]), strict=True):
        assert whole[int(6 * fraction)] == pytest.approx(error, abs=1e-9)
