"""Which nodes can be factorised, and the reason for every other one."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph

from onnxcomp.passes.factorize.sites import find_sites
from onnxcomp.report.reasons import Reason

REFUSED = {
    Reason.TOO_SMALL: [
        "float[N,24] x, float[24,10] w) => (float[N,10] y) { y = MatMul(x, w) }",
        "float[N,64,9,9] x, float[64,1,3,3] w) => (float[N,64,7,7] y) { y = Conv<group = 64>(x, w) }",
    ],
    Reason.TWO_ACTIVATIONS: ["float[N,24] x, float[24,32] v) => (float[N,32] y) { y = MatMul(x, v) }"],
    Reason.NOT_CONSTANT: ["float[N,24] x, float[24,32] v) => (float[N,32] y) { y = Gemm(x, v) }"],
    Reason.UNSUPPORTED_FORM: [
        "float[2,3,24] x, float[2,24,32] w) => (float[2,3,32] y) { y = MatMul(x, w) }",
        "float[24,32] w, float[32,N] x) => (float[24,N] y) { y = MatMul(w, x) }",
        "float[N,24] x, float[24,32] w, float[32] b) => (float[N,32] y) { y = Gemm(x, w, b) }",
        "float[N,24] x, float[24,32] w, float[4,32] wb) => (float[4,32] y) { y = Gemm(x, w, wb) }",
        "float[N,16,5,5] x, float[16,32,3,3] w) => (float[N,32,7,7] y) { y = ConvTranspose(x, w) }",
    ],
    Reason.SHARED: [
        """int64[N] i, float[N,32] x, float[32,32] w) => (float[N,32] y, float[N,32] z) {
            y = MatMul(x, w) z = Gather(w, i) }""",
        "float[32,32] x, float[32,32] w) => (float[32,32] y) { a = MatMul(x, w) y = Gemm<transB = 1>(a, w) }",
    ],
    Reason.ALREADY_QUANTIZED: [
        """float[N,24] x, int8[24,32] w, float ws, int8 wz) => (float[N,32] y) {
            d = DequantizeLinear(w, ws, wz) y = MatMul(x, d) }"""
    ],
    Reason.NOT_FLOAT32: ["int32[N,24] x, int32[24,32] w) => (int32[N,32] y) { y = MatMul(x, w) }"],
}
CASES = [(reason, body) for reason, bodies in REFUSED.items() for body in bodies]


@pytest.mark.parametrize(("reason", "body"), CASES, ids=[f"{r.value} {i}" for i, (r, _) in enumerate(CASES)])
def test_what_can_not_be_factorised_has_its_reason(reason: Reason, body: str) -> None:
    sites, skips = find_sites(graph(f"g ({body}"), (), ())
    assert not sites
    assert {skip.code for skip in skips} == {reason}
    assert all(skip.sentence for skip in skips)


def test_a_weight_that_is_not_finite_is_left_alone() -> None:
    bad = np.ones((24, 32), np.float32)
    bad[3, 4] = np.nan
    model = graph("g (float[N,24] x, float[24,32] w) => (float[N,32] y) { y = MatMul(x, w) }", w=bad)
    sites, skips = find_sites(model, (), ())
    assert not sites
    assert skips[0].code is Reason.NOT_FINITE


def test_only_and_exclude_leave_nodes_out_with_their_own_reasons() -> None:
    model = graph(
        """g (float[N,24] x, float[24,24] w1, float[24,24] w2) => (float[N,24] y) {
            [one] a = MatMul(x, w1) [two] y = MatMul(a, w2) }"""
    )
    sites, skips = find_sites(model, (), ("one",))
    assert [s.name for s in sites] == ["two"]
    assert [(s.node, s.code) for s in skips] == [("one", Reason.EXCLUDED)]
    sites, skips = find_sites(model, ("one",), ())
    assert [s.name for s in sites] == ["one"]
    assert [(s.node, s.code) for s in skips] == [("two", Reason.NOT_SELECTED)]


def test_nodes_in_bodies_are_reported() -> None:
    model = graph(
        """g (bool c, float[N,24] x, float[24,32] w) => (float[N,32] y) {
            y = If(c) <then_branch = t () => (float[N,32] a) { a = MatMul(x, w) },
                       else_branch = e () => (float[N,32] b) { b = MatMul(x, w) }> }"""
    )
    sites, skips = find_sites(model, (), ())
    assert not sites
    assert [s.code for s in skips] == [Reason.INSIDE_SUBGRAPH] * 2


def test_a_custom_operator_is_no_site() -> None:
    model = graph("g (float[N,24] x, float[24,32] w) => (float[N,32] y) { y = com.microsoft.FusedMatMul(x, w) }")
    assert find_sites(model, (), ()) == ([], [])
