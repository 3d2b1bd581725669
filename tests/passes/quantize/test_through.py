"""Ranges of values that are seen only through an activation."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph
from quantize_cases import quantized

from onnxcomp.calibration.stream import Observed
from onnxcomp.passes.quantize.ranges import mse
from onnxcomp.passes.quantize.through import seen_through

BODIES = {
    "hard swish": ("h = HardSwish(a)", lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "hard swish as two": (
        "g = HardSigmoid<alpha = 0.16666667, beta = 0.5>(a) h = Mul(a, g)",
        lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    ),
    "hard sigmoid": ("h = HardSigmoid(a)", lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    "silu": ("g = Sigmoid(a) h = Mul(g, a)", lambda x: x / (1 + np.exp(-x))),
    "leaky": ("h = LeakyRelu<alpha = 0.1>(a)", lambda x: np.where(x > 0, x, 0.1 * x)),
}


def value(body: str):
    model = graph(
        f"g (float[1,4,8,8] x, float[4,4,1,1] w, float[4,4,1,1] w2) => (float[1,4,8,8] y) "
        f"{{ a = Conv(x, w) {body} y = Conv(h, w2) }}"
    )
    return next(n for n in model.graph if n.op_type == "Conv").outputs[0]


@pytest.mark.parametrize("name", BODIES)
def test_the_function_is_that_of_the_nodes(name):
    body, wanted = BODIES[name]
    x = np.linspace(-9, 9, 101)
    found = seen_through(value(body))
    assert found is not None
    np.testing.assert_allclose(found(x), wanted(x), atol=1e-6)


@pytest.mark.parametrize(
    "body", ["h = Tanh(a)", "g = Sigmoid(a) h = Add(a, g)", "g = Sigmoid(a) t = Tanh(a) h = Mul(t, g)", "h = Relu(a)"]
)
def test_other_readers_see_the_value_as_it_is(body):
    assert seen_through(value(body)) is None


def test_what_a_hard_swish_makes_zero_takes_no_part_of_the_range():
    observed = Observed()
    observed.add(np.random.default_rng(0).normal(-6, 4, 50_000).astype(np.float32))
    through = seen_through(value(BODIES["hard swish"][0]))
    plain, seen = mse(observed), mse(observed, through)
    assert plain[0] < -10
    assert -4.5 < seen[0] <= -2.0
    assert seen[1] > 5


def test_the_error_behind_the_activation_is_smaller_with_it():
    values = np.random.default_rng(1).normal(-4, 6, 50_000).astype(np.float32)
    observed = Observed()
    observed.add(values)
    _, function = BODIES["silu"]

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        rounded = np.clip(np.rint((values - low) / scale), 0, 255) * scale + low
        return float(((function(rounded) - function(values)) ** 2).mean())

    assert error(*mse(observed, function)) < 0.7 * error(*mse(observed))


def test_the_identity_as_a_function_changes_nothing():
    observed = Observed()
    observed.add(np.random.default_rng(2).standard_t(4, 20_000).astype(np.float32))
    np.testing.assert_allclose(mse(observed, lambda x: x), mse(observed), rtol=1e-6)


def test_a_network_of_hard_swish_is_closer_with_ranges_behind_it():
    model = graph(
        "g (float[1,8,8,8] x, float[16,8,1,1] w, float[16] w_b, float[8,16,1,1] w2) => (float[1,8,8,8] y) "
        "{ a = Conv(x, w, w_b) h = HardSwish(a) y = Conv(h, w2) }",
        w_b=np.full(16, -6, np.float32),
        w=np.random.default_rng(0).normal(0, 2, (16, 8, 1, 1)).astype(np.float32),
    )
    assert quantized(model).cosine() > quantized(model, ranges="minmax").cosine()
