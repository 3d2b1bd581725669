"""The audit finds what runs in integers, and names what was written as INT8 in vain."""

from __future__ import annotations

from dataclasses import replace

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


def test_the_order_tells_integers_from_floats_along_the_graph():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,1,1] w, float[16,16,3,3] wt, float[16,16,1,1] w2)
            => (float[N,16,10,10] y) {
                a = Conv(x, w) b = Conv(a, w2)
                c = ConvTranspose(b, wt)
                y = Conv(c, w)
            }"""
        )
    )
    macs = {"Conv_a": 8, "Conv_b": 16, "ConvTranspose_c": 32, "Conv_y": 64}
    order = audit(found.after, found.plan, found.ctx.session, macs).order
    assert [(s.integer, s.nodes, s.first, s.last) for s in order] == [
        (True, 2, "Conv_a", "Conv_b"),
        (False, 1, "ConvTranspose_c", "ConvTranspose_c"),
        (True, 1, "Conv_y", "Conv_y"),
    ]
    assert [s.macs for s in order] == [24, 32, 64]


def test_what_was_written_in_vain_is_float_in_the_order():
    found = quantized(graph("g (float[N,16,8,8] x, float[16,16,1,1] w) => (float[N,16,8,8] y) { y = Conv(x, w) }"))
    order = audit(found.before, found.plan, found.ctx.session).order
    assert [(s.integer, s.nodes) for s in order] == [(False, 1)]


def test_the_order_knows_the_work_of_nodes_that_were_skipped():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,1,1] w, float[16,16,3,3] wt) => (float[N,16,10,10] y) {
                a = Conv(x, w) y = ConvTranspose(a, wt)
            }"""
        )
    )
    shapes = {"x": (1, 16, 8, 8)}
    proof = Quantize().prove(found.before, found.after, found.plan, replace(found.ctx, shapes=shapes))
    assert proof.audit is not None
    assert [(s.integer, s.macs) for s in proof.audit.order] == [(True, 16 * 16 * 64), (False, 16 * 16 * 9 * 64)]
