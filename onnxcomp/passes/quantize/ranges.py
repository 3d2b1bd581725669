"""Ranges: which part of a tensor's values 8 bits should represent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from onnxcomp.calibration.accumulators import Histogram
from onnxcomp.calibration.stream import Observed

Method = Literal["mse", "minmax", "percentile"]
Range = tuple[float, float]

ONE_SIDED_CANDIDATES = 128
TWO_SIDED_CANDIDATES = 24
LEVELS = 255


def minmax(observed: Observed) -> Range:
    """Everything that was seen."""
    return observed.extremes.minimum, observed.extremes.maximum


def percentile(observed: Observed, share: float = 0.9999) -> Range:
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


def mse(observed: Observed) -> Range:
    """The range with the smallest expected squared error, Σ_b h_b · (c_b − DQ(Q(c_b)))² over the histogram.

    Candidates shrink the exact range evenly from each end: one-sided tensors (after a Relu) by 128 steps, two-sided
    ones by 24 × 24. The error inside the range is taken as s²/12 for each value (uniform rounding; none for exact
    zeros), outside as the distance to the end.
    """
    low, high = minmax(observed)
    counts, centres, _ = _with_zeros(observed.histogram)
    occupied = counts > 0
    counts, centres = counts[occupied].astype(np.float64), centres[occupied]
    if not counts.size or not high - low > 0:
        return low, high
    if low >= 0 or high <= 0:
        edges = np.linspace(1.0, 1.0 / ONE_SIDED_CANDIDATES, ONE_SIDED_CANDIDATES)
        lows, highs = (
            low * edges if high <= 0 else np.zeros_like(edges),
            high * edges if low >= 0 else np.zeros_like(edges),
        )
    else:
        edges = np.linspace(1.0, 1.0 / TWO_SIDED_CANDIDATES, TWO_SIDED_CANDIDATES)
        lows, highs = (g.ravel() for g in np.meshgrid(low * edges, high * edges))
    step = (highs - lows) / LEVELS
    above, many = _beyond(counts, centres, highs)
    below, few = _beyond(counts[::-1], -centres[::-1], -lows)
    inside = counts[centres != 0.0].sum() - many - few
    error = above + below + step**2 / 12.0 * inside
    best = int(np.argmin(error))
    return float(lows[best]), float(highs[best])


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


METHODS: dict[Method, Callable[[Observed], Range]] = {"mse": mse, "minmax": minmax, "percentile": percentile}

FIXED_RANGES: dict[str, Range] = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "HardSigmoid": (0.0, 1.0)}
"""Outputs whose range is known without looking."""
