"""Constants in front of convolutions and products go into their weights."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph
from simplify_cases import kinds, simplified

ACTION = "folded into the weights behind it"


def conv(call: str, *, constant: str = "1", attributes: str = "", weight: str = "5,4,3,3"):
    return graph(
        f"g (float[N,4,6,6] x, float[{weight}] w, float[5] w_b, float[{constant}] w_c) => (float[N,5,a,b] y) "
        f"{{ m = {call} y = Conv{attributes}(m, w, w_b) }}"
    )


@pytest.mark.parametrize("constant", ["1", "4,1,1", "1,4,1,1", "1,1,1,1"])
@pytest.mark.parametrize("call", ["Mul(x, w_c)", "Mul(w_c, x)", "Div(x, w_c)", "Add(x, w_c)", "Sub(x, w_c)"])
def test_arithmetic_with_one_constant_for_each_channel_goes_into_a_convolution_without_padding(call, constant):
    plan, after = simplified(conv(call, constant=constant))
    assert kinds(after) == ["Conv"]
    assert {e.action for e in plan.edits} == {ACTION}


@pytest.mark.parametrize("attributes", ["<pads = [1, 1, 1, 1]>", '<auto_pad = "SAME_UPPER">'])
def test_in_front_of_padding_a_factor_folds_and_a_shift_stays(attributes):
    assert kinds(simplified(conv("Mul(x, w_c)", attributes=attributes))[1]) == ["Conv"]
    assert kinds(simplified(conv("Add(x, w_c)", attributes=attributes))[1]) == ["Add", "Conv"]


@pytest.mark.parametrize("groups", [2, 4])
def test_channels_of_groups_meet_their_own_weights(groups):
    model = graph(
        f"g (float[N,4,6,6] x, float[8,{4 // groups},3,3] w, float[4,1,1] w_c, float[4,1,1] w_d) => (float[N,8,a,b] y) "
        f"{{ m = Mul(x, w_c) s = Add(m, w_d) y = Conv<group = {groups}>(s, w) }}"
    )
    assert kinds(simplified(model)[1]) == ["Conv"]


def test_a_factor_passes_a_shift_that_must_stay():
    model = graph(
        "g (float[N,4,6,6] x, float[5,4,3,3] w, float w_c, float w_d) => (float[N,5,a,b] y) "
        "{ m = Mul(x, w_c) s = Add(m, w_d) y = Conv<pads = [1, 1, 1, 1]>(s, w) }"
    )
    plan, after = simplified(model)
    assert kinds(after) == ["Add", "Conv"]
    assert [e.op_type for e in plan.edits] == ["Mul"]


@pytest.mark.parametrize("product", ["Gemm(m, w)", "Gemm<transB = 1>(m, w)", "MatMul(m, w)"])
@pytest.mark.parametrize("constant", ["1", "4"])
def test_products_with_a_matrix_take_factors_of_their_columns(product, constant):
    weight = "5,4" if "transB" in product else "4,5"
    model = graph(
        f"g (float[N,4] x, float[{weight}] w, float[{constant}] w_c) => (float[N,5] y) "
        f"{{ m = Mul(x, w_c) y = {product} }}"
    )
    assert len(kinds(simplified(model)[1])) == 1


def test_every_reader_takes_the_factor_or_none_does():
    text = (
        "g (float[N,4,6,6] x, float[5,4,3,3] w, float[5,4,1,1] w2, float w_c) => (float[N,5,a,b] y, float[N,e,c,d] z)"
    )
    both = graph(f"{text} {{ m = Mul(x, w_c) y = Conv(m, w) z = Conv(m, w2) }}")
    assert kinds(simplified(both)[1]) == ["Conv", "Conv"]
    one = graph(f"{text} {{ m = Mul(x, w_c) y = Conv(m, w) z = Relu(m) u = Conv(m, w2) }}")
    assert "Mul" in kinds(simplified(one)[1])
    shared = graph(f"{text} {{ m = Mul(x, w_c) y = Conv(m, w) z = Conv(x, w) u = Conv(x, w2) }}")
    assert "Mul" in kinds(simplified(shared)[1])


def test_the_half_of_a_gelu_that_is_not_recognised_is_left_to_its_fusion():
    # 1.4142 is not √2 up to rounding; ONNX Runtime takes it for that.
    model = graph(
        """g (float[N,4] x, float[4,5] w) => (float[N,5] y) {
            r = Constant<value = float {1.4142}>() one = Constant<value = float {1.0}>()
            half = Constant<value = float {0.5}>()
            d = Div(x, r) e = Erf(d) a = Add(e, one) m = Mul(x, a) g = Mul(m, half) y = MatMul(g, w)
        }"""
    )
    assert kinds(simplified(model)[1]).count("Mul") == 2


def test_excluded_nodes_stay():
    assert kinds(simplified(conv("Mul(x, w_c)"), exclude=("Mul",))[1]) == ["Mul", "Conv"]
    assert kinds(simplified(conv("Mul(x, w_c)"), exclude=("Conv",))[1]) == ["Mul", "Conv"]


def test_a_constant_that_widens_its_operand_stays():
    model = graph(
        "g (float[N,1,6,6] x, float[5,4,3,3] w, float[4,1,1] w_c) => (float[N,5,4,4] y) "
        "{ m = Mul(x, w_c) y = Conv(m, w) }"
    )
    assert kinds(simplified(model)[1]) == ["Mul", "Conv"]


def test_a_bias_of_a_gemm_that_differs_from_row_to_row_takes_no_shift():
    model = graph(
        "g (float[5,4] x, float[4,5] w, float[5,1] w_b, float[4] w_c) => (float[5,5] y) "
        "{ m = Add(x, w_c) y = Gemm(m, w, w_b) }"
    )
    assert kinds(simplified(model)[1]) == ["Add", "Gemm"]


def test_a_shift_is_left_as_it_was_where_the_factor_can_not_be_folded():
    huge = np.full((5, 4, 3, 3), 3e38, np.float32)
    model = graph(
        "g (float[N,4,6,6] x, float[5,4,3,3] w, float w_c, float w_d) => (float[N,5,a,b] y) "
        "{ m = Mul(x, w_c) s = Add(m, w_d) y = Conv<pads = [1, 1, 1, 1]>(s, w) }",
        w=huge,
        w_c=np.float32(2.0),
        w_d=np.float32(3e-38),
    )
    feed = {"x": np.full((1, 4, 6, 6), 1e-38, np.float32)}
    assert kinds(simplified(model, feed=feed)[1]) == ["Mul", "Add", "Conv"]


def test_readers_inside_a_body_leave_the_constant_where_it_is():
    model = graph(
        """g (float[1,4] x, bool c, float[4,5] w, float w_c) => (float[1,5] y) {
            m = Mul(x, w_c)
            y = If(c) <
                then_branch = a () => (float[1,5] t) { t = MatMul(m, w) },
                else_branch = b () => (float[1,5] e) { e = MatMul(m, w) }
            >
        }"""
    )
    feed = {"x": np.ones((1, 4), np.float32), "c": np.array(True)}
    assert kinds(simplified(model, feed=feed)[1]) == ["Mul", "If"]
