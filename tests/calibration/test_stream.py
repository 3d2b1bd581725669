"""Streamed observation of tensors against all values fetched from ONNX Runtime and counted by numpy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import feeds, graph, reader

from onnxcomp.calibration.accumulators import Histogram
from onnxcomp.calibration.probes import SAMPLE
from onnxcomp.calibration.stream import Observed, channel_moments, observe
from onnxcomp.errors import DataError
from onnxcomp.model.normalize import normalize
from onnxcomp.runtime.session import SessionConfig, open_session

ONE_THREAD = SessionConfig(threads=1)


def same(a: Observed, b: Observed) -> bool:
    return (
        a.extremes == b.extremes
        and (a.histogram.exponent, a.histogram.zeros) == (b.histogram.exponent, b.histogram.zeros)
        and np.array_equal(a.histogram.counts, b.histogram.counts)
    )


def seen(model, names, items, **options):
    return observe(model, names, reader(items), ONE_THREAD, **options)


def fetched(model, name, items):
    """All values of one tensor, by making it an output."""
    plain = model.clone()
    value = next(v for n in plain.graph for v in n.outputs if v.name == name)
    plain.graph.outputs.append(value)
    with open_session(plain, ONE_THREAD) as session:
        return [session.run(feed, [name])[0] for feed in items]


def joined(items):
    return {name: np.concatenate([item[name] for item in items]) for name in items[0]}


NET = """g (float[N,3,40,40] x, float[8,3,3,3] w) => (float[N,8,38,38] y) {
    c = Conv(x, w)
    r = Relu(c)
    y = Mul(r, r)
}"""


def test_extremes_and_exact_histograms_equal_those_of_all_values():
    model, items = graph(NET), feeds(graph(NET), 3)
    found = seen(model, ["c", "r"], items, exact=True)
    for name in ("c", "r"):
        values = np.concatenate([a.ravel() for a in fetched(model, name, items)])
        offline = Histogram()
        offline.add(values)
        assert (found[name].extremes.minimum, found[name].extremes.maximum) == (values.min(), values.max())
        np.testing.assert_array_equal(found[name].histogram.counts, offline.counts)
        assert found[name].histogram.zeros == offline.zeros


def test_the_sample_keeps_exact_ends_and_the_shape_of_the_distribution():
    model, items = graph(NET), feeds(graph(NET), 4)
    sampled, exact = (seen(model, ["c"], items, exact=flag)["c"] for flag in (False, True))
    assert sampled.extremes == exact.extremes
    assert 0 < sampled.histogram.total < exact.histogram.total
    assert sampled.histogram.total <= 4 * SAMPLE
    # Two cumulative distributions of n independent values differ by about 1/√n.
    exact.histogram._grow(sampled.histogram.exponent)
    sampled.histogram._grow(exact.histogram.exponent)
    one, two = (np.cumsum(h.counts) / h.total for h in (sampled.histogram, exact.histogram))
    assert np.abs(one - two).max() < 3 / np.sqrt(sampled.histogram.total)


@pytest.mark.parametrize("batch_symbol", ["N", "4"])
def test_batches_order_and_merged_halves_give_identical_statistics(batch_symbol):
    model = graph(NET.replace("N", "N"))
    single = feeds(model, 8)
    names = ["x", "c", "r", "y"]
    whole = seen(model, names, single)
    batched = seen(
        model if batch_symbol == "N" else graph(NET.replace("N", "4")), names, [joined(single[:4]), joined(single[4:])]
    )
    backwards = seen(model, names, single[::-1])
    left, right = seen(model, names, single[:3]), seen(model, names, single[3:])
    for name in names:
        left[name].merge(right[name])
        assert whole[name].histogram.total > 0
        assert same(whole[name], batched[name]), name
        assert same(whole[name], backwards[name]), name
        assert same(whole[name], left[name]), name


def test_input_shapes_may_change_from_feed_to_feed():
    text = "g (float[N,C,H,W] x) => (float[N,C,H,W] y) { r = Relu(x) y = Mul(r, r) }"
    rng = np.random.default_rng(0)
    shapes = [(1, 3, 8, 8), (2, 3, 64, 64), (1, 1, 200, 300), (1, 3, 1, 1)]
    items = [{"x": rng.standard_normal(s).astype(np.float32)} for s in shapes]
    found = seen(graph(text), ["x", "r"], items)
    everything = np.concatenate([i["x"].ravel() for i in items])
    assert found["x"].extremes.minimum == everything.min()
    assert found["r"].extremes.maximum == everything.max()
    # Rows of 12,288 and of 60,000 values are sampled, every 13th; the others are short.
    assert found["x"].histogram.total == 3 * 64 + 2 * -(-12288 // 13) + -(-60000 // 13) + 3
    assert same(found["x"], seen(graph(text), ["x"], items[::-1])["x"])


@pytest.mark.parametrize(("shape", "value"), [("", np.float32(-2.5)), ("N", np.arange(-3, 4, dtype=np.float32))])
def test_scalars_and_vectors_are_observed_whole(shape, value):
    model = graph(f"g (float[{shape}] x) => (float[{shape}] y) {{ y = Neg(x) }}")
    found = seen(model, ["x", "y"], [{"x": np.asarray(value)}])
    assert found["x"].extremes.minimum == np.min(value)
    assert found["y"].extremes.maximum == -np.min(value)
    assert found["x"].histogram.total == np.size(value)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 3, 4), (1, 200, 300)])
def test_a_tensor_of_unknown_rank_is_observed_whatever_its_rank_turns_out_to_be(shape):
    model = graph(
        """g (float[a,b,c] x, int64[r] s) => (float[d] y) {
            t = Reshape(x, s)
            u = Neg(t)
            f = Constant<value = int64[1] {-1}>()
            y = Reshape(u, f)
        }"""
    )
    assert next(v for n in model.graph for v in n.outputs if v.name == "u").shape is None
    x = np.random.default_rng(1).standard_normal((1, 1, int(np.prod(shape)))).astype(np.float32)
    found = seen(model, ["u"], [{"x": x, "s": np.array(shape, np.int64)}])["u"]
    assert (found.extremes.minimum, found.extremes.maximum) == (-x.max(), -x.min())
    assert found.histogram.total == (x.size if x.size <= SAMPLE else -(-x.size // 13))


@pytest.mark.parametrize("opset", range(13, 23))
def test_every_opset_from_13_on_can_be_observed(opset):
    model = graph(NET, opset=opset, ir_version=8 if opset < 19 else 10)
    found = seen(model, ["x", "c", "y"], feeds(model, 1))
    assert found["c"].histogram.total > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 1, 2500, -1])
def test_one_value_that_is_not_finite_is_noticed_wherever_it_stands(bad, position):
    # ReduceMin and ReduceMax of ONNX Runtime notice a NaN at index 0 only.
    model = graph("g (float[N,5000] x) => (float[N,5000] y) { y = Neg(x) }")
    x = np.random.default_rng(0).standard_normal((1, 5000)).astype(np.float32)
    x[0, position] = bad
    found = seen(model, ["x", "y"], [{"x": x}])
    assert not found["x"].extremes.finite
    assert not found["y"].extremes.finite


def test_the_largest_floats_are_finite_even_where_their_sum_is_not():
    model = graph("g (float[N,64] x) => (float[N,64] y) { y = Neg(x) }")
    x = np.full((1, 64), np.finfo(np.float32).max)
    found = seen(model, ["x"], [{"x": x}])["x"]
    assert found.extremes.finite
    assert found.extremes.maximum == x.max()


def test_a_tensor_that_is_empty_in_one_feed_adds_nothing_and_one_that_is_always_empty_stays_unseen():
    model = graph(
        """g (float[N,4] x, int64[K] keep) => (float[K,4] y) {
            y = Gather<axis = 0>(x, keep)
        }"""
    )
    x = np.ones((2, 4), np.float32)
    none, one = np.zeros(0, np.int64), np.zeros(1, np.int64)
    found = seen(model, ["y"], [{"x": x, "keep": none}, {"x": x, "keep": one}])["y"]
    assert (found.extremes.minimum, found.histogram.total) == (1.0, 4)
    empty = seen(model, ["y"], [{"x": x, "keep": none}])["y"]
    assert empty.extremes.minimum > empty.extremes.maximum
    assert empty.histogram.total == 0


def test_more_than_a_thousand_tensors_are_observed_in_one_pass():
    body = "t0 = Relu(x) " + " ".join(f"t{i} = Add(t{i - 1}, x)" for i in range(1, 1100))
    model = normalize(graph(f"g (float[N,4] x) => (float[N,4] t1099) {{ {body} }}")).model
    names = ["x", *(f"t{i}" for i in range(1100))]
    found = seen(model, names, [{"x": np.ones((1, 4), np.float32)}])
    assert found["t1099"].extremes.maximum == 1100.0
    assert len(found) == 1101


def test_what_is_kept_does_not_grow_with_the_number_of_feeds():
    model = graph(NET)

    def kept(count):
        return sum(o.histogram.counts.nbytes for o in seen(model, ["x", "c"], feeds(model, count)).values())

    assert kept(1) == kept(12)


def test_feeds_are_read_one_by_one_and_progress_is_told():
    model, items = graph(NET), feeds(graph(NET), 3)
    events: list[object] = []

    def open_():
        for item in items:
            events.append("read")
            yield item

    source = reader(items)
    source = type(source)(open_, source.kind, source.name, 3)
    observe(model, ["x"], source, ONE_THREAD, progress=lambda done, total: events.append((done, total)))
    assert events == ["read", (1, 3), "read", (2, 3), "read", (3, 3)]


def test_the_model_is_not_changed():
    model = graph(NET)
    before = ir.to_proto(model).SerializeToString()
    seen(model, ["x", "c", "y"], feeds(model, 1))
    assert ir.to_proto(model).SerializeToString() == before


def test_no_feed_at_all_is_an_error_that_says_what_to_give():
    with pytest.raises(DataError, match="empty"):
        seen(graph(NET), ["x"], [])


def test_float16_tensors_are_observed():
    model = graph("g (float16[N,8] x) => (float16[N,8] y) { y = Neg(x) }")
    x = np.linspace(-1, 1, 8).astype(np.float16)[None]
    found = seen(model, ["x", "y"], [{"x": x}])
    assert found["y"].extremes.maximum == 1.0


@pytest.mark.parametrize("pixels", ["7000", "M"])
def test_rows_of_three_columns_are_sampled_across_all_three(pixels):
    # A stride of 3 would see the first column only.
    columns = np.array([0.0, 10.0, 20.0], np.float32)
    model = graph(f"g (float[N,{pixels},3] x) => (float[N,{pixels},3] y) {{ y = Neg(x) }}")
    found = seen(model, ["x"], [{"x": np.tile(columns, (1, 7000, 1))}])["x"].histogram
    assert found.zeros / found.total == pytest.approx(1 / 3, abs=0.01)


def test_channel_moments_equal_numpys_over_all_feeds():
    model, items = normalize(graph(NET)).model, feeds(graph(NET), 3)
    found = channel_moments(model, ["c"], reader(items), ONE_THREAD)["c"]
    values = np.concatenate(fetched(model, "c", items)).astype(np.float64)
    np.testing.assert_allclose(found.mean, values.mean(axis=(0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(found.variance(), values.var(axis=(0, 2, 3)), rtol=1e-9)
