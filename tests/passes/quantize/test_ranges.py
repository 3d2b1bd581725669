"""Range methods against brute force over the raw values and against numpy's quantiles."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcomp.calibration.stream import Observed
from onnxcomp.passes.quantize.affine import QMAX, from_range
from onnxcomp.passes.quantize.ranges import (
    FIXED_RANGES,
    METHODS,
    NEXT_TO_NOTHING,
    SHRUNK,
    entropy,
    minmax,
    mse,
    percentile,
)

RNG = np.random.default_rng(7)
NORMAL = RNG.standard_normal(20_000).astype(np.float32)
HEAVY = RNG.standard_t(3, 20_000).astype(np.float32)

TENSORS = {
    "normal": NORMAL,
    "heavy tails": HEAVY,
    "after a Relu": np.maximum(HEAVY, 0),
    "all positive": np.abs(HEAVY) + 1,
    "all negative": -np.abs(HEAVY) - 1,
    "shifted": HEAVY + 2,
    "mostly zeros": np.where(RNG.random(20_000) < 0.99, 0, HEAVY).astype(np.float32),
    "one outlier each side": np.concatenate([NORMAL, [40.0, -25.0]]).astype(np.float32),
    "tiny": HEAVY * np.float32(1e-12),
    "huge": HEAVY * np.float32(1e30),
}


def observed(values: np.ndarray) -> Observed:
    result = Observed()
    result.add(np.asarray(values, np.float32))
    return result


def true_error(values: np.ndarray, bounds: tuple[float, float]) -> float:
    """Mean squared error of rounding the raw values with the parameters that the pass would choose for `bounds`."""
    params = from_range(*bounds)
    x = values.astype(np.float64)
    q = np.clip(np.rint(x / params.scale) + params.zero_point, 0, QMAX)
    return float((((q - params.zero_point) * params.scale - x) ** 2).mean())


def brute_force(values: np.ndarray, steps: int = 60) -> float:
    """Smallest true error over a grid of ranges."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    lows = [low] if low == 0 else np.linspace(low, low / steps, steps)
    highs = [high] if high == 0 else np.linspace(high, high / steps, steps)
    return min(true_error(values, (float(a), float(b))) for a in lows for b in highs)


@pytest.mark.parametrize("name", TENSORS)
def test_the_mse_range_is_within_3_percent_of_the_best_that_brute_force_over_the_raw_values_finds(name):
    values = TENSORS[name][:3000]
    assert true_error(values, mse(observed(values))) <= 1.03 * brute_force(values)


@pytest.mark.parametrize("name", TENSORS)
def test_the_mse_range_is_never_worse_than_the_full_range(name):
    # s²/12 is a mean: on 20,000 values the true error of a step wanders around it by less than 1 %.
    values = TENSORS[name]
    assert true_error(values, mse(observed(values))) <= 1.01 * true_error(values, minmax(observed(values)))


def test_on_a_tensor_with_one_outlier_mse_beats_minmax_by_the_factor_that_the_steps_predict():
    # n = 20,000 normal values and one of 100. Full range: step (100 + 4.2)/255 = 0.41, error s²/12 = 0.0139. Cut at
    # the normal values'
    # own range the rounding error is (8.4/255)²/12 = 9e-5, but the outlier adds 96²/20,000 = 0.46. The best lies
    # between.
    values = np.concatenate([NORMAL, [100.0]]).astype(np.float32)
    full, best = (true_error(values, method(observed(values))) for method in (minmax, mse))
    assert full == pytest.approx((104.2 / 255) ** 2 / 12, rel=0.05)
    assert best <= full
    # With an outlier of 10 cutting pays: steps shrink from 14.2/255 to about 8.5/255, so the error falls to less than
    # half.
    many = np.concatenate([np.tile(NORMAL, 50), [10.0]]).astype(np.float32)
    assert true_error(many, mse(observed(many))) < 0.6 * true_error(many, minmax(observed(many)))


@pytest.mark.parametrize("share", [0.99, 0.999, 0.9998])
def test_the_percentile_range_equals_numpys_quantiles_within_a_bin(share):
    found, width = percentile(observed(NORMAL), share=share), observed(NORMAL).histogram.width
    tail, one = (1 - share) / 2, 1.5 / NORMAL.size  # a quantile lies between two values: either will do
    assert np.quantile(NORMAL, tail - one) - width <= found[0] <= np.quantile(NORMAL, tail + one) + width
    assert (
        np.quantile(NORMAL, 1 - tail - one) - width <= found[1] <= np.quantile(NORMAL, min(1, 1 - tail + one)) + width
    )


