"""A matrix cut into blocks along K, each with a scale and a zero point: ŵ = (q − z)·s, 0 ≤ q < 2^bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Grid:
    """What integers can stand for.

    Args:
        scales: float32 [N, blocks]; a negative one lets the largest weight of either sign have the integer 0.
        zeros: uint8 [N, blocks].
        bits: Of an integer.
    """

    scales: Array
    zeros: Array
    bits: int

    def codes(self, blocks: Array) -> Array:
        """The nearest integers, uint8 [N, blocks, block]."""
        steps = blocks / self.scales[..., None] + self.zeros[..., None]
        return np.asarray(np.clip(np.rint(steps), 0, 2**self.bits - 1), np.uint8)

    def values(self, codes: Array) -> Array:
        """What integers [N, blocks, block] stand for, float32."""
        steps = codes.astype(np.float32) - self.zeros[..., None].astype(np.float32)
        return np.asarray(steps * self.scales[..., None])


@dataclass(frozen=True)
class Rounded:
    """A matrix as integers.

    Args:
        codes: uint8 [N, blocks, block]; beyond K they equal the zero point.
        columns: K.
    """

    codes: Array
    grid: Grid
    columns: int

    def dense(self) -> Array:
        """Ŵ, float32 [N, K]."""
        values = self.grid.values(self.codes)
        return values.reshape(len(values), -1)[:, : self.columns]


def cut(matrix: Array, block: int) -> Array:
    """[N, K] as [N, blocks, block]; the last block is filled up with zeros.

    >>> cut(np.ones((1, 3)), 2).tolist()
    [[[1.0, 1.0], [1.0, 0.0]]]
    """
    rows, columns = matrix.shape
    return np.pad(matrix, ((0, 0), (0, -columns % block))).reshape(rows, -1, block)
