"""Dynamic INT8 on small graphs: against its own arithmetic in numpy, against ONNX Runtime's float, and its kernels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from graphs import context, cosine, feeds, graph, run
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.driver.options import Options
from onnxcomp.driver.single import run_single
from onnxcomp.errors import GateError, PlanError
from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import serialize
from onnxcomp.ops.attributes import constant
from onnxcomp.passes.base import Evidence
from onnxcomp.passes.dynamic.config import DynamicConfig
from onnxcomp.passes.dynamic.dynamic import Dynamic
from onnxcomp.passes.dynamic.plan import DynamicPlan
from onnxcomp.passes.integer_weights import largest_pairs, quantize_weight, weight_scales
from onnxcomp.recipe import parse_recipe
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Verdict
from onnxcomp.runtime.audit import optimized_graph

SMALL = DynamicConfig(smallest=1)
ANYWHERE = "cpu-avx2"
"""The target whose integer sums are exact on every machine."""

CHAIN = """g (float[N,5,32] x, float[32,48] w1, float[48] wb1, float[48,16] w2) => (float[N,5,16] y) {
    [first] a = MatMul(x, w1) [bias] b = Add(a, wb1) c = Relu(b) [second] y = MatMul(c, w2)
}"""
HEADS = """g (float[N,5,32] x, float[32,16] w1, float[16] wb1, float[32,16] w2, float[32,16] w3)
    => (float[N,5,16] q, float[N,5,16] k, float[N,5,16] v) {
    a = MatMul(x, w1) q = Add(a, wb1) k = MatMul(x, w2) v = MatMul(x, w3)
}"""


def dynamic(
    model: ir.Model, *, portable: bool = False, target: str = ANYWHERE, config: DynamicConfig = SMALL, batch: int = 2
) -> tuple[ir.Model, DynamicPlan, ir.Model]:
    """Canonical model, plan, result."""
    before = normalize(model).model
    ctx = replace(context(feeds(before, batch=batch), target), portable=portable)
    step = Dynamic(config)
    plan = step.plan(before, ctx)
    return before, plan, step.apply(before, plan, ctx)


def operators(model: ir.Model) -> Counter[str]:
    return Counter(n.op_type for n in optimized_graph(model).graph)


def agreement(before: ir.Model, after: ir.Model, batch: int = 2) -> float:
    feed = feeds(before, 1, batch=batch)[0]
    return min(cosine(y, z) for y, z in zip(run(before, feed), run(after, feed), strict=True))


def by_numpy(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x·w as the kernels compute it: uint8 by the range of x with zero in it, int8 by the largest of each column."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    integers = np.clip(np.rint(x / scale) + zero, 0, 255) - zero
    scales = weight_scales(w, 1)
    return integers @ quantize_weight(w, scales, 1).astype(np.float64) * scale * scales


@pytest.mark.parametrize("portable", [False, True])
def test_every_product_becomes_one_integer_kernel_that_takes_its_bias(portable):
    before, plan, after = dynamic(graph(CHAIN), portable=portable)
    assert operators(after) == {"DynamicQuantizeMatMul": 2, "Relu": 1}
    assert plan.changes() == {"first", "second"}
    assert 0.999 < agreement(before, after) < 1.0
    assert ("com.microsoft" in {n.domain for n in after.graph}) is not portable


@pytest.mark.parametrize("portable", [False, True])
def test_products_that_read_one_activation_quantise_it_once(portable):
    before, _, after = dynamic(graph(HEADS), portable=portable)
    assert sum(n.op_type == "DynamicQuantizeLinear" for n in after.graph) == 1
    assert operators(after) == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": 3}
    assert 0.999 < agreement(before, after) < 1.0
    assert [v.name for v in after.graph.outputs] == ["q", "k", "v"]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(2, 40), st.integers(1, 30), st.floats(-3, 3), st.booleans())
def test_the_result_is_that_of_the_integer_arithmetic(rows, inner, out, shift, portable):
    rng = np.random.default_rng(rows * 1000 + inner)
    w = (rng.standard_normal((inner, out)) * np.exp(rng.standard_normal(out))).astype(np.float32)
    text = f"g (float[{rows},{inner}] x, float[{inner},{out}] w) => (float[{rows},{out}] y) {{ y = MatMul(x, w) }}"
    before, _, after = dynamic(graph(text, w=w), portable=portable, target="cpu-vnni")
    x = (rng.standard_normal((rows, inner)) + shift).astype(np.float32)
    (given_y,) = run(after, {"x": x})
    # 7 of 8 bits of a tie may round either way: one step of the input, at most, in a few places.
    step = np.abs(x).max() * 2 / 255 * np.abs(w).max(axis=0)
    assert (np.abs(given_y - by_numpy(x, w)) <= step + 1e-5).all()
    assert not np.array_equal(given_y, run(before, {"x": x})[0]) or inner < 4


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("bias", ["", ", float[24] wb", ", float[1,24] wb", ", float[1] wb"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_keeps_its_factors_and_its_bias(transposed, bias, portable):
    weight = "24,32" if transposed else "32,24"
    more = ", wb" if bias else ""
    text = (
        f"g (float[N,32] x, float[{weight}] w{bias}) => (float[N,24] y) "
        f"{{ y = Gemm<alpha = 0.5, beta = 3.0, transB = {transposed}>(x, w{more}) }}"
    )
    before, _, after = dynamic(graph(text), portable=portable)
    assert operators(after) == {"DynamicQuantizeMatMul": 1}
    assert 0.999 < agreement(before, after) < 1.0


def test_a_tied_matrix_is_stored_once_and_one_that_something_else_reads_stays_float():
    tied = "g (float[N,32] x, float[32,32] w) => (float[N,32] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }"
    before, plan, after = dynamic(graph(tied))
    assert [layer.nodes for layer in plan.layers] == [tuple(n.name for n in before.graph if n.op_type == "MatMul")]
    assert sum(v.const_value.dtype == ir.DataType.INT8 for v in after.graph.initializers.values()) == 1
    assert 0.999 < agreement(before, after) < 1.0
    _, plan, _ = dynamic(
        graph(
            "g (float[N,32] x, float[32,32] w) => (float[N,32] y, float[32,32] z) { y = MatMul(x, w) z = Identity(w) }"
        )
    )
    assert [s.code for s in plan.skips] == [Reason.SHARED]
    assert "Identity" in plan.skips[0].sentence
    assert plan.changes() == frozenset()


def test_every_node_left_alone_has_its_reason():
    model = graph(
        """g (float[N,8,4,4] x, float[8,8,1,1] w1, float[3,1,12,8] wg, float[3,12,4] wr, float[4,4] w2)
            => (float[N,8,4,4] y) {
            [conv] a = Conv(x, w1) [both] b = MatMul(a, a) [small] c = MatMul(b, w2) y = Relu(c)
        }"""
    )
    _, plan, _ = dynamic(model, config=DynamicConfig())
    assert {s.node: s.code for s in plan.left_alone()} == {
        "conv": Reason.KEPT_FLOAT,
        "both": Reason.TWO_ACTIVATIONS,
        "small": Reason.TOO_SMALL,
    }
    assert plan.changes() == frozenset()


def test_without_vnni_no_two_neighbouring_weights_can_saturate():
    for target, bound in (("cpu-avx2", True), ("cpu-vnni", False)):
        _, plan, after = dynamic(graph(CHAIN), target=target)
        assert plan.pairs_saturate is bound
        integers = [constant(v) for v in after.graph.initializers.values() if v.const_value.dtype == ir.DataType.INT8]
        assert [largest_pairs(a.astype(float), 1).max() <= 128 for a in integers] == [bound] * 2


def test_a_plan_replays_to_the_same_bytes_and_can_be_edited():
    before, plan, after = dynamic(graph(CHAIN))
    ctx = context(feeds(before))
    again = DynamicPlan.model_validate_json(plan.model_dump_json())
    assert serialize(Dynamic().apply(before, again, ctx)) == serialize(after)
    edited = plan.without(frozenset({"first"}), Reason.EXCLUDED, "by hand")
    assert operators(Dynamic().apply(before, edited, ctx))["DynamicQuantizeMatMul"] == 1
    assert [s.node for s in edited.left_alone()] == ["first"]
    with pytest.raises(PlanError, match="first"):
        Dynamic().apply(normalize(graph(HEADS)).model, plan, ctx)


def test_relaxing_gives_back_the_layer_that_costs_most_and_for_latency_the_smallest():
    _, plan, _ = dynamic(graph(CHAIN))
    costs = {"first": 0.001, "second": 0.02}

    def error_of(candidate: DynamicPlan) -> float:
        return sum(costs[name] for name in candidate.changes())

    evidence = Evidence("fidelity", error=0.021, allowed=0.01, error_of=error_of)
    relaxed = Dynamic().relax(plan, evidence)
    assert relaxed is not None
    assert relaxed.changes() == {"first"}
    assert {x.name: x.loss for x in relaxed.layers} == costs
    faster = Dynamic().relax(plan, Evidence("latency"))
    assert faster is not None
    assert faster.changes() == {"first"}
    assert Dynamic().relax(faster, Evidence("latency")) is None


def test_the_proof_counts_kernels_and_names_what_runs_in_float():
    before, plan, after = dynamic(graph(CHAIN))
    proof = Dynamic().prove(before, after, plan, context(feeds(before)))
    assert proof.passed
    assert proof.audit is not None
    assert proof.audit.integer_kernels == {"DynamicQuantizeMatMul": 2}
    assert proof.unfused == ()
    vain = Dynamic().prove(before, before, plan, context(feeds(before)))
    assert not vain.passed
    assert set(vain.unfused) == {"first", "second"}


@pytest.mark.parametrize("shape", ["32", "3,32", "2,3,4,32"])
def test_the_input_may_have_any_rank(shape):
    dims = shape[:-2] + "16"
    before, _, after = dynamic(
        graph(f"g (float[{shape}] x, float[32,16] w) => (float[{dims}] y) {{ y = MatMul(x, w) }}")
    )
    assert 0.999 < agreement(before, after) < 1.0


def test_the_driver_runs_the_pass_and_holds_it_to_the_users_gate():
    wide = graph(
        "g (float[N,96] x, float[96,96] w1, float[96,96] w2) => (float[N,96] y) "
        "{ a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }"
    )
    result = run_single(Dynamic(), wide, Options(calibration=feeds(wide, 8)))
    assert result.report.verdict is Verdict.DONE
    assert result.report.steps[0].audit.integer_kernels == {"DynamicQuantizeMatMul": 2}
    assert result.report.result.weight_bytes < 0.3 * result.report.source.weight_bytes
    with pytest.raises(GateError):
        run_single(Dynamic(), wide, Options(calibration=feeds(wide, 8), min_cosine=1.0))


def test_a_recipe_may_hold_the_pass():
    assert parse_recipe('[[step]]\npass = "dynamic"', "example").step[0] == DynamicConfig()
