"""Two models walked in pieces against one run of each."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import feeds, graph, reader, run

from onnxcomp.calibration.lockstep import Stop, Walk, can_join, joined, lockstep
from onnxcomp.errors import DataError, ModelError
from onnxcomp.model.normalize import normalize
from onnxcomp.runtime.session import SessionConfig

ONE = SessionConfig(threads=1)

NET = """g (float[N,4] x, float[4,4] w1, float[4,4] w2, float[4,4] w3) => (float[N,4] y) {
    a = MatMul(x, w1)
    b = Relu(a)
    c = MatMul(b, w2)
    d = Add(c, b)
    e = MatMul(d, w3)
    y = Tanh(e)
}"""

BRANCHING = """g (float[N,4] x, bool w, float[4,4] w1) => (float[N,4] y) {
    a = MatMul(x, w1)
    b = Relu(a)
    c = If<then_branch = t () => (float[M,4] p) { p = Mul(a, b) },
           else_branch = f () => (float[M,4] q) { q = Neg(b) }>(w)
    y = Add(c, x)
}"""


def net(text=NET, **weights):
    return normalize(graph(text, **weights)).model


def everything(model, items):
    """Outputs of single runs, joined."""
    return [np.concatenate(parts) for parts in zip(*(run(model, item) for item in items), strict=True)]


def test_values_fetched_piece_by_piece_equal_those_of_one_run():
    model, items = net(), feeds(net(), 3)
    whole = net()
    for name in ("a", "c", "e"):
        whole.graph.outputs.append(next(v for n in whole.graph for v in n.outputs if v.name == name))
    walk = Walk(model, items, ONE)
    found = {name: walk.fetch(name)[0] for name in ("a", "c", "e", "y")}
    expected = dict(zip(("y", "a", "c", "e"), everything(whole, items), strict=True))
    for name in found:
        np.testing.assert_allclose(np.concatenate(found[name]), expected[name], atol=1e-6)


def test_a_weight_changed_on_the_way_counts_for_what_comes_after():
    model, items = net(), feeds(net(), 2)
    walk = Walk(model, items, ONE)
    before = np.concatenate(walk.fetch("c")[0])
    model.graph.initializers["w3"].const_value = type(model.graph.initializers["w3"].const_value)(
        np.zeros((4, 4), np.float32), name="w3"
    )
    assert np.abs(before).max() > 0
    assert not np.concatenate(walk.fetch("y")[0]).any()


def test_only_what_is_still_needed_is_held():
    model, items = net(), feeds(net(), 2, batch=5)
    walk = Walk(model, items, ONE)
    one = 2 * 5 * 4 * 4  # bytes of one value over both feeds
    assert walk.live_bytes == one  # x
    walk.fetch("a")
    assert walk.live_bytes == one  # a: x was read by one node only
    walk.fetch("c")
    assert walk.live_bytes == 2 * one  # c and b, which the Add reads
    walk.fetch("y")
    assert walk.live_bytes == one  # the output
    assert walk.peak_bytes <= 4 * one


def test_a_value_that_is_gone_is_an_error_with_its_name():
    walk = Walk(net(), feeds(net(), 1), ONE)
    walk.fetch("e")
    with pytest.raises(ModelError, match="'a'"):
        walk.fetch("a")


@pytest.mark.parametrize("condition", [True, False])
def test_what_a_body_captures_is_an_input_of_its_piece(condition):
    model = net(BRANCHING, w=np.array(condition))
    items = feeds(model, 2)
    walk = Walk(model, items, ONE)
    walk.fetch("b")
    np.testing.assert_allclose(np.concatenate(walk.fetch("y")[0]), everything(model, items)[0], atol=1e-6)


def test_two_models_of_other_widths_are_walked_together():
    wide = net()
    narrow = net(
        NET.replace("float[4,4] w2", "float[2,4] w2")
        .replace("float[4,4] w1", "float[4,2] w1")
        .replace("d = Add(c, b)", "d = Relu(c)")
    )
    items = feeds(wide, 12)
    stops = [Stop(("a",), ("a",)), Stop(("c",), ("b",))]
    both = lockstep(wide, narrow, reader(items), ONE, stops, limit=1 << 20, parts=4)
    assert (both.rows, both.limited, len(both.batches)) == (12, False, 4)
    assert both.original.fetch("a")[0][0].shape == (3, 4)
    assert both.other.fetch("b")[0][0].shape == (3, 2)
    np.testing.assert_allclose(np.concatenate(both.other.fetch("y")[0]), everything(narrow, items)[0], atol=1e-6)


def test_the_byte_limit_decides_how_many_feeds_are_used():
    model, items = net(), feeds(net(), 12)
    stops = [Stop(("a",), ("a",)), Stop(("c",), ("c",))]
    small = lockstep(model, net(), reader(items), ONE, stops, limit=500)
    assert small.limited
    assert 1 <= small.rows < 12
    assert lockstep(model, net(), reader(items), ONE, stops, limit=1).rows == 1


def test_feeds_are_joined_only_where_axis_0_is_one_symbol():
    assert can_join(net())
    assert not can_join(net(NET.replace("float[N,4] x", "float[2,4] x")))
    assert not can_join(net(NET.replace("(float[N,4] y)", "(float[M,4] y)").replace("Tanh(e)", "Transpose(e)")))


def test_joined_feeds_keep_order_and_a_new_shape_begins_a_new_batch():
    items = [{"x": np.full((1, size), i)} for i, size in enumerate([2, 2, 2, 3, 3])]
    batches = list(joined(items, 2))
    assert [b["x"].shape for b in batches] == [(2, 2), (1, 2), (2, 3)]
    assert [row[0] for b in batches for row in b["x"]] == [0, 1, 2, 3, 4]


def test_no_feed_is_an_error():
    with pytest.raises(DataError, match="empty"):
        lockstep(net(), net(), reader([]), ONE, [], limit=1)
