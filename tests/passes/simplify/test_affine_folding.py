"""Batch norms and per-channel arithmetic go into the weights in front of them."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph
from simplify_cases import codes, kinds, simplified

from onnxcomp.report.reasons import Reason

BN = "BatchNormalization<epsilon=0.01>"
PARAMETERS = "float[{c}] w_s, float[{c}] w_t, float[{c}] w_m, float[{c}] w_v"


def _positive(channels: int) -> dict[str, np.ndarray]:
    return {"w_v": np.linspace(0.3, 2, channels).astype(np.float32)}


@pytest.mark.parametrize("bias", ["", ", w_b"])
@pytest.mark.parametrize(
    ("product", "weight", "data", "out", "channels"),
    [
        ("Conv", "5,3,3,3", "N,3,6,6", "N,5,4,4", 5),
        ("Conv<group=3>", "6,1,3,3", "N,3,6,6", "N,6,4,4", 6),
        ("Conv", "5,3,3", "N,3,6", "N,5,4", 5),
        ("ConvTranspose", "3,5,2,2", "N,3,4,4", "N,5,5,5", 5),
        ("ConvTranspose<group=2>", "4,3,2,2", "N,4,4,4", "N,6,5,5", 6),
        ("ConvTranspose<group=4>", "4,1,2", "N,4,4", "N,4,5", 4),
        ("Gemm", "3,5", "N,3", "N,5", 5),
        ("Gemm<transB=1>", "5,3", "N,3", "N,5", 5),
        ("Gemm<alpha=0.5, beta=0.25>", "3,5", "N,3", "N,5", 5),
    ],
)
def test_a_batch_norm_becomes_part_of_the_weights(product, weight, data, out, channels, bias):
    declared = f", float[{channels}] w_b" if bias else ""
    model = graph(
        f"g (float[{data}] x, float[{weight}] w, {PARAMETERS.format(c=channels)}{declared}) => (float[{out}] y) "
        f"{{ a = {product}(x, w{bias}) y = {BN}(a, w_s, w_t, w_m, w_v) }}",
        **_positive(channels),
    )
    plan, after = simplified(model)
    assert kinds(after) == [product.split("<")[0]]
    assert after.graph[0].outputs[0].name == "y"
    assert [(e.op_type, e.action) for e in plan.edits] == [("BatchNormalization", "folded into weights")]


@pytest.mark.parametrize("shape", ["5,1,1", "1,5,1,1", "1", "1,1,1,1"])
@pytest.mark.parametrize(
    "call", ["Mul(a, w_c)", "Mul(w_c, a)", "Div(a, w_c)", "Add(a, w_c)", "Add(w_c, a)", "Sub(a, w_c)"]
)
def test_arithmetic_with_one_constant_for_each_channel_becomes_part_of_the_weights(shape, call):
    model = graph(
        f"g (float[N,3,6,6] x, float[5,3,3,3] w, float[{shape}] w_c) "
        f"=> (float[N,5,4,4] y) {{ a = Conv(x, w) y = {call} }}"
    )
    assert kinds(simplified(model)[1]) == ["Conv"]


def test_a_whole_chain_folds():
    text = f"""g (float[N,3,6,6] x, float[5,3,3,3] w, float[5,1,1] w_c, {PARAMETERS.format(c=5)}) =>
        (float[N,5,4,4] y) {{
        a = Conv(x, w) b = Mul(a, w_c) c = {BN}(b, w_s, w_t, w_m, w_v) d = Add(c, w_c) y = Relu(d) }}"""
    assert kinds(simplified(graph(text, **_positive(5)))[1]) == ["Conv", "Relu"]


@pytest.mark.parametrize("shape", ["4,4", "1,1,4", "5,4,4", "1,1,5,4,4", "5"])
def test_a_constant_that_varies_along_the_image_stays(shape):
    side = 5 if shape == "5" else 4
    out = f"1,N,5,{side},{side}" if shape.count(",") == 4 else f"N,5,{side},{side}"
    model = graph(
        f"g (float[N,3,{side + 2},{side + 2}] x, float[5,3,3,3] w, float[{shape}] w_c) => (float[{out}] y) "
        "{ a = Conv(x, w) y = Mul(a, w_c) }"
    )
    assert kinds(simplified(model)[1]) == ["Conv", "Mul"]


def test_a_gemm_bias_that_varies_from_row_to_row_is_not_taken_for_one_of_channels():
    model = graph(
        "g (float[4,3] x, float[3,4] w, float[4,1] w_b, float[4] w_c) => (float[4,4] y) "
        "{ a = Gemm(x, w, w_b) y = Mul(a, w_c) }"
    )
    assert kinds(simplified(model)[1]) == ["Gemm", "Mul"]


@pytest.mark.parametrize("shape", ["4", "1,4", "1", "1,1"])
def test_a_gemm_bias_that_broadcasts_over_the_rows_folds(shape):
    model = graph(
        f"g (float[4,3] x, float[3,4] w, float[{shape}] w_b, float[4] w_c) => (float[4,4] y) "
        "{ a = Gemm<beta=2.0>(x, w, w_b) y = Mul(a, w_c) }"
    )
    assert kinds(simplified(model)[1]) == ["Gemm"]


def test_scaling_without_a_shift_adds_no_bias():
    model = graph(
        "g (float[N,3,6,6] x, float[5,3,3,3] w, float w_c) => (float[N,5,4,4] y) { a = Conv(x, w) y = Mul(a, w_c) }"
    )
    assert len(simplified(model)[1].graph[0].inputs) == 2


def test_a_scalar_shift_of_many_channels_would_need_a_larger_bias_and_stays():
    text = (
        "g (float[N,1,2,2] x, float[1024,1,1,1] w, float w_c) "
        "=> (float[N,1024,2,2] y) { a = Conv(x, w) y = Add(a, w_c) }"
    )
    assert kinds(simplified(graph(text))[1]) == ["Conv", "Add"]


REFUSED = {
    "weights used twice": (Reason.SHARED, "a = Conv(x, w) z = Conv<group=1>(x, w)"),
    "product used twice": (Reason.SHARED, "a = Conv(x, w) z = Relu(a)"),
    "weights computed": (Reason.NOT_CONSTANT, "k = Mul(w, u) a = Conv(x, k) z = Relu(x)"),
    "no product in front": (Reason.UNSUPPORTED_FORM, "c = Conv(x, w) a = Relu(c) z = Relu(x)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_batch_norm_that_stays_has_a_reason(case):
    code, body = REFUSED[case]
    model = graph(
        f"g (float[N,5,4,4] x, float u, float[5,5,1,1] w, {PARAMETERS.format(c=5)}) "
        f"=> (float[N,5,4,4] y, float[N,5,4,4] z) "
        f"{{ {body} y = {BN}(a, w_s, w_t, w_m, w_v) }}",
        **_positive(5),
    )
    plan, after = simplified(model)
    assert kinds(after).count("BatchNormalization") == 1
    assert codes(plan)["BatchNormalization"] is code


@pytest.mark.parametrize(
    ("outputs", "node", "variance", "code"),
    [
        ("float[N,5,4,4] y, float[N,5,4,4] a", f"y = {BN}(a, w_s, w_t, w_m, w_v)", 1.0, Reason.GRAPH_OUTPUT),
        ("float[N,5,4,4] y", f"y = {BN}(a, w_s, w_t, w_m, w_v)", -0.01, Reason.NOT_FINITE),
        ("float[N,5,4,4] y", f"y = {BN}(a, w_s, u, w_m, w_v)", 1.0, Reason.NOT_CONSTANT),
        ("float[N,5,4,4] y, float[5] m, float[5] v",
         "y, m, v = BatchNormalization<training_mode=1>(a, w_s, w_t, w_m, w_v)", 1.0, Reason.UNSUPPORTED_FORM),
    ],
)  # fmt: skip
def test_outputs_training_and_broken_statistics_are_reasons_too(outputs, node, variance, code):
    model = graph(
        f"g (float[N,3,6,6] x, float[5] u, float[5,3,3,3] w, {PARAMETERS.format(c=5)}) => ({outputs}) "
        f"{{ a = Conv(x, w) {node} }}",
        w_v=np.full(5, variance, np.float32),
    )
    plan, after = simplified(model)
    assert kinds(after) == ["Conv", "BatchNormalization"]
    assert codes(plan) == {"BatchNormalization": code}


def test_half_precision_weights_are_not_rounded_again():
    half = "float16[{}] w_s, float16[{}] w_t, float16[{}] w_m, float16[{}] w_v".replace("{}", "5")
    model = graph(
        f"g (float16[N,3,6,6] x, float16[5,3,3,3] w, {half}) => (float16[N,5,4,4] y) "
        f"{{ a = Conv(x, w) y = {BN}(a, w_s, w_t, w_m, w_v) }}",
        w_v=np.ones(5, np.float16),
    )
    plan, _ = simplified(model)
    assert codes(plan) == {"BatchNormalization": Reason.NOT_FLOAT32}


def test_weights_that_overflow_are_not_written():
    model = graph(
        "g (float[N,3,6,6] x, float[5,3,3,3] w, float w_c) => (float[N,5,4,4] y) { a = Conv(x, w) y = Mul(a, w_c) }",
        w=np.full((5, 3, 3, 3), 1e30, np.float32),
        w_c=np.asarray(1e20, np.float32),
    )
    feed = {"x": np.zeros((1, 3, 6, 6), np.float32)}
    assert kinds(simplified(model, feed=feed)[1]) == ["Conv", "Mul"]


def test_a_follower_inside_a_body_is_not_taken_out_of_it():
    model = graph("""g (float[1,3,4,4] x, bool k, float[3,3,1,1] w, float[3,1,1] w_c) => (float[1,3,4,4] y) {
        a = Conv(x, w)
        y = If(k) <then_branch = p () => (float[1,3,4,4] r) { r = Mul(a, w_c) },
                   else_branch = q () => (float[1,3,4,4] r) { r = Neg(x) }> }""")
    for value in (True, False):
        feed = {"x": np.ones((1, 3, 4, 4), np.float32), "k": np.asarray(value)}
        assert kinds(simplified(model, feed=feed)[1]) == ["Conv", "If"]


def test_excluded_nodes_stay_on_either_side():
    text = "g (float[N,3,6,6] x, float[5,3,3,3] w, float w_c) => (float[N,5,4,4] y) { a = Conv(x, w) y = Mul(a, w_c) }"
    for pattern in ("Conv", "Mul"):
        assert kinds(simplified(graph(text), exclude=(pattern,))[1]) == ["Conv", "Mul"]
