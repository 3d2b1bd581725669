"""Ranges: which part of a tensor's values 8 bits should represent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from onnxcomp.calibration.accumulators import Histogram
from onnxcomp.calibration.stream import Observed
from onnxcomp.passes.quantize.through import Function

Method = Literal["mse", "minmax", "percentile", "entropy"]
Range = tuple[float, float]

ONE_SIDED_CANDIDATES = 128
TWO_SIDED_CANDIDATES = 24
LEVELS = 255
SHRUNK = 64
"""Candidates of `entropy`."""
NEXT_TO_NOTHING = 1e-4
"""Values that a level without any counts as: what lies outside then makes a range unlikely, not impossible."""


def minmax(observed: Observed, through: Function | None = None) -> Range:
    """Everything that was seen."""
    return observed.extremes.minimum, observed.extremes.maximum


def percentile(observed: Observed, through: Function | None = None, share: float = 0.9999) -> Range:
    """The central `share` of the values: (1 − share)/2 is cut at each end, or (1 − share) at the one that is not zero.

    A side of which nothing but zeros would be left is not cut: that tensor is sparse, and its few values are all that
    it says.
    """
    low, high = minmax(observed)
    counts, centres, half = _with_zeros(observed.histogram)
    cumulative = np.cumsum(counts)
    if not cumulative.size or cumulative[-1] == 0:
        return low, high
    tail = (1.0 - share) * cumulative[-1] / (1 if low >= 0 or high <= 0 else 2)
    lower = centres[np.searchsorted(cumulative, tail, side="right").clip(max=len(centres) - 1)] - half
    upper = centres[np.searchsorted(cumulative, cumulative[-1] - tail, side="left").clip(max=len(centres) - 1)] + half
    return (max(low, lower) if lower < -half else low), (min(high, upper) if upper > half else high)


def mse(observed: Observed, through: Function | None = None) -> Range:
    """The range with the smallest expected squared error, Σ_b h_b · (f(c_b) − f(DQ(Q(c_b))))² over the histogram.

    Candidates shrink the exact range evenly from each end: one-sided tensors (after a Relu) by 128 steps, two-sided
    ones by 24 × 24. The error inside the range is taken as f′²·s²/12 for each value (uniform rounding; none for exact
    zeros), outside as what the end is away.

    Args:
        through: The function f through which alone the tensor is seen; the identity by default.
    """
    low, high = minmax(observed)
    counts, centres, half = _with_zeros(observed.histogram)
    occupied = counts > 0
    counts, centres = counts[occupied].astype(np.float64), centres[occupied]
    if not counts.size or not high - low > 0:
        return low, high
    two_sided = low < 0 < high
    steps = TWO_SIDED_CANDIDATES if two_sided else ONE_SIDED_CANDIDATES
    edges = np.linspace(1.0, 1.0 / steps, steps)
    lows, highs = (low * edges if low < 0 else np.zeros(1)), (high * edges if high > 0 else np.zeros(1))
    rounded = np.where(centres != 0.0, counts, 0.0)
    if through is None:
        above, many = _beyond(counts, centres, highs)
        below, few = _beyond(counts[::-1], -centres[::-1], -lows)
    else:
        slopes = (through(centres + half) - through(centres - half)) / (2 * half)
        rounded *= slopes**2
        above, many = _changed(counts, rounded, centres, highs, through)
        below, few = _changed(counts[::-1], rounded[::-1], -centres[::-1], -lows, lambda x: through(-x))
    step = (highs[None, :] - lows[:, None]) / LEVELS
    inside = rounded.sum() - many[None, :] - few[:, None]
    error = above[None, :] + below[:, None] + step**2 / 12.0 * inside
    row, column = np.unravel_index(int(np.argmin(error)), error.shape)
    return float(lows[row]), float(highs[column])


def entropy(observed: Observed, through: Function | None = None) -> Range:
    """The range that keeps most of the distribution: the smallest KL(P‖Q) over the histogram (Migacz 2017, TensorRT).

    P: the values inside the range, with those outside added to the bins at its ends. Q: the same bins without those
    outside, summed over 256 levels and shared out evenly over the bins of each level that P has values in. Exact zeros
    are left out: every range represents them.

    Candidates shrink the exact range evenly at both ends at once, down to one bin a level. They are all computed from
    cumulated sums: with S_l and n_l the mass and the number of those bins of level l,

        KL = Σ_b p_b·ln p_b − Σ_l p_l·ln(S_l / (n_l · ΣS))
    """
    low, high = minmax(observed)
    counts, width = observed.histogram.counts.astype(np.float64), observed.histogram.width
    middle, levels = len(counts) // 2, LEVELS + 1
    left, right = (min(middle, int(np.ceil(max(end, 0.0) / width))) for end in (-low, high))
    if left + right <= levels or not counts.any():
        return low, high
    shares = np.linspace(1.0, levels / (left + right), SHRUNK)
    first, last = (middle + np.rint(end * shares).astype(int) for end in (-left, right))
    edges = first[:, None] + (last - first)[:, None] * np.arange(levels + 1) // levels

    def summed(values: np.ndarray) -> np.ndarray:
        cumulated = np.concatenate([[0.0], np.cumsum(values)])
        return np.asarray(cumulated[edges[:, 1:]] - cumulated[edges[:, :-1]])

    inside, bins, logs = summed(counts), summed(counts > 0), summed(_x_log_x(counts))
    mass, terms = inside.copy(), logs.sum(axis=1)
    total = np.cumsum(counts)
    outside = ((0, total[first] - counts[first], first), (-1, total[-1] - total[last - 1], last - 1))
    for level, beyond, end in outside:
        mass[:, level] += beyond
        bins[:, level] += (counts[end] == 0) & (beyond > 0)
        terms += _x_log_x(counts[end] + beyond) - _x_log_x(counts[end])
    q = np.maximum(inside, NEXT_TO_NOTHING) / np.maximum(bins, 1) / np.maximum(inside.sum(axis=1, keepdims=True), 1)
    divergence = terms - (mass * np.log(q)).sum(axis=1)
    best = int(np.argmin(np.where(inside.any(axis=1), divergence, np.inf)))
    return max(low, float((first[best] - middle) * width)), min(high, float((last[best] - middle) * width))


def _x_log_x(values: np.ndarray) -> np.ndarray:
    return np.asarray(values * np.log(np.where(values > 0, values, 1.0)))


def _changed(
    counts: np.ndarray, rounded: np.ndarray, centres: np.ndarray, edges: np.ndarray, through: Function
) -> tuple[np.ndarray, np.ndarray]:
    """For each edge Σ h·(f(c) − f(edge))² and the weight of rounding over the bins beyond it."""
    beyond = centres[None, :] > edges[:, None]
    lost = np.where(beyond, (through(centres)[None, :] - through(edges)[:, None]) ** 2, 0.0)
    return lost @ counts, beyond @ rounded


def _beyond(counts: np.ndarray, centres: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each edge Σ h·(c − edge)² and Σ h over the bins beyond it, from cumulated moments: O(bins + edges)."""
    moments = [np.concatenate([[0.0], np.cumsum((counts * centres**p)[::-1])])[::-1] for p in (0, 1, 2)]
    start = np.searchsorted(centres, edges, side="right")
    m0, m1, m2 = (m[start] for m in moments)
    return np.maximum(m2 - 2 * edges * m1 + edges**2 * m0, 0.0), m0


def _with_zeros(histogram: Histogram) -> tuple[np.ndarray, np.ndarray, float]:
    """Counts and centres in ascending order with the exact zeros as a bin of their own, and half a bin's width."""
    counts, centres = histogram.counts, histogram.centres()
    middle = len(counts) // 2
    return (
        np.concatenate([counts[:middle], [histogram.zeros], counts[middle:]]),
        np.concatenate([centres[:middle], [0.0], centres[middle:]]),
        histogram.width / 2,
    )


METHODS: dict[Method, Callable[[Observed, Function | None], Range]] = {
    "mse": mse,
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
}

FIXED_RANGES: dict[str, Range] = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "HardSigmoid": (0.0, 1.0)}
"""Outputs whose range is known without looking."""
