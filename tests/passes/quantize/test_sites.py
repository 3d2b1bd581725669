"""Which nodes are sites, what they absorb, and what is said of the others."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph

from onnxcomp.model.normalize import normalize
from onnxcomp.ops.clips import activation_bounds
from onnxcomp.passes.quantize.sites import find_sites
from onnxcomp.report.reasons import Reason

INF = float("inf")


def found(text, only=(), exclude=(), **weights):
    sites, skips = find_sites(normalize(graph(text, **weights)).model, only, exclude)
    return {s.name: s for s in sites}, {s.node: s for s in skips}


def test_a_matmul_absorbs_its_bias_and_the_relu_behind_it():
    sites, _ = found(
        "g (float[N,8] x, float[8,4] w, float[4] wb) => (float[N,4] y) { m = MatMul(x, w) a = Add(m, wb) y = Relu(a) }"
    )
    (site,) = sites.values()
    assert [n.op_type for n in site.absorbed] == ["Add", "Relu"]
    assert (site.bias.name, site.outputs[0].name, site.clip) == ("wb", "y", (0.0, INF))


@pytest.mark.parametrize(
    ("body", "absorbed"),
    [
        ("a = Conv(x, w) y = Relu(a)", ["Relu"]),
        ("a = Conv(x, w) r = Relu(a) y = Relu(r)", ["Relu"]),
        ("a = Conv(x, w) r = Relu(a) y = Add(r, a)", []),
        ("a = Conv(x, w) lo = Constant<value = float {1.0}>() y = Clip(a, lo)", []),
        ("a = Conv(x, w) hi = Constant<value = float {6.0}>() y = Clip(a, , hi)", ["Clip"]),
        ("a = Conv(x, w) hi = ReduceMax<keepdims = 0>(x) y = Clip(a, , hi)", []),
        ("a = Conv(x, w) y = Tanh(a)", []),
    ],
    ids=[
        "one Relu",
        "the first of two",
        "another reader",
        "Clip without zero",
        "upper bound only",
        "computed bound",
        "no clip",
    ],
)
def test_only_a_sole_reader_whose_constant_range_holds_zero_is_absorbed(body, absorbed):
    sites, _ = found(f"g (float[N,4,5,5] x, float[4,4,1,1] w) => (float[N,4,5,5] y) {{ {body} }}")
    assert [n.op_type for n in sites["Conv_a"].absorbed] == absorbed


def test_an_activation_that_is_also_read_as_a_graph_output_before_it_is_not_absorbed():
    sites, _ = found(
        "g (float[N,4,5,5] x, float[4,4,1,1] w) => (float[N,4,5,5] a, float[N,4,5,5] y) { a = Conv(x, w) y = Relu(a) }"
    )
    assert sites["Conv_a"].absorbed == ()


@pytest.mark.parametrize(
    ("arguments", "bounds"),
    [("a, lo, hi", (-1.0, 6.0)), ("a, lo", (-1.0, INF)), ("a, , hi", (-INF, 6.0)), ("a", (-INF, INF))],
)
def test_the_bounds_of_a_clip_are_infinite_where_it_has_none(arguments, bounds):
    model = normalize(
        graph(
            f"""g (float[N] a) => (float[N] y) {{
                lo = Constant<value = float {{-1.0}}>()
                hi = Constant<value = float {{6.0}}>()
                y = Clip({arguments})
            }}"""
        )
    ).model
    assert activation_bounds(next(n for n in model.graph if n.op_type == "Clip")) == bounds


@pytest.mark.parametrize(
    ("body", "node", "code"),
    [
        ("y = MatMul(x, x)", "MatMul_y", Reason.NOT_CONSTANT),
        ("t = Tanh(x) y = MatMul(x, t)", "MatMul_y", Reason.TWO_ACTIVATIONS),
        ("y = MatMul(w, x)", "MatMul_y", Reason.UNSUPPORTED_FORM),
        ("y = Gemm<alpha = 2.0>(x, w)", "Gemm_y", Reason.UNSUPPORTED_FORM),
        ("y = Gemm<transA = 1>(x, w)", "Gemm_y", Reason.UNSUPPORTED_FORM),
        ("y = Add(x, w)", "Add_y", Reason.UNSUPPORTED_FORM),
        ("y = Softmax(x)", "Softmax_y", Reason.KEPT_FLOAT),
        ("y = com.microsoft.FastGelu(x)", "FastGelu_y", Reason.UNKNOWN_OPERATOR),
    ],
)
def test_each_refusal_has_its_code_and_a_sentence(body, node, code):
    sites, skips = found(f"g (float[8,8] x, float[8,8] w) => (float[8,8] y) {{ {body} }}")
    assert node not in sites
    assert skips[node].code is code
    assert skips[node].sentence


@pytest.mark.parametrize("op_type", ["ConvTranspose", "LSTM"])
def test_heavy_operators_without_an_integer_kernel_are_named(op_type):
    body = {
        "ConvTranspose": "float[4,4,2,2] w) => (float[a,b,c,d] y) { y = ConvTranspose(x, w) }",
        "LSTM": """float[1,8,5] w, float[1,8,2] wr) => (float[a,b,c,d] y) {
            s = Constant<value = int64[1] {0}>()
            t = Squeeze(x, s)
            y = LSTM<hidden_size = 2>(t, w, wr)
        }""",
    }[op_type]
    _, skips = found(f"g (float[1,4,5,5] x, {body}")
    assert {s.code for s in skips.values() if s.op_type == op_type} == {Reason.NO_INTEGER_KERNEL}


def test_arithmetic_on_integers_is_passed_over_in_silence():
    sites, skips = found("g (int64[4] x) => (int64[8] y) { a = Add(x, x) b = Mul(a, x) y = Concat<axis = 0>(a, b) }")
    assert (sites, skips) == ({}, {})


def test_float64_and_float16_weights_are_not_quantised():
    for dtype in ("double", "float16"):
        _, skips = found(f"g ({dtype}[N,8] x, {dtype}[8,4] w) => ({dtype}[N,4] y) {{ y = MatMul(x, w) }}")
        assert skips["MatMul_y"].code is Reason.NOT_FLOAT32


def test_a_weight_read_along_two_axes_has_an_entry_for_each():
    sites, _ = found(
        "g (float[N,8] x, float[8,8] w) => (float[N,8] y) { a = MatMul(x, w) r = Tanh(a) y = Gemm<transB = 1>(r, w) }"
    )
    assert {s.weight_key for s in sites.values()} == {"w@0", "w@1"}


def test_only_and_exclude_are_told_apart():
    text = "g (float[N,4,5,5] x, float[4,4,1,1] w) => (float[N,4,5,5] y) { a = Conv(x, w) y = Conv(a, w) }"
    assert found(text, only=("Conv_a",))[1]["Conv_y"].code is Reason.NOT_SELECTED
    assert found(text, exclude=("Conv",))[1]["Conv_y"].code is Reason.EXCLUDED


def test_a_bias_that_is_no_vector_of_channels_is_refused_or_left_to_float():
    gemm = "g (float[2,8] x, float[8,4] w, float[2,4] wb) => (float[2,4] y) { y = Gemm(x, w, wb) }"
    assert found(gemm)[1]["Gemm_y"].code is Reason.UNSUPPORTED_FORM
    rows = "g (float[2,8] x, float[8,4] w, float[2,1] wb) => (float[2,4] y) { m = MatMul(x, w) y = Add(m, wb) }"
    assert found(rows)[0]["MatMul_m"].absorbed == ()


def test_an_empty_weight_is_refused():
    _, skips = found(
        "g (float[N,4] x, float[4,0] w) => (float[N,0] y) { y = MatMul(x, w) }", w=np.zeros((4, 0), np.float32)
    )
    assert skips["MatMul_y"].code is Reason.UNSUPPORTED_FORM