@pytest.mark.parametrize(("name", "sign"), [("after a Relu", 1), ("all positive", 1), ("all negative", -1)])
def test_the_percentile_of_a_one_sided_tensor_cuts_the_far_end_only(name, sign):
    values = TENSORS[name]
    low, high = percentile(observed(values), share=0.999)
    far, near = (high, low) if sign > 0 else (low, high)
    width = observed(values).histogram.width
    assert far == pytest.approx(np.quantile(values, 0.999 if sign > 0 else 0.001), abs=2 * width)
    assert near == (values.min() if sign > 0 else values.max())


def test_the_percentile_does_not_cut_away_all_that_a_sparse_tensor_says():
    values = np.zeros(100_000, np.float32)
    values[:3], values[3:5] = 5.0, -2.0
    assert percentile(observed(values)) == (-2.0, 5.0)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("name", TENSORS)
def test_no_method_leaves_the_range_that_was_seen(method, name):
    found, values = observed(TENSORS[name]), TENSORS[name]
    low, high = method(found)
    assert min(low, 0.0) >= min(values.min(), 0.0)
    assert max(high, 0.0) <= max(values.max(), 0.0)
    assert low <= high


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("constant", [0.0, 3.5, -3.5, 1e-40])
def test_a_constant_tensor_is_represented_exactly_or_to_zero(method, constant):
    values = np.full(100, constant, np.float32)
    error = true_error(values, method(observed(values)))
    assert error <= max((constant * 1e-6) ** 2, 1e-70)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_relu_output_keeps_zero_as_its_lower_end(method):
    assert method(observed(TENSORS["after a Relu"]))[0] == 0.0


def test_values_that_are_exactly_representable_zeros_do_not_pull_the_range():
    # Adding zeros changes no rounding error, so it must not change the range.
    values = np.maximum(HEAVY, 0)
    assert mse(observed(values)) == mse(observed(np.concatenate([values, np.zeros(200_000, np.float32)])))


def test_outputs_of_sigmoid_and_softmax_have_a_known_range():
    assert set(FIXED_RANGES) == {"Sigmoid", "Softmax", "HardSigmoid"}
    assert set(FIXED_RANGES.values()) == {(0.0, 1.0)}


def tensorrt_range(found: Observed) -> tuple[float, float]:
    """The range of the smallest KL divergence, bin by bin as in Migacz' slides, over the candidates of `entropy`."""
    counts, width = found.histogram.counts.astype(np.float64), found.histogram.width
    low, high = minmax(found)
    middle, levels = len(counts) // 2, QMAX + 1
    left, right = (int(np.ceil(max(end, 0.0) / width)) for end in (-low, high))
    best = (np.inf, low, high)
    for share in np.linspace(1.0, levels / (left + right), SHRUNK):
        a, b = middle - int(np.rint(left * share)), middle + int(np.rint(right * share))
        inside = counts[a:b]
        if not inside.any():
            continue
        p, q = inside.copy(), np.zeros(b - a)
        p[0] += counts[:a].sum()
        p[-1] += counts[b:].sum()
        for level in range(levels):
            bins = slice(level * (b - a) // levels, (level + 1) * (b - a) // levels)
            q[bins] = max(inside[bins].sum(), NEXT_TO_NOTHING) / max(1, (p[bins] > 0).sum())
        p, q = p / p.sum(), q / inside.sum()
        divergence = (p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum()
        if divergence < best[0] - 1e-12:
            best = (divergence, max(low, (a - middle) * width), min(high, (b - middle) * width))
    return best[1:]


@pytest.mark.parametrize("name", ["normal", "heavy tails", "after a Relu", "all positive", "all negative", "shifted"])
def test_the_entropy_range_is_the_one_that_the_textbook_algorithm_picks(name):
    found = observed(TENSORS[name])
    assert entropy(found) == pytest.approx(tensorrt_range(found), rel=1e-12)


def test_the_entropy_range_cuts_outliers_off_and_a_uniform_distribution_not():
    low, high = entropy(observed(np.concatenate([np.tile(NORMAL, 5), [60.0, -60.0]])))
    assert 3 < high < 20
    assert -20 < low < -3
    flat = np.linspace(0, 1, 100_000, dtype=np.float32)
    assert entropy(observed(flat))[1] > 0.95
