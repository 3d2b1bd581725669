"""What ranges leave out: for the activations with the longest tails a coarse histogram, and what each way to choose a
range would clip. It only serves the report: nothing is decided by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from onnxcomp.calibration.accumulators import SIDE_BINS, Histogram
from onnxcomp.calibration.stream import Observed
from onnxcomp.passes.quantize.through import Function
from onnxcomp.report.structures import ActivationRange, Record

BINS = 64
MOST = 60
"""Activations that a plan holds histograms of."""

BY_HAND, WHOLE = "by hand", "minmax"
Ends = tuple[float, float]


class RangeChoice(Record):
    """The parameters that one way to choose a range gives.

    Args:
        beyond: Share of the sampled values that lie outside what they represent by more than half a step.
        clipped: Share of the values that this changes, as seen through f, by more than rounding changes any value:
            |f(x) − f(end)| > s/2 · max |f′|.
    """

    scale: float
    zero_point: int
    beyond: float
    clipped: float


class ActivationHistogram(Record):
    """What was seen of one activation.

    Args:
        low, high: Smallest and largest value, exact.
        start, width, counts: Counts of the sampled values in bins of one width; 0 lies between two bins, exact zeros
            are in the bin above it.
        nodes: The INT8 nodes that read or write it; it is of no interest once they are all float.
        through: The operator through which alone it is seen, if there is one: what that flattens may be clipped.
        choices: Way to choose → what that gives.
    """

    low: float
    high: float
    start: float
    width: float
    counts: tuple[int, ...]
    nodes: tuple[str, ...]
    through: str = ""
    choices: dict[str, RangeChoice]

    def left_out(self, ends: Ends) -> float:
        """Share of the observed width that a range doesn't represent."""
        seen = self.high - self.low
        return max(0.0, max(ends[0] - self.low, 0.0) + max(self.high - ends[1], 0.0)) / seen if seen > 0 else 0.0

    def described(self, name: str, scale: float, zero_point: int, ends: Ends) -> ActivationRange:
        """The range that these parameters represent, on the histogram."""
        known = [m for m, c in self.choices.items() if (c.scale, c.zero_point) == (scale, zero_point)]
        # What leaves nothing out is called so, whichever way led there.
        method = WHOLE if WHOLE in known else next(iter(known), BY_HAND)
        choice = self.choices.get(method)
        if choice is None:
            centres = self.start + (np.arange(len(self.counts)) + 0.5) * self.width
            choice = _choice(np.array(self.counts), centres, sum(self.counts), (scale, zero_point, ends), None)
        return ActivationRange(
            name=name,
            low=_short(self.low),
            high=_short(self.high),
            chosen=(_short(ends[0]), _short(ends[1])),
            method=method,
            beyond=_short(choice.beyond),
            clipped=_short(choice.clipped),
            through=self.through,
            start=self.start,
            width=self.width,
            counts=self.counts,
        )


def histogram_of(
    seen: Observed,
    ways: Mapping[str, tuple[float, int, Ends]],
    nodes: Iterable[str],
    through: str = "",
    function: Function | None = None,
) -> ActivationHistogram:
    """A coarse histogram, and what each way to choose a range clips, from the fine one.

    Args:
        ways: Way to choose → scale, zero point, and the ends of what they represent.
        through: The operator through which alone it is seen, and `function`: what that computes.
    """
    start, width, counts = coarse(seen.histogram)
    fine, centres, total = seen.histogram.counts, seen.histogram.centres(), seen.histogram.total
    choices = {way: _choice(fine, centres, total, made, function) for way, made in ways.items()}
    return ActivationHistogram(
        low=seen.extremes.minimum,
        high=seen.extremes.maximum,
        start=start,
        width=width,
        counts=tuple(int(n) for n in counts),
        nodes=tuple(sorted(nodes)),
        through=through,
        choices=choices,
    )


def coarse(histogram: Histogram, most: int = BINS) -> tuple[float, float, np.ndarray]:
    """(start, width, counts) in at most `most` bins, each the sum of as many fine ones: no count is split.

    >>> h = Histogram(); h.add(np.array([-1.0, 0.0, 3.0])); start, width, counts = coarse(h, 4)
    >>> start, width, counts.tolist()
    (-1.001953125, 1.001953125, [1, 1, 0, 1])
    """
    used = np.flatnonzero(histogram.counts)
    below = max(0, SIDE_BINS - int(used[0])) if used.size else 0
    above = max(0, int(used[-1]) + 1 - SIDE_BINS) if used.size else 1
    factor = -(-(below + above) // most)
    while -(-below // factor) + -(-above // factor) > most:
        factor += 1
    left, right = -(-below // factor), -(-above // factor)
    room = np.zeros((left + right) * factor, np.int64)
    taken = histogram.counts[SIDE_BINS - below : SIDE_BINS + above]
    room[left * factor - below : left * factor - below + taken.size] = taken
    counts = room.reshape(-1, factor).sum(axis=1)
    counts[min(left, counts.size - 1)] += histogram.zeros
    return -left * factor * histogram.width, factor * histogram.width, counts


def longest_tails(
    found: Mapping[str, ActivationHistogram], ends: Mapping[str, Iterable[Ends]], most: int = MOST
) -> dict[str, ActivationHistogram]:
    """The activations of which some way to choose a range leaves out most, in the order of `found`.

    Args:
        ends: By name, of every way.
    """
    worth = {name: max(map(histogram.left_out, ends[name]), default=0.0) for name, histogram in found.items()}
    kept = set(sorted(found, key=lambda name: -worth[name])[:most])
    return {name: histogram for name, histogram in found.items() if name in kept}


def _choice(
    counts: np.ndarray,
    centres: np.ndarray,
    total: int,
    made: tuple[float, int, Ends],
    function: Function | None,
) -> RangeChoice:
    scale, zero_point, ends = made
    nearest = np.clip(centres, *ends)
    beyond = np.abs(centres - nearest) > scale / 2
    changed = beyond
    if function is not None:
        steepest = np.abs(np.diff(function(centres))).max() / (centres[1] - centres[0])
        changed = beyond & (np.abs(function(centres) - function(nearest)) > scale / 2 * steepest)
    return RangeChoice(
        scale=scale,
        zero_point=zero_point,
        beyond=float(counts[beyond].sum()) / max(1, total),
        clipped=float(counts[changed].sum()) / max(1, total),
    )


def _short(value: float) -> float:
    return float(f"{value:.6g}")
