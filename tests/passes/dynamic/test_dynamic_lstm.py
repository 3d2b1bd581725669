"""LSTM with int8 weights: layouts and scales, held against ONNX Runtime's float LSTM."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from graphs import context, feeds, graph, run

from onnxcomp.model.normalize import normalize
from onnxcomp.passes.base import Context
from onnxcomp.passes.dynamic.config import DynamicConfig
from onnxcomp.passes.dynamic.dynamic import Dynamic
from onnxcomp.report.reasons import Reason
from onnxcomp.runtime.audit import operator_counts, optimized_graph

INPUTS, H = 20, 16


def lstm(directions: int = 1, extra: str = "", attributes: str = "", outputs: str = "y, yh, yc") -> ir.Model:
    """One LSTM; `extra` names its further inputs."""
    d, way = directions, "bidirectional" if directions == 2 else "forward"
    kept = {"y": f"float[T,{d},N,{H}] y", "yh": f"float[{d},N,{H}] yh", "yc": f"float[{d},N,{H}] yc"}
    declared = ", ".join(kept[name] for name in outputs.replace(" ", "").split(",") if name in kept)
    rng = np.random.default_rng(3)
    # Gates whose weights differ by a factor of 30: one scale for all of them would lose the small ones.
    sizes = np.repeat(np.array([1.0, 0.03, 0.3, 1.0]), H)[:, None]
    w, r = (rng.standard_normal((d, 4 * H, k)) * sizes / np.sqrt(k) for k in (INPUTS, H))
    return graph(
        f"""g (float[T,N,{INPUTS}] x, float[{d},{4 * H},{INPUTS}] w, float[{d},{4 * H},{H}] wr, float[{d},{8 * H}] wb,
               float[{d},N,{H}] h, float[{d},N,{H}] c, float[{d},{3 * H}] wp) => ({declared}) {{
            [cell] {outputs} = LSTM<hidden_size = {H}, direction = "{way}"{attributes}>(x, w, wr{extra})
        }}""",
        w=w.astype(np.float32),
        wr=r.astype(np.float32),
    )


def context_of(model: ir.Model, *, portable: bool = False) -> Context:
    return replace(context(feeds(model, batch=3), "cpu-avx2"), portable=portable)


def relative(wanted: np.ndarray, given: np.ndarray) -> float:
    return float(np.linalg.norm(wanted - given) / np.linalg.norm(wanted))


@pytest.mark.parametrize(
    "extra", ["", ", wb", ", wb, , h, c", ", wb, , h, c, wp"], ids=["plain", "bias", "states", "peepholes"]
)
@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_agrees_with_the_float_one_within_the_error_of_8_bits(directions, extra):
    before = normalize(lstm(directions, extra)).model
    ctx = context_of(before)
    step = Dynamic(DynamicConfig(smallest=1))
    plan = step.plan(before, ctx)
    after = step.apply(before, plan, ctx)
    assert plan.changes() == {"cell"}
    assert operator_counts(optimized_graph(after)) == {"com.microsoft:DynamicQuantizeLSTM": 1}
    feed = feeds(before, 1, batch=4)[0]
    errors = [relative(y, z) for y, z in zip(run(before, feed), run(after, feed), strict=True)]
    assert len(errors) == 3
    assert all(0 < error < 0.02 for error in errors), errors


def test_sequence_lengths_and_outputs_that_are_left_out_stay_as_they_are():
    model = graph(
        f"""g (float[T,N,{INPUTS}] x, int32[N] length, float[1,{4 * H},{INPUTS}] w, float[1,{4 * H},{H}] wr)
            => (float[1,N,{H}] yh) {{
            [cell] , yh = LSTM<hidden_size = {H}, clip = 2.0>(x, w, wr, , length)
        }}"""
    )
    before = normalize(model).model
    step, ctx = Dynamic(DynamicConfig(smallest=1)), context_of(before)
    after = step.apply(before, step.plan(before, ctx), ctx)
    x = np.random.default_rng(0).standard_normal((6, 3, INPUTS)).astype(np.float32)
    feed = {"x": x, "length": np.array([2, 6, 4], np.int32)}
    longer = feed | {"length": np.array([6, 6, 6], np.int32)}
    assert 0 < relative(run(before, feed)[0], run(after, feed)[0]) < 0.02
    assert relative(run(after, longer)[0], run(after, feed)[0]) > 0.1, "the lengths mean nothing"
    assert "clip" in next(n for n in after.graph if n.op_type == "DynamicQuantizeLSTM").attributes


def test_an_lstm_stays_float_where_the_result_must_be_portable_and_where_its_batch_comes_first():
    before = normalize(lstm()).model
    plan = Dynamic(DynamicConfig(smallest=1)).plan(before, context_of(before, portable=True))
    assert [(s.node, s.code) for s in plan.skips] == [("cell", Reason.NO_INTEGER_KERNEL)]
    first = normalize(lstm(attributes=", layout = 1")).model
    plan = Dynamic(DynamicConfig(smallest=1)).plan(first, context_of(first))
    assert [(s.node, s.code) for s in plan.skips] == [("cell", Reason.UNSUPPORTED_FORM)]


def test_a_gru_stays_float_with_its_reason():
    model = graph(
        f"""g (float[T,N,{INPUTS}] x, float[1,{3 * H},{INPUTS}] w, float[1,{3 * H},{H}] wr) => (float[T,1,N,{H}] y) {{
            [cell] y = GRU<hidden_size = {H}>(x, w, wr)
        }}"""
    )
    plan = Dynamic(DynamicConfig(smallest=1)).plan(normalize(model).model, context_of(model))
    assert [(s.node, s.code) for s in plan.skips] == [("cell", Reason.NO_INTEGER_KERNEL)]
    assert plan.changes() == frozenset()
