"""Histograms of activations: their counts, and what ranges leave out of them, are those of the values themselves."""

from __future__ import annotations

import doctest
import json

import numpy as np
import onnx_ir as ir
import pytest
from graphs import feeds, graph, run
from quantize_cases import quantized

from onnxcomp.calibration.accumulators import Histogram
from onnxcomp.passes.quantize import histograms
from onnxcomp.passes.quantize.histograms import BY_HAND, coarse
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.report.reasons import Reason

TAILED = """g (float[N,8,8,8] x, float[8,8,1,1] w1, float[8,8,1,1] w2) => (float[N,8,8,8] y, float[N,8,8,8] a) {
    a = Conv(x, w1) t = Add(a, x) y = Conv(t, w2)
}"""
SILU = """g (float[N,8,8,8] x, float[8,8,1,1] w1, float[8,8,1,1] w2) => (float[N,8,8,8] y) {
    a = Conv(x, w1) s = Sigmoid(a) b = Mul(a, s) y = Conv(b, w2)
}"""


def tailed(count: int = 6) -> tuple[ir.Model, list[dict[str, np.ndarray]]]:
    """A network with the cubes of normal values as its input: long tails on both sides."""
    model = graph(TAILED)
    return model, [{"x": f["x"] ** 3} for f in feeds(model, count, batch=4)]


@pytest.mark.parametrize("spread", [(-1, 1), (0, 0), (0, 5), (-0.01, 90), (-7, 0), (3, 3)])
@pytest.mark.parametrize("most", [4, 33, 64])
def test_coarse_bins_hold_the_values_that_lie_in_them(spread: tuple[float, float], most: int) -> None:
    values = np.random.default_rng(0).uniform(*spread, 10_000).astype(np.float32)
    values[::7] = 0
    fine = Histogram()
    fine.add(values)
    start, width, counts = coarse(fine, most)
    assert 1 <= len(counts) <= most
    assert (start / width).is_integer()  # 0 is an edge
    np.testing.assert_array_equal(counts, np.histogram(values, start + width * np.arange(len(counts) + 1))[0])
    assert counts.sum() == 10_000


def test_the_shares_beyond_a_range_are_those_of_the_values() -> None:
    model, items = tailed()
    found = quantized(model, items, exact_histograms=True, correct="none", tensors={"*": (-3.0, 2.0)})
    ranges = found.plan.ranges()
    assert ranges is not None
    seen = {"x": np.concatenate([f["x"] for f in items]), "a": np.concatenate([run(model, f)[1] for f in items])}
    shown = {r.name: r for r in ranges.shown}
    assert {"x", "a"} <= set(shown)
    assert ranges.activations == sum(p.axis is None for p in found.plan.tensors.values())
    for name, values in seen.items():
        r, step = shown[name], found.plan.tensors[name].scale[0]
        assert (r.low, r.high) == pytest.approx((values.min(), values.max()), rel=1e-5)
        beyond = np.mean((values < r.chosen[0] - step / 2) | (values > r.chosen[1] + step / 2))
        assert r.clipped == r.beyond == pytest.approx(beyond, rel=0.03)
        assert 0.05 < r.clipped < 0.5
        assert r.method == BY_HAND
        assert sum(r.counts) == values.size
        assert r.chosen[1] - r.chosen[0] == pytest.approx(255 * step, rel=1e-5)


def test_other_ranges_in_the_plan_are_told_as_what_they_are() -> None:
    model, items = tailed()
    plan = quantized(model, items, correct="none").plan

    def told(changed: QuantPlan) -> dict[str, tuple[str, float]]:
        found = changed.ranges()
        assert found is not None
        return {r.name: (r.method, r.clipped) for r in found.shown}

    assert told(plan)["x"][0] == "mse"
    assert told(plan.with_ranges("minmax"))["x"] == ("minmax", 0.0)
    own = plan.tensors["x"].model_copy(update={"scale": (plan.tensors["x"].scale[0] / 3,)})
    method, clipped = told(plan.model_copy(update={"tensors": plan.tensors | {"x": own}}))["x"]
    assert method == BY_HAND
    assert clipped > told(plan)["x"][1]


def test_what_an_activation_flattens_lies_beyond_but_is_not_clipped() -> None:
    model = graph(SILU, w1=np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1) * 12)
    found = quantized(model, feeds(model, 6, batch=4), correct="none", exact_histograms=True).plan.ranges()
    assert found is not None
    (r,) = (r for r in found.shown if r.name == "a")
    assert r.through == "Sigmoid"
    assert r.chosen[0] > -10 > r.low
    assert r.beyond > 0.1
    assert r.clipped < 0.001


def test_a_range_that_nothing_reads_in_int8_any_more_is_left_out() -> None:
    model, items = tailed()
    found = quantized(model, items, correct="none")
    plan, names = found.plan, [node.name or "" for node in found.before.graph]
    left = plan.with_float(frozenset(names[:2]), Reason.EXCLUDED, "?").ranges()
    assert left is not None
    assert {r.name for r in left.shown} == {"t", "y"}
    assert plan.with_float(frozenset(plan.nodes), Reason.EXCLUDED, "?").ranges() is None


def test_a_plan_keeps_the_longest_tails_and_can_do_without_any() -> None:
    model, items = tailed()
    plan = quantized(model, items, correct="none").plan
    again = QuantPlan.model_validate_json(plan.model_dump_json())
    assert again.ranges() == plan.ranges()
    bare = json.loads(plan.model_dump_json())
    bare.pop("histograms")
    assert QuantPlan.model_validate(bare).ranges() is None
    ends = {name: [plan.tensors[name].ends()] for name in plan.histograms}
    (kept,) = histograms.longest_tails(plan.histograms, ends, most=1)
    worth = {name: h.left_out(ends[name][0]) for name, h in plan.histograms.items()}
    assert worth[kept] == max(worth.values()) > 0.03


def test_the_example_in_the_docstring_runs() -> None:
    assert doctest.testmod(histograms).failed == 0
