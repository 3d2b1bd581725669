"""Streamed statistics against numpy on the whole data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxcomp.calibration.accumulators import SIDE_BINS, Extremes, Histogram, Moments

FLOATS = arrays(np.float32, st.integers(0, 60), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def histogram(*parts: np.ndarray) -> Histogram:
    result = Histogram()
    for part in parts:
        result.add(part)
    return result


def same(a: Histogram, b: Histogram) -> bool:
    return a.exponent == b.exponent and a.zeros == b.zeros and np.array_equal(a.counts, b.counts)


def merged(*parts: Histogram) -> Histogram:
    result = Histogram()
    for part in parts:
        result.merge(part)
    return result


@settings(max_examples=60, deadline=None)
@given(FLOATS, st.integers(0, 60))
def test_the_histogram_depends_on_the_values_alone_whatever_their_order_batching_or_merging(values, cut):
    whole = histogram(values)
    halves = histogram(values[:cut]), histogram(values[cut:])
    assert same(whole, histogram(values[:cut], values[cut:]))
    assert same(whole, histogram(values[::-1]))
    assert same(whole, histogram(*values))
    assert same(whole, merged(*halves))
    assert same(whole, merged(*halves[::-1]))


@settings(max_examples=60, deadline=None)
@given(FLOATS)
def test_each_bin_counts_the_values_between_its_edges(values):
    found = histogram(values)
    assert found.total == values.size
    assert found.zeros == np.count_nonzero(values == 0)
    # Exact edges: counted in float64, by comparison, on the nonzero values.
    nonzero = values[values != 0].astype(np.float64)
    edges = (np.arange(2 * SIDE_BINS + 1) - SIDE_BINS) * found.width
    expected = np.diff(np.searchsorted(np.sort(nonzero), edges, side="left"))
    np.testing.assert_array_equal(found.counts, expected)


def test_growing_from_the_smallest_denormal_to_the_largest_float_keeps_every_count_on_its_side_of_zero():
    tiny, huge = np.float32(1e-45), np.finfo(np.float32).max
    grown = histogram(np.array([tiny, -tiny, -tiny]), np.array([huge]))
    assert grown.total == 4
    assert (grown.counts[:SIDE_BINS].sum(), grown.counts[SIDE_BINS:].sum()) == (2, 2)
    assert same(grown, histogram(np.array([huge, tiny, -tiny, -tiny])))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e4])
def test_the_float_type_does_not_change_the_bin_of_a_value(dtype, scale):
    values = (np.random.default_rng(0).standard_normal(500) * scale).clip(-6e4, 6e4).astype(np.float16)
    assert same(histogram(values.astype(dtype)), histogram(values.astype(np.float64)))


def test_float64_values_near_both_ends_of_their_range_are_counted():
    for values in (np.array([1e308, -1e308]), np.array([5e-324, -5e-324])):
        found = histogram(values)
        assert (found.counts[:SIDE_BINS].sum(), found.counts[SIDE_BINS:].sum()) == (1, 1)


@pytest.mark.parametrize("values", [np.zeros(0), np.zeros((3, 0)), np.float32([]), np.array([np.nan, np.inf, -np.inf])])
def test_nothing_to_count_leaves_the_histogram_empty(values):
    assert same(histogram(values), Histogram())
    assert same(merged(histogram(values), Histogram()), Histogram())


def test_zeros_of_both_signs_are_counted_apart_and_set_no_width():
    found = histogram(np.array([0.0, -0.0, 0.0]))
    assert (found.zeros, found.exponent, found.counts.sum()) == (3, None, 0)


def test_values_that_are_not_finite_are_left_out_of_the_bins_and_of_the_width():
    assert same(histogram(np.array([1.0, np.nan, np.inf, -np.inf, 0.5])), histogram(np.array([1.0, 0.5])))


def test_memory_does_not_grow_with_the_values():
    few, many = histogram(np.ones(1)), histogram(*(np.random.default_rng(i).standard_normal(1000) for i in range(50)))
    assert few.counts.nbytes == many.counts.nbytes == 2 * SIDE_BINS * 8


def test_at_least_half_of_the_bins_of_the_larger_side_are_in_use():
    for largest in (1.0, 0.999, 1.001, 6.0, 1e-3, 255.0):
        found = histogram(np.array([largest], np.float32))
        assert SIDE_BINS // 2 <= np.flatnonzero(found.counts)[0] - SIDE_BINS < SIDE_BINS


def test_extremes_are_exact_and_merge():
    rng = np.random.default_rng(3)
    values = rng.standard_normal(300).astype(np.float32)
    whole, left, right = Extremes(), Extremes(), Extremes()
    whole.add(values)
    left.add(values[:10])
    right.add(values[10:])
    left.merge(right)
    assert (whole.minimum, whole.maximum) == (values.min(), values.max()) == (left.minimum, left.maximum)
    assert whole.finite


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_extremes_remember_that_a_value_was_not_finite_through_merges(bad):
    found, other = Extremes(), Extremes()
    found.add(np.array([1.0, bad, 2.0]))
    assert not found.finite
    other.add(np.array([1.0]))
    other.merge(found)
    assert not other.finite


def test_extremes_of_nothing_are_an_empty_interval():
    found = Extremes()
    found.add(np.zeros((0, 4)))
    assert found.minimum > found.maximum
    assert found.finite


def test_moments_of_each_channel_equal_numpys_in_any_grouping():
    rng = np.random.default_rng(4)
    values = (rng.standard_normal((12, 5, 3, 2)) * [[[1.0]], [[10.0]], [[0.1]], [[1.0]], [[1e3]]] + 1e4).astype(
        np.float32
    )
    whole, parts, merged_halves, half = Moments(), Moments(), Moments(), Moments()
    whole.add(values)
    for row in values:
        parts.add(row[None])
    merged_halves.add(values[:4])
    half.add(values[4:])
    merged_halves.merge(half)
    merged_halves.merge(Moments())
    exact = values.astype(np.float64)
    for found in (whole, parts, merged_halves):
        assert found.count == 12 * 6
        np.testing.assert_allclose(found.mean, exact.mean(axis=(0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(found.variance(), exact.var(axis=(0, 2, 3)), rtol=1e-9)


def test_moments_take_a_negative_axis_and_empty_batches():
    found = Moments(axis=-1)
    found.add(np.zeros((0, 3), np.float32))
    found.add(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], np.float16))
    np.testing.assert_array_equal(found.mean, [2.0, 2.0, 2.0])
    np.testing.assert_array_equal(found.variance(), [1.0, 0.0, 1.0])
