"""Embedding tables in the passes beside static INT8: int8 rows, whatever becomes of the products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from graphs import context, graph, run

from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import weight_bytes
from onnxcomp.passes.dynamic.config import DynamicConfig
from onnxcomp.passes.dynamic.dynamic import Dynamic
from onnxcomp.passes.weight_only.config import WeightOnlyConfig
from onnxcomp.passes.weight_only.weight_only import WeightOnly

WORDS = """g (int64[N,6] i, float[512,64] w1, float[64,64] w2) => (float[N,6,64] y) {
    [words] e = Gather(w1, i) [product] y = MatMul(e, w2)
}"""
PASSES = {
    "dynamic": lambda: Dynamic(DynamicConfig(smallest=1)),
    "weight-only": lambda: WeightOnly(WeightOnlyConfig(bits=8, smallest=1)),
}


def planned(name: str, **options: object):
    before = normalize(graph(WORDS)).model
    rng = np.random.default_rng(1)
    feed = {"i": rng.integers(0, 512, (2, 6))}
    ctx = replace(context([feed] * 8, "cpu-avx2"), **options)
    step = PASSES[name]()
    return before, feed, ctx, step, step.plan(before, ctx)


@pytest.mark.parametrize("name", PASSES)
def test_rows_of_a_table_are_integers_beside_integer_products(name):
    before, feed, ctx, step, plan = planned(name)
    assert plan.changes() == {"words", "product"}
    after = step.apply(before, plan, ctx)
    kept = {v.const_value.dtype for v in after.graph.initializers.values() if v.const_value.size >= 512 * 64}
    assert kept == {ir.DataType.INT8}
    assert weight_bytes(after) < 0.3 * weight_bytes(before)
    right, got = run(before, feed)[0], run(after, feed)[0]
    assert not np.array_equal(right, got)
    assert np.abs(right - got).max() < 0.03 * np.abs(right).max()
    assert "tables" in " ".join(step.prove(before, after, plan, ctx).sentences)


@pytest.mark.parametrize("name", PASSES)
def test_an_excluded_table_stays_float(name):
    before, _, ctx, step, plan = planned(name, exclude=("words",))
    assert plan.changes() == {"product"}
    after = step.apply(before, plan, ctx)
    assert ir.DataType.FLOAT in {
        v.const_value.dtype for v in after.graph.initializers.values() if v.const_value.size > 9999
    }
