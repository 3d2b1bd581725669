"""Ranges: which part of a tensor's values 8 bits should represent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from onnxcomp.calibration.accumulators import Histogram
from onnxcomp.calibration.stream import Observed
from onnxcomp.passes.quantize.through import Function

Method = Literal["mse", "minmax", "percentile"]
Range = tuple[float, float]

ONE_SIDED_CANDIDATES = 128
TWO_SIDED_CANDIDATES = 24
LEVELS = 255


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
}

FIXED_RANGES: dict[str, Range] = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "HardSigmoid": (0.0, 1.0)}
"""Outputs whose range is known without looking."""
