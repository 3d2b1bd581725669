"""Statistics of a stream of values in bounded memory. Order does not matter, and two halves merged equal the whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import frexp

import numpy as np

SIDE_BITS = 11
SIDE_BINS = 2**SIDE_BITS
"""Bins on each side of zero. The width is the smallest power of two that covers the range, so 1,024 to 2,048 bins of
the larger side are in use."""


@dataclass
class Extremes:
    """Exact minimum and maximum. Once a NaN or an infinity was seen, `finite` is False and the bounds mean nothing.

    >>> e = Extremes(); e.add(np.array([1.0, -3.0])); (e.minimum, e.maximum)
    (-3.0, 1.0)
    """

    minimum: float = np.inf
    maximum: float = -np.inf
    finite: bool = True

    def add(self, values: np.ndarray) -> None:
        if values.size:
            self.include(float(values.min()), float(values.max()))

    def include(self, minimum: float, maximum: float) -> None:
        if not (np.isfinite(minimum) and np.isfinite(maximum)):
            self.finite = False
            return
        self.minimum, self.maximum = min(self.minimum, minimum), max(self.maximum, maximum)

    def merge(self, other: Extremes) -> None:
        self.finite &= other.finite
        self.minimum, self.maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)


@dataclass
class Histogram:
    """A histogram anchored at zero whose bin width doubles as the range grows.

    Bin i of `counts` covers [(i − SIDE_BINS)·w, (i − SIDE_BINS + 1)·w) with w = 2^`exponent`. When a value falls
    outside, neighbouring bins are added two by two and w doubles: no count moves across a bin edge, so nothing is lost
    but resolution and no second pass is needed. Because every width is a power of two on one grid, the result depends
    only on the values, not on their order or batching. Exact zeros (half of all values after a Relu) are counted apart:
    in a bin they would count as its centre.
    """

    exponent: int | None = None
    counts: np.ndarray = field(default_factory=lambda: np.zeros(2 * SIDE_BINS, np.int64))
    zeros: int = 0

    @property
    def width(self) -> float:
        return 1.0 if self.exponent is None else 2.0**self.exponent

    @property
    def total(self) -> int:
        return int(self.counts.sum()) + self.zeros

    def centres(self) -> np.ndarray:
        """Bin centres, float64 [2·SIDE_BINS]."""
        return np.asarray((np.arange(2 * SIDE_BINS) - SIDE_BINS + 0.5) * self.width)

    def add(self, values: np.ndarray) -> None:
        """Adds finite values of any shape; others are left out (`Extremes` reports them)."""
        flat = np.ravel(values)
        nonzero = flat[flat != 0]
        self.zeros += flat.size - nonzero.size
        if nonzero.size:
            largest = float(np.abs(nonzero).max())
            if not np.isfinite(largest):
                nonzero = nonzero[np.isfinite(nonzero)]
                largest = float(np.abs(nonzero).max(initial=0.0))
            if nonzero.size:
                self._grow(_exponent_for(largest))
                # In float64 a product with a power of two is exact: no overflow (float16), no tiny negative that
                # becomes −0.
                scaled = np.multiply(nonzero, 1.0 / self.width, dtype=np.float64)
                self.counts += np.bincount(np.floor(scaled).astype(np.int64) + SIDE_BINS, minlength=2 * SIDE_BINS)

    def merge(self, other: Histogram) -> None:
        self.zeros += other.zeros
        if other.exponent is None:
            return
        self._grow(other.exponent)
        assert self.exponent is not None
        self.counts += _coarsened(other.counts, self.exponent - other.exponent)

    def _grow(self, exponent: int) -> None:
        if self.exponent is None:
            self.exponent = exponent
        elif exponent > self.exponent:
            self.counts = _coarsened(self.counts, exponent - self.exponent)
            self.exponent = exponent


def _exponent_for(largest: float) -> int:
    """The smallest e with `largest` < SIDE_BINS · 2^e, and not so small that 2^−e overflows float64."""
    return max(frexp(largest)[1] - SIDE_BITS, -1022)


def _coarsened(counts: np.ndarray, doublings: int) -> np.ndarray:
    """Bins added 2^`doublings` by 2^`doublings`, keeping the array's length and zero in its middle."""
    if doublings == 0:
        return counts
    factor = 2 ** min(doublings, SIDE_BITS)  # from there on everything is in the two bins around zero
    kept = counts.reshape(-1, factor).sum(axis=1)
    result = np.zeros_like(counts)
    start = SIDE_BINS - SIDE_BINS // factor
    result[start : start + kept.size] = kept
    return result


@dataclass
class Moments:
    """Count, mean and variance of each channel in float64 (Chan, Golub, LeVeque 1983: pairwise update).

    Args:
        axis: The channel axis of the values.
    """

    axis: int = 1
    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def add(self, values: np.ndarray) -> None:
        rows = np.moveaxis(values, self.axis, -1).reshape(-1, values.shape[self.axis]).astype(np.float64)
        if rows.shape[0] == 0:
            return
        mean = rows.mean(axis=0)
        self._combine(rows.shape[0], mean, ((rows - mean) ** 2).sum(axis=0))

    def merge(self, other: Moments) -> None:
        if other.count:
            self._combine(other.count, other.mean, other.squares)

    def variance(self) -> np.ndarray:
        """Population variance of each channel, float64 [channels]."""
        return self.squares / max(self.count, 1)

    def _combine(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        if not self.count:
            self.count, self.mean, self.squares = count, mean.copy(), squares.copy()
            return
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = self.squares + squares + delta**2 * (self.count * count / total)
        self.count = total
