"""Scales of blocks: of the block's range (round to nearest), or shrunk to where the error is least (MSE).

With a zero point the range is [min, max] with zero in it. Without one the weight of largest magnitude, m, gets the
integer 0: s = −m / 2^(bits−1), so that all 2^bits values are used.
"""

from __future__ import annotations

import numpy as np

from onnxcomp.passes.integer_weights import SMALLEST_SCALE
from onnxcomp.passes.weight_only.blocks import Array, Grid

SHRINKS = np.linspace(0.6, 1.0, 33)
"""Shares of the range that are tried. With a smaller one few weights are cut off, and all others are finer."""

SYMMETRIC_SHRINKS = np.append(SHRINKS, np.linspace(1.0125, 1.15, 12))
"""Without zero points the other end reaches only 2^(bits−1) − 1 steps: a larger scale takes it in."""


def range_grid(blocks: Array, bits: int, *, symmetric: bool, shrink: Array | float = 1.0) -> Grid:
    """Round to nearest: the grid over the range of each block.

    Args:
        blocks: float32 [N, blocks, block].
        shrink: Share of the range that is covered, for all or for each block [N, blocks].
    """
    low, high = np.minimum(blocks.min(axis=-1), 0.0), np.maximum(blocks.max(axis=-1), 0.0)
    if symmetric:
        half = 2 ** (bits - 1)
        extreme = np.where(high > -low, high, low)
        scales = _scales(-extreme * shrink / half)
        return Grid(scales, np.full(scales.shape, half, np.uint8), bits)
    most = 2**bits - 1
    scales = _scales((high - low) * shrink / most)
    zeros = np.clip(np.rint(-low * shrink / scales), 0, most).astype(np.uint8)
    return Grid(scales, zeros, bits)


def searched_grid(blocks: Array, bits: int, *, symmetric: bool) -> Grid:
    """The grid with the least Σ (w − ŵ)² in each block, among a few shares of its range.

    Args:
        blocks: float32 [N, blocks, block].
    """
    shrinks = SYMMETRIC_SHRINKS if symmetric else SHRINKS
    best = np.full(blocks.shape[:2], np.inf)
    chosen = np.ones(blocks.shape[:2])
    for shrink in shrinks:
        grid = range_grid(blocks, bits, symmetric=symmetric, shrink=float(shrink))
        error = np.square(grid.values(grid.codes(blocks)) - blocks).sum(axis=-1)
        better = error < best
        best[better], chosen[better] = error[better], shrink
    return range_grid(blocks, bits, symmetric=symmetric, shrink=chosen)


def _scales(values: Array) -> Array:
    """float32; 1 for blocks of zeros."""
    return np.where(np.abs(values) > SMALLEST_SCALE, values, 1.0).astype(np.float32)
