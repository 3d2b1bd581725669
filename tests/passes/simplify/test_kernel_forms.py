"""Forms for which ONNX Runtime has the faster kernel."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from graphs import context, feeds, graph
from simplify_cases import kinds, simplified

from onnxcomp.model.normalize import normalize
from onnxcomp.ops.targets import TARGETS
from onnxcomp.passes.simplify.simplify import Simplify
from onnxcomp.runtime.audit import operator_counts, optimized_graph


def mean(attributes: str, out: str, *, opset: int = 17, data: str = "N,4,6,6", extra: str = "", call: str = "x"):
    return graph(
        f"g (float[{data}] x{extra}) => (float[{out}] y) {{ y = ReduceMean<{attributes}>({call}) }}",
        opset=opset,
        **({"w_a": np.array([2, 3])} if extra else {}),
    )


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (mean("axes = [2, 3], keepdims = 1", "N,4,1,1"), ["GlobalAveragePool"]),
        (mean("axes = [-1, -2], keepdims = 0", "N,4"), ["GlobalAveragePool", "Flatten"]),
        (mean("axes = [2]", "N,4,1", data="N,4,6"), ["GlobalAveragePool"]),
        (
            mean("keepdims = 0", "N,4", opset=18, extra=", int64[2] w_a", call="x, w_a"),
            ["GlobalAveragePool", "Flatten"],
        ),
    ],
    ids=["kept axes", "dropped axes", "one axis", "axes as input"],
)
def test_a_mean_over_all_positions_is_a_pool(model, wanted):
    plan, after = simplified(model)
    assert kinds(after) == wanted
    assert {e.action for e in plan.edits} == {"written as pooling"}


@pytest.mark.parametrize(
    "model",
    [
        mean("axes = [3], keepdims = 1", "N,4,6,1"),
        mean("axes = [1, 2, 3], keepdims = 1", "N,1,1,1"),
        mean("keepdims = 1", "1,1,1,1"),
    ],
)
def test_other_means_stay(model):
    assert kinds(simplified(model)[1]) == ["ReduceMean"]


NORMED = """g (float[N,5,8] x, float[N,5,8] z, float[8] w_s, float[8] w_b) => (float[N,5,8] y)
    { a = Add(x, z) y = LayerNormalization(a, w_s, w_b) }"""


def test_a_residual_sum_is_kept_apart_from_its_norm_and_the_slow_kernel_is_gone():
    model = graph(NORMED)
    assert operator_counts(optimized_graph(model))["com.microsoft:SkipLayerNormalization"] == 1
    _, after = simplified(model)
    assert kinds(after) == ["Sum", "LayerNormalization"]
    assert operator_counts(optimized_graph(after))["com.microsoft:SkipLayerNormalization"] == 0


def test_elsewhere_than_on_a_cpu_the_fused_kernel_stays(monkeypatch):
    gpu = dataclasses.replace(TARGETS["cpu-vnni"], name="some-gpu", provider="cuda")
    monkeypatch.setitem(TARGETS, "some-gpu", gpu)
    model = normalize(graph(NORMED)).model
    plan = Simplify().plan(model, context(feeds(model), "some-gpu"))
    assert plan.edits == ()
