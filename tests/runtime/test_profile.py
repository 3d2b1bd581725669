"""ONNX Runtime's profile: whose time is whose."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from graphs import feeds, graph

from onnxcomp.runtime import profile as module
from onnxcomp.runtime.profile import profile, summary
from onnxcomp.runtime.session import SessionConfig

TWO = """g (float[N,64] x, float[64,256] w1, float[256,8] w2) => (float[N,8] y) {
    [wide] a = MatMul(x, w1) [act] b = Sigmoid(a) [head] y = MatMul(b, w2)
}"""


def kernel(name: str, op: str, ts: float, dur: float, index: int = 0) -> dict[str, Any]:
    args = {"op_name": op, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def call(ts: float) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 10, "args": {}}


def test_every_node_that_runs_is_named_with_its_operator_and_takes_time() -> None:
    model = graph(TWO)
    found = profile(model, feeds(model, 1, batch=64)[0], SessionConfig(optimization="none"), runs=5)
    assert [(n.name, n.op_type) for n in found.nodes] == [("wide", "MatMul"), ("act", "Sigmoid"), ("head", "MatMul")]
    assert found.runs == 5
    assert found.kernels() == {"MatMul": 2, "Sigmoid": 1}
    assert found.total_ms > 0
    assert found.total_ms == pytest.approx(sum(found.by_operator().values()))


def test_the_file_of_the_profile_is_gone_afterwards(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    events = module._events
    monkeypatch.setattr(module, "_events", lambda path: (seen.append(path), events(path))[1])
    model = graph(TWO)
    profile(model, feeds(model, 1)[0], SessionConfig(), runs=1)
    assert seen
    assert not seen[0].exists()
    assert not seen[0].parent.exists()


def test_calls_at_the_beginning_do_not_count_and_a_slow_one_is_outvoted() -> None:
    events: list[dict[str, Any]] = []
    for i, dur in enumerate((9000, 1000, 1000, 7000)):
        events += [kernel("a", "Conv", 100_000 * i + 10, dur), call(100_000 * i)]
    found = summary(events, warm_up=1)
    assert (found.runs, found.nodes[0].ms) == (3, 1.0)


def test_the_time_inside_a_body_is_not_counted_twice() -> None:
    events = [call(0), kernel("if", "If", 10, 1000), kernel("in", "Conv", 100, 600), kernel("after", "Relu", 2000, 50)]
    assert summary(events, warm_up=0).by_operator() == {"Conv": 0.6, "If": 0.4, "Relu": 0.05}


def test_a_node_in_the_blocked_layout_keeps_its_name() -> None:
    assert summary([call(0), kernel("conv_nchwc", "Conv", 1, 1)], 0).nodes[0].name == "conv"


def test_a_loop_runs_its_body_often_and_the_sum_is_that_of_a_call() -> None:
    events = [call(0), *(kernel("in", "Add", 10 + 100 * i, 50, 3) for i in range(4))]
    assert summary(events, 0).nodes[0].ms == pytest.approx(0.2)


def test_a_real_branch_is_profiled_too() -> None:
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
    g (bool c, float[64,64] x) => (float[64,64] y) {
        y = If (c) <then_branch = t () => (float[64,64] a) { a = MatMul (x, x) },
                    else_branch = e () => (float[64,64] b) { b = Neg (x) }>
    }""")
    feed = {"c": np.asarray(True), "x": np.ones((64, 64), np.float32)}
    assert set(profile(model, feed, SessionConfig(), runs=2).by_operator()) == {"If", "MatMul"}
