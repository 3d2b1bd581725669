"""Symmetric int8 weights with a scale for each output channel: q = clip(round(w / s), −127, 127), ŵ = q·s."""

from __future__ import annotations

import numpy as np

WEIGHT_QMAX = 127
SMALLEST_SCALE = 2.0**-62
"""The product of two scales, which is the scale of a bias, stays a normal float32 (≥ 2^−126). Values that small are
zero to a network."""


def weight_scales(weight: np.ndarray, axis: int, *, pairs_saturate: bool = False) -> np.ndarray:
    """Symmetric scale of each channel: max|w| / 127; 1 for a channel of zeros. float32 [channels].

    Args:
        weight: Float weight of any rank.
        axis: Of its output channels.
        pairs_saturate: The machine adds two neighbouring u8·s8 products in a saturating int16 (`vpmaddubsw`). Then two
            neighbours q₁ + q₂ of one sign must not exceed 128: 255 · 128 = 32,640 ≤ 32,767. Only channels with large
            neighbours get a coarser scale, where seven bits for all would halve the resolution of each.
    """
    others = tuple(a for a in range(weight.ndim) if a != axis % weight.ndim)
    largest = np.maximum(weight.max(axis=others), -weight.min(axis=others)).astype(np.float64)
    bound = np.maximum(largest, largest_pairs(weight, axis)) if pairs_saturate else largest
    scales = np.maximum(bound / WEIGHT_QMAX, SMALLEST_SCALE)
    return np.where(largest > 0, scales, 1.0).astype(np.float32)


def largest_pairs(weight: np.ndarray, axis: int) -> np.ndarray:
    """Largest |w₁ + w₂| of two neighbours of one sign in each channel, float64 [channels].

    Neighbours along the sum that the kernel takes, which runs over input channels first or last, by its layout: both.

    >>> largest_pairs(np.array([[3.0, 2.0, -4.0, 1.0]]), axis=0)
    array([5.])
    """
    channels = np.moveaxis(weight, axis, 0).astype(np.float64)
    orders = (channels, np.moveaxis(channels, 1, -1))
    result = np.zeros(channels.shape[0])
    for order in orders:
        row = order.reshape(channels.shape[0], -1)
        for part in (np.maximum(row, 0), np.maximum(-row, 0)):
            pairs = part[:, 1:] + part[:, :-1]
            result = np.maximum(result, pairs.max(axis=1, initial=0.0))
    return result


def quantize_weight(weight: np.ndarray, scales: np.ndarray, axis: int) -> np.ndarray:
    """int8 weights of the same shape, in [−127, 127]."""
    shape = [-1 if a == axis % weight.ndim else 1 for a in range(weight.ndim)]
    return np.asarray(np.clip(np.rint(weight / scales.reshape(shape)), -WEIGHT_QMAX, WEIGHT_QMAX), np.int8)
