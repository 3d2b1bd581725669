"""Scales, zero points and rounding against their definition, against ONNX Runtime, and at the edges of float32."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph, run
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnxcomp.passes.integer_weights import SMALLEST_SCALE, quantize_weight, weight_scales
from onnxcomp.passes.quantize.affine import (
    BIAS_LIMIT,
    QMAX,
    Affine,
    from_range,
    quantize_bias,
    scalar_constant,
    widened_for_bias,
)

REAL = st.floats(-1e6, 1e6, allow_nan=False)
INF = float("inf")


def round_trip(x: np.ndarray, params: Affine) -> np.ndarray:
    """x → uint8 → x̂ by the formula of ONNX, in float64."""
    q = np.clip(np.rint(x / params.scale) + params.zero_point, 0, QMAX)
    return (q - params.zero_point) * params.scale


@settings(max_examples=300, deadline=None)
@given(REAL, REAL)
def test_every_value_of_the_range_comes_back_within_half_a_step_and_zero_comes_back_exactly(a, b):
    low, high = sorted((a, b))
    assume(max(high, 0) - min(low, 0) > SMALLEST_SCALE * QMAX)
    params = from_range(low, high)
    x = np.linspace(min(low, 0.0), max(high, 0.0), 1001)
    # 1e-6: the scale is rounded to float32, and its error is multiplied by up to 255 steps.
    assert np.abs(round_trip(x, params) - x).max() <= params.scale * (0.5 + QMAX * 1e-6)
    assert round_trip(np.zeros(1), params)[0] == 0.0
    assert 0 <= params.zero_point <= QMAX
    assert float(np.float32(params.scale)) == params.scale


@settings(max_examples=300, deadline=None)
@given(st.floats(-1e4, 0), st.floats(1e-6, 1e4), st.floats(0, 2), st.floats(0, 2))
def test_the_represented_range_stays_inside_an_absorbed_clip_in_float32(a, b, below, above):
    a, b = float(np.float32(a)), float(np.float32(b))
    params = from_range(a * below, b * above, clip=(a, b))
    scale = np.float32(params.scale)
    assert scale > 0
    assert np.float32(QMAX - params.zero_point) * scale <= np.float32(b)
    assert np.float32(-params.zero_point) * scale >= np.float32(a)


@pytest.mark.parametrize("high", [0.0, 1e-30, 1.0, 5.9999999, 6.0, 100.0])
def test_relu6_gets_zero_point_0_and_a_scale_of_at_most_6_over_255(high):
    params = from_range(0.0, high, clip=(0.0, 6.0))
    assert params.zero_point == 0
    assert 0 < np.float32(params.scale) * np.float32(QMAX) <= np.float32(6.0)


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (-3.0, -1.0), (0.0, 0.0), (2.0, 5.0)])
def test_after_a_relu_the_zero_point_is_0(low, high):
    assert from_range(low, high, clip=(0.0, INF)).zero_point == 0


def test_a_range_of_one_sign_is_widened_to_zero():
    assert from_range(-5.0, -2.0) == from_range(-5.0, 0.0)
    assert from_range(-5.0, -2.0).zero_point == QMAX
    assert from_range(2.0, 5.0) == from_range(0.0, 5.0)
    assert from_range(2.0, 5.0).zero_point == 0


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (-1e-45, 1e-45), (0.0, 1e-20)])
@pytest.mark.parametrize("clip", [None, (0.0, INF), (0.0, 6.0), (-1.0, 1.0), (0.0, 1e-44)])
def test_a_tensor_of_zeros_gets_a_scale_that_is_normal_in_float32(low, high, clip):
    params = from_range(low, high, clip)
    assert SMALLEST_SCALE <= params.scale <= 1.0
    assert params.zero_point == 0


def test_the_widest_range_of_float32_has_a_finite_scale():
    largest = float(np.finfo(np.float32).max)
    params = from_range(-largest, largest)
    assert np.isfinite(np.float32(params.scale))
    assert params.zero_point in (127, 128)


@settings(max_examples=100, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda v: v == 0 or abs(v) > SMALLEST_SCALE))
def test_a_constant_operand_is_represented_exactly(value):
    params, integer = scalar_constant(value)
    assert np.float32(integer - params.zero_point) * np.float32(params.scale) == np.float32(value)
    assert params.scale > 0


@pytest.mark.parametrize(("shape", "axis"), [((8, 3, 3, 3), 0), ((16, 8), 1), ((16, 8), -1), ((5,), 0)])
def test_weights_come_back_within_half_a_step_of_their_channel_and_the_largest_one_uses_the_whole_range(shape, axis):
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 4, shape)).astype(np.float32)
    scales = weight_scales(weight, axis)
    integers = quantize_weight(weight, scales, axis)
    by_channel = [np.moveaxis(a, axis, 0).reshape(len(scales), -1).astype(np.float64) for a in (weight, integers)]
    assert scales.shape == (shape[axis],)
    assert (np.abs(by_channel[1] * scales[:, None] - by_channel[0]) <= scales[:, None] * 0.5001).all()
    np.testing.assert_array_equal(np.abs(by_channel[1]).max(axis=1), 127)


def test_a_channel_of_zeros_or_of_denormals_gets_a_usable_scale():
    weight = np.array([[0.0, 0.0], [1e-44, -1e-44], [1.0, -1.0]], np.float32)
    scales = weight_scales(weight, 0)
    assert (scales >= SMALLEST_SCALE).all()
    assert np.isfinite(scales).all()
    np.testing.assert_array_equal(quantize_weight(weight, scales, 0), [[0, 0], [0, 0], [127, -127]])


def test_the_scale_of_a_bias_is_exactly_the_float32_product_of_its_two_scales():
    rng = np.random.default_rng(1)
    scales = np.abs(rng.standard_normal(64)).astype(np.float32)
    for input_scale in (1e-9, 0.02352941, 3.7):
        integers, product = quantize_bias(rng.standard_normal(64), input_scale, scales)
        assert product.dtype == np.float32
        assert integers.dtype == np.int32
        np.testing.assert_array_equal(product, np.float32(input_scale) * scales)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-(2.0**60), 2.0**60, width=32),
    st.floats(SMALLEST_SCALE, 1024, width=32),
    st.floats(SMALLEST_SCALE, 1024, width=32),
)
def test_a_bias_at_a_widened_scale_never_overflows_and_comes_back_within_half_a_step(bias, input_scale, weight_scale):
    array = np.array([bias], np.float32)
    scales = widened_for_bias(np.array([weight_scale], np.float32), input_scale, array)
    integers, product = quantize_bias(array, input_scale, scales)
    assert scales[0] >= np.float32(weight_scale)
    assert abs(int(integers[0])) <= BIAS_LIMIT * (1 + 1e-6)
    assert abs(float(integers[0]) * float(product[0]) - float(array[0])) <= 0.5001 * float(product[0])


def test_a_bias_that_fits_leaves_the_weight_scale_alone():
    scales = np.array([0.01, 0.02], np.float32)
    np.testing.assert_array_equal(widened_for_bias(scales, 0.05, np.array([3.0, -4.0])), scales)


@settings(max_examples=20, deadline=None)
@given(st.floats(-50, 0), st.floats(0.01, 50), st.integers(0, 1000))
def test_the_formula_rounds_as_onnx_runtime_does(low, high, seed):
    params = from_range(low, high)
    x = (np.random.default_rng(seed).uniform(low * 1.2, high * 1.2, 257)).astype(np.float32)
    model = graph(
        """g (float[N] x, float[1] w_s, uint8[1] w_z) => (uint8[N] y) {
            a = Constant<value = int64[0] {}>()
            s = Reshape(w_s, a)
            z = Reshape(w_z, a)
            y = QuantizeLinear(x, s, z)
        }""",
        w_s=np.array([params.scale], np.float32),
        w_z=np.array([params.zero_point], np.uint8),
    )
    ours = np.clip(np.rint(x / np.float32(params.scale)) + params.zero_point, 0, QMAX).astype(np.uint8)
    np.testing.assert_array_equal(run(model, {"x": x})[0], ours)
