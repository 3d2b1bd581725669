"""The weight-only pass on small graphs: layouts against ONNX Runtime, decisions against what was measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from graphs import context, cosine, feeds, graph, run
from pydantic import ValidationError
from weight_only_cases import CHAIN, correlated, weight_only

from onnxcomp.driver.options import Options
from onnxcomp.driver.single import run_single
from onnxcomp.errors import PlanError, UsageError
from onnxcomp.model.normalize import clone, normalize
from onnxcomp.model.save import serialize
from onnxcomp.passes.base import Evidence
from onnxcomp.passes.products import find_products
from onnxcomp.passes.weight_only import moments
from onnxcomp.passes.weight_only import weight_only as the_pass
from onnxcomp.passes.weight_only.config import WeightOnlyConfig
from onnxcomp.passes.weight_only.plan import WeightOnlyPlan
from onnxcomp.passes.weight_only.rounding import round_matrix
from onnxcomp.passes.weight_only.weight_only import WeightOnly
from onnxcomp.recipe import parse_recipe
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Verdict
from onnxcomp.runtime.audit import optimized_graph
from onnxcomp.runtime.session import SessionConfig, open_session

EXACT = (("session.qdq_matmulnbits_accuracy_level", "1"),)
"""Floats in the kernel that ONNX Runtime makes of DequantizeLinear and MatMul."""


def operators(model: ir.Model) -> Counter[str]:
    return Counter(n.op_type for n in optimized_graph(model).graph)


def with_dense(model: ir.Model, plan: WeightOnlyPlan) -> ir.Model:
    """The float model with what the integers stand for in its weights: what the result must compute."""
    result = clone(model)
    for product in find_products(result, (), (), 1)[0]:
        layer = next(x for x in plan.layers if x.name == product.name)
        made = round_matrix(product.matrix(), layer.method, layer.bits, layer.block, symmetric=plan.symmetric)
        view = product.views[0]
        for name, array in view.with_matrix(made.dense()[None].astype(np.float64), None).items():
            result.graph.initializers[name].const_value = ir.tensor(array, name=name)
    return result


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("inner", [64, 72, 50])
def test_the_result_computes_with_what_the_integers_stand_for(inner, bits, symmetric, portable):
    """Packing, order of blocks, zero points and the last block that is not full, by ONNX Runtime itself."""
    text = (
        f"g (float[N,{inner}] x, float[{inner},24] w, float[24] wb) => (float[N,24] y) "
        "{ a = MatMul(x, w) y = Add(a, wb) }"
    )
    before, plan, after, _ = weight_only(graph(text), bits=bits, symmetric=symmetric, portable=portable)
    assert operators(after)["MatMulNBits"] == 1
    feed = feeds(before, 1, batch=3)[0]
    (wanted,) = run(with_dense(before, plan), feed)
    with open_session(after, SessionConfig(entries=EXACT)) as session:
        (given,) = session.run(feed)
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(wanted - run(before, feed)[0]).max() > 1e-3


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["", ", float[24] wb", ", float[1,24] wb"])
def test_a_gemm_keeps_its_factors_and_its_bias(bias, transposed, portable):
    weight, more = ("24,64" if transposed else "64,24"), (", wb" if bias else "")
    model = graph(
        f"g (float[N,64] x, float[{weight}] w{bias}) => (float[N,24] y) "
        f"{{ y = Gemm<alpha = 0.5, beta = 3.0, transB = {transposed}>(x, w{more}) }}"
    )
    before, plan, after, _ = weight_only(model, portable=portable)
    feed = feeds(before, 1, batch=3)[0]
    with open_session(after, SessionConfig(entries=EXACT)) as session:
        (given,) = session.run(feed)
    np.testing.assert_allclose(given, run(with_dense(before, plan), feed)[0], rtol=1e-4, atol=1e-5)
    assert operators(after)["MatMulNBits"] == 1


def test_a_product_and_its_bias_become_one_operator_and_the_file_is_an_eighth():
    before, plan, after, _ = weight_only(graph(CHAIN))
    assert Counter(n.op_type for n in after.graph) == {"MatMulNBits": 2, "Relu": 1}
    assert plan.changes() == {"first", "second"}
    weights = [v.const_value for v in after.graph.initializers.values() if v.name.endswith("quantized")]
    assert sum(t.nbytes for t in weights) == (64 * 48 + 64 * 32) // 2, "48 columns take two blocks of 32"
    assert 0.98 < cosine(*(run(m, feeds(before, 1)[0])[0] for m in (before, after))) < 1.0


def test_the_portable_form_holds_only_operators_of_onnx_and_integers_of_4_bits():
    before, plan, after, ctx = weight_only(graph(CHAIN, opset=17), portable=True)
    assert {n.domain for n in after.graph} == {""}
    assert after.opset_imports[""] == 21
    assert ir.DataType.UINT4 in {v.const_value.dtype for v in after.graph.initializers.values()}
    proof = WeightOnly().prove(before, after, plan, ctx)
    assert proof.passed
    assert proof.audit.integer_kernels == {"MatMulNBits": 2}
    assert any("qdq_matmulnbits_accuracy_level" in s for s in proof.sentences)


def test_what_onnx_runtime_makes_no_kernel_of_is_float_again():
    """It takes a Clip behind the product for part of a group that ends in integers."""
    model = graph(
        "g (float[N,64] x, float[64,64] w1, float[64,64] w2) => (float[N,64] y) "
        "{ [first] a = MatMul(x, w1) b = Clip(a) [second] y = MatMul(b, w2) }"
    )
    before, plan, after, ctx = weight_only(model, portable=True)
    proof = WeightOnly().prove(before, after, plan, ctx)
    assert proof.unfused == ("first",)
    relaxed = WeightOnly().relax(plan, Evidence("fusion", nodes=proof.unfused))
    assert relaxed.changes() == {"second"}
    assert [(s.node, s.code) for s in relaxed.left_alone()] == [("first", Reason.NOT_FUSED)]


def test_a_relu_behind_a_portable_product_does_not_keep_it_from_its_kernel():
    model = graph(
        "g (float[N,64] x, float[64,64] w1, float[64] wb1, float[64,64] w2) => (float[N,64] y) "
        "{ a = Gemm(x, w1, wb1) b = Relu(a) c = MatMul(b, w2) y = Relu(c) }"
    )
    before, plan, after, _ = weight_only(model, portable=True)
    assert operators(after) == {"MatMulNBits": 2, "Max": 2}
    feed = feeds(before, 1, batch=3)[0]
    with open_session(after, SessionConfig(entries=EXACT)) as session:
        (given,) = session.run(feed)
    np.testing.assert_allclose(given, run(with_dense(before, plan), feed)[0], rtol=1e-4, atol=1e-5)
    assert given.min() == 0.0


def test_a_model_that_can_not_be_lifted_has_no_portable_form():
    model = graph(
        """g (float[N,64,7,7] x, float[64,64] w) => (float[N,64] y) {
            p = AveragePool<kernel_shape = [4, 4], strides = [4, 4], ceil_mode = 1>(x)
            m = GlobalAveragePool(p) f = Flatten(m) y = MatMul(f, w)
        }"""
    )
    _, plan, _, _ = weight_only(model, portable=True)
    assert [s.code for s in plan.skips] == [Reason.OPSET]
    assert "ceil_mode" in plan.skips[0].sentence
    assert weight_only(model)[1].changes() != frozenset()


def test_a_tied_matrix_is_stored_once():
    tied = "g (float[N,64] x, float[64,64] w) => (float[N,64] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }"
    for portable in (False, True):
        before, plan, after, _ = weight_only(graph(tied), portable=portable)
        assert len(plan.layers) == 1
        assert len(plan.changes()) == 2
        assert sum(v.name.endswith("quantized") for v in after.graph.initializers.values()) == 1
        # ONNX Runtime makes no kernel of a DequantizeLinear whose integers another one reads too.
        assert operators(after)["MatMulNBits"] == (0 if portable else 2)
        assert 0.98 < cosine(*(run(m, feeds(before, 1)[0])[0] for m in (before, after))) < 1.0


def test_every_node_left_alone_has_its_reason():
    model = graph(
        """g (float[N,8,4,4] x, float[8,8,1,1] w1, float[4,4] w2, float[16,300] w3)
            => (float[N,8,4,4] y, float[N,8,300] z) {
            [conv] a = Conv(x, w1) [both] b = MatMul(a, a) [small] c = MatMul(b, w2) y = Relu(c)
            s = Constant<value = int64[3] {0, 8, 16}>() r = Reshape(y, s) [short] z = MatMul(r, w3)
        }"""
    )
    _, plan, _, _ = weight_only(model, smallest=4096)
    assert {s.node: s.code for s in plan.left_alone()} == {
        "conv": Reason.NO_INTEGER_KERNEL,
        "both": Reason.TWO_ACTIVATIONS,
        "small": Reason.TOO_SMALL,
        "short": Reason.TOO_SMALL,
    }


def test_with_feeds_gptq_is_taken_where_it_errs_less_on_feeds_that_it_did_not_see():
    model = normalize(graph(CHAIN)).model
    items = correlated(model)
    _, plan, after, _ = weight_only(model, items, data=True)
    assert {x.method for x in plan.layers} == {"gptq"}
    assert all(x.errors["gptq"] < 0.5 * x.errors["mse"] for x in plan.layers)
    assert "not learned from" in plan.measured_on
    plain = weight_only(model, items, data=True, method="mse")[2]
    other = correlated(model, 40)[-1]
    error = {n: 1 - cosine(run(model, other)[0], run(m, other)[0]) for n, m in (("gptq", after), ("mse", plain))}
    assert error["gptq"] < 0.5 * error["mse"], error


def test_a_layer_with_too_many_inputs_for_gptq_is_rounded_by_mse_and_says_so(monkeypatch):
    from onnxcomp.passes.weight_only import known

    monkeypatch.setattr(known, "LARGEST_K", 48)
    model = normalize(graph(CHAIN)).model
    _, plan, _, _ = weight_only(model, correlated(model), data=True)
    assert {x.name: x.method for x in plan.layers} == {"first": "mse", "second": "gptq"}
    assert "too many" in plan.layers[0].note


def test_moments_are_gathered_in_parts_that_fit_into_memory(monkeypatch):
    model = normalize(graph(CHAIN)).model
    whole = weight_only(model, correlated(model), data=True)[1]
    monkeypatch.setattr(moments, "MOMENT_BYTES", 1)
    parts = weight_only(model, correlated(model), data=True)[1]
    assert len(list(moments.in_parts(find_products(model, (), (), 1)[0]))) == 2
    for one, other in zip(whole.layers, parts.layers, strict=True):
        assert one.errors["gptq"] == pytest.approx(other.errors["gptq"], rel=0.05)


def test_a_plan_replays_to_the_same_bytes_and_gptq_needs_its_feeds_again():
    model = normalize(graph(CHAIN)).model
    _, plan, after, ctx = weight_only(model, correlated(model), data=True)
    again = WeightOnlyPlan.model_validate_json(plan.model_dump_json())
    assert serialize(WeightOnly().apply(model, again, ctx)) == serialize(after)
    with pytest.raises(UsageError, match="gptq"):
        WeightOnly().apply(model, again, replace(ctx, calibration=None))
    with pytest.raises(UsageError, match="gptq"):
        weight_only(model, method="gptq")
    edited = plan.with_layers({"first": plan.layers[0].model_copy(update={"bits": None})})
    assert operators(WeightOnly().apply(model, edited, ctx))["MatMulNBits"] == 1
    with pytest.raises(PlanError, match="first"):
        WeightOnly().apply(normalize(graph(CHAIN.replace("first", "other"))).model, again, ctx)


def test_activations_are_int8_only_where_that_was_measured_to_cost_little(monkeypatch):
    model = normalize(graph(CHAIN)).model
    levels = {}
    monkeypatch.setattr(the_pass, "NEGLIGIBLE", 0.0)
    for fit in (1e9, 0.0):
        monkeypatch.setattr(the_pass, "FIT", fit)
        _, plan, after, _ = weight_only(model, correlated(model), data=True)
        assert "error of the outputs" in plan.activations_choice
        levels[fit] = {n.attributes["accuracy_level"].as_int() for n in after.graph if n.op_type == "MatMulNBits"}
    assert levels == {1e9: {4}, 0.0: {0}}
    assert weight_only(model)[1].activations == "float", "nothing to measure with"


def test_8_bits_with_float_activations_are_warned_of():
    warned = {
        (b, a): bool(weight_only(graph(CHAIN), bits=b, activations=a)[1].warnings())
        for b in (4, 8)
        for a in ("float", "int8")
    }
    assert [key for key, value in warned.items() if value] == [(8, "float")]


def test_relaxing_gives_the_worst_layers_8_bits_and_then_floats():
    _, plan, _, _ = weight_only(graph(CHAIN))
    costs = {"first": 0.02, "second": 0.001}

    def error_of(candidate: WeightOnlyPlan) -> float:
        return sum(costs[x.name] for x in candidate.integer())

    once = WeightOnly().relax(plan, Evidence("fidelity", error=0.021, allowed=0.01, error_of=error_of))
    assert {x.name: x.bits for x in once.layers} == {"first": 8, "second": 4}
    twice = WeightOnly().relax(once, Evidence("fidelity", error=0.02, allowed=1e-9, error_of=error_of))
    assert {x.name: x.bits for x in twice.layers} == {"first": 8, "second": 8}
    third = WeightOnly().relax(twice, Evidence("fidelity", error=0.02, allowed=0.01, error_of=error_of))
    assert {x.name: x.bits for x in third.layers} == {"first": None, "second": 8}
    assert [(s.node, s.code) for s in third.left_alone()] == [("first", Reason.RELAXED)]
    assert WeightOnly().relax(third, Evidence("fidelity", error=0.02, allowed=0.01, error_of=error_of)) is None


def test_relaxing_for_latency_lets_the_kernel_round_activations_once():
    _, plan, _, _ = weight_only(graph(CHAIN))
    faster = WeightOnly().relax(plan, Evidence("latency"))
    assert faster.activations == "int8"
    assert WeightOnly().relax(faster, Evidence("latency")) is None


def test_the_driver_runs_the_pass_on_feeds():
    wide = graph(
        "g (float[N,96] x, float[96,96] w1, float[96,96] w2) => (float[N,96] y) "
        "{ a = MatMul(x, w1) b = Tanh(a) y = MatMul(b, w2) }"
    )
    for portable in (False, True):
        result = run_single(WeightOnly(), wide, Options(calibration=feeds(wide, 10, batch=8), portable=portable))
        assert result.report.verdict is Verdict.DONE
        assert result.report.steps[0].audit.integer_kernels == {"MatMulNBits": 2}
        assert result.report.result.weight_bytes < 0.2 * result.report.source.weight_bytes
        assert result.report.fidelity[0].cosine > 0.98


def test_a_block_is_a_power_of_two_and_a_recipe_may_hold_the_pass():
    step = parse_recipe('[[step]]\npass = "weight-only"\nbits = 8\nblock = 128', "example").step[0]
    assert step == WeightOnlyConfig(bits=8, block=128)
    for block in (8, 48, 512):
        with pytest.raises(ValidationError):
            WeightOnlyConfig(block=block)


def test_only_and_exclude_are_obeyed_also_after_a_replay_on_the_same_model():
    model = normalize(graph(CHAIN)).model
    step, ctx = WeightOnly(WeightOnlyConfig(smallest=1)), replace(context(feeds(model)), calibration=None)
    plan = step.plan(model, ctx)
    fresh = WeightOnly(WeightOnlyConfig(smallest=1))
    fresh.apply(model, plan, ctx)
    left = fresh.plan(model, replace(ctx, exclude=("first",)))
    assert left.changes() == {"second"}
    assert [s.code for s in left.skips] == [Reason.EXCLUDED]
