"""The audit finds what runs in integers, and names what was written as INT8 in vain."""

from __future__ import annotations

from graphs import context, feeds, graph
from quantize_cases import quantized

from onnxcomp.passes.quantize.audit import audit, unfused
from onnxcomp.passes.quantize.plan import NodeDecision
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.report.reasons import Reason


def audited(text, **options):
    found = quantized(graph(text), **options)
    return audit(found.after, found.plan, found.ctx.session)


def test_integer_kernels_and_conversions_are_counted():
    result = audited(
        "g (float[N,16,8,8] x, float[16,16,1,1] w) => (float[N,16,8,8] y) { a = Conv(x, w) r = Relu(a) y = Conv(r, w) }"
    )
    assert (result.integer_kernels, result.float_heavy, result.conversions) == ({"QLinearConv": 2}, {}, 2)
    assert result.stayed_float == ()


def test_a_node_that_was_left_float_is_listed_with_the_reason_of_the_plan():
    result = audited(
        "g (float[N,16,8,8] x, float[16,16,1,1] w, float[16,4,2,2] wt) "
        "=> (float[N,4,9,9] y) { a = Conv(x, w) y = ConvTranspose(a, wt) }"
    )
    assert [(s.op_type, s.code) for s in result.stayed_float] == [("ConvTranspose", Reason.NO_INTEGER_KERNEL)]
    assert result.float_heavy == {"ConvTranspose": 1}


def test_a_node_that_the_plan_claims_but_nobody_wrote_is_unfused():
    model = graph(
        "g (float[N,16,8,8] x, float[16,16,1,1] w) => (float[N,16,8,8] y) { a = Conv(x, w) r = Relu(a) y = Conv(r, w) }"
    )
    found = quantized(model)
    result = audit(found.before, found.plan, context(feeds(model)).session)
    assert set(unfused(result)) == {"Conv_a", "Conv_y"}
    assert {s.code for s in result.stayed_float} == {Reason.NOT_FUSED}


def test_a_plan_can_be_relaxed_by_what_the_audit_found():
    model = graph(
        "g (float[N,16,8,8] x, float[16,16,1,1] w, float[16,16,1,1] w2) "
        "=> (float[N,16,8,8] y) { a = Conv(x, w) r = Relu(a) y = Conv(r, w2) }"
    )
    found = quantized(model)
    half = found.plan.with_float(frozenset({"Conv_y"}), Reason.EXCLUDED, "")
    claimed = half.model_copy(
        update={"nodes": {**half.nodes, "Conv_y": NodeDecision(precision="int8", op_type="Conv")}}
    )
    result = audit(Quantize().apply(found.before, half, found.ctx), claimed, found.ctx.session)
    assert unfused(result) == ("Conv_y",)


def test_a_product_in_integers_is_not_blamed_for_the_float_product_that_reads_it():
    # Attention: the projections are integer, the product of two activations behind them is not.
    found = quantized(
        graph(
            """g (float[1,16,32] x, float[32,32] wq, float[32,32] wk) => (float[1,16,16] y) {
                q = MatMul(x, wq)
                k = MatMul(x, wk)
                t = Transpose<perm = [0, 2, 1]>(k)
                y = MatMul(q, t)
            }"""
        )
    )
    result = audit(found.after, found.plan, found.ctx.session)
    assert result.integer_kernels == {"MatMulIntegerToFloat": 2}
    assert unfused(result) == ()
