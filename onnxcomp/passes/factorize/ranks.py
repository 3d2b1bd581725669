"""Ranks worth trying: below break-even, and of a size that the kernels like."""

from __future__ import annotations

import math

import numpy as np

WORTH = 0.8
"""Ranks above this share of break-even save too little to pay for a second node."""

NARROW = 4
"""Below so many units of break-even the unit is halved: steps of 16 would leave hardly a choice."""


def break_even(out: int, columns: int) -> float:
    """The rank at which two factors have as many weights as the whole: r·(out + columns) = out·columns.

    >>> round(break_even(4096, 25088))
    3521
    """
    return out * columns / (out + columns)


def worthwhile(even: float, largest: int, unit: int) -> np.ndarray:
    """Ranks that are worth trying, ascending; int64.

    Args:
        even: The break-even rank.
        largest: Rank of the whole: no more is of use.
        unit: Multiples wanted.

    >>> worthwhile(57.6, 64, 16)
    array([ 8, 16, 24, 32, 40])
    """
    while unit > NARROW and even < NARROW * unit:
        unit //= 2
    top = min(math.floor(WORTH * even), largest)
    return np.arange(unit, top + 1, unit, dtype=np.int64)
