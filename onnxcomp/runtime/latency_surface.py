"""The latency of one node as a function of its channel counts: measured at a few knots, interpolated between them.

A plan asks for thousands of widths. On counts that fill whole blocks of channels the latency of a node is close to
linear in each count, so that a grid of a few aligned knots is enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcomp.runtime.node_latency import NodeTable
from onnxcomp.runtime.node_spec import NodeSpec

Measured = Callable[[tuple[int, ...]], float]
"""Channels on each axis -> milliseconds."""

_SHARES = (0.25, 0.5, 0.75)


def knots(total: int, unit: int) -> tuple[int, ...]:
    """Channel counts to measure at, ascending: one unit, a quarter, a half, three quarters and all.

    Args:
        total: Channels of the axis.
        unit: Channels that fill a block: the counts between are multiples of it. Where there are fewer than two blocks,
            half the channels are measured too, if that is a multiple of 4 (as the counts that a small cell may keep).

    >>> knots(256, 16), knots(24, 16)
    ((16, 64, 128, 192, 256), (12, 24))
    """
    if unit > 1 and total < 2 * unit:
        return (total // 2, total) if total % 8 == 0 else (total,)
    inner = {max(unit, round(total * share / unit) * unit) for share in _SHARES} | {unit}
    return (*sorted(count for count in inner if count < total), total)


class Surface:
    """Multilinear interpolation between knots; each knot is measured when a question first needs it.

    Args:
        grid: For each axis the knots, ascending. Beyond the first and last knot the latency is that of the knot.
        measured: The latency at a knot.
    """

    def __init__(self, grid: Sequence[Sequence[int]], measured: Measured) -> None:
        self._grid = [np.asarray(axis, np.float64) for axis in grid]
        self._measured = measured
        self._known = np.full([len(axis) for axis in self._grid], np.nan)

    def __call__(self, kept: np.ndarray) -> np.ndarray:
        """Milliseconds.

        Args:
            kept: int [points, axes], channels on each axis.

        Returns:
            float64 [points].
        """
        kept = np.asarray(kept, np.float64)
        low: list[np.ndarray] = []
        share: list[np.ndarray] = []
        for axis, knot in enumerate(self._grid):
            at = np.clip(kept[:, axis], knot[0], knot[-1])
            index = np.clip(np.searchsorted(knot, at, side="right") - 1, 0, max(len(knot) - 2, 0))
            width = knot[np.minimum(index + 1, len(knot) - 1)] - knot[index]
            low.append(index)
            share.append((at - knot[index]) / np.where(width > 0, width, 1.0))
        result = np.zeros(len(kept))
        for corner in itertools.product((0, 1), repeat=len(self._grid)):
            weight = np.ones(len(kept))
            for up, s in zip(corner, share, strict=True):
                weight = weight * (s if up else 1 - s)
            used = weight > 0
            where = tuple((index + up)[used] for index, up in zip(low, corner, strict=True))
            result[used] += weight[used] * self._at(where)
        return result

    def _at(self, where: tuple[np.ndarray, ...]) -> np.ndarray:
        values = self._known[where]
        if np.isnan(values).any():
            for index in sorted(set(zip(*(axis[np.isnan(values)].tolist() for axis in where), strict=True))):
                counts = tuple(int(knot[i]) for knot, i in zip(self._grid, index, strict=True))
                self._known[index] = self._measured(counts)
            values = self._known[where]
        return np.asarray(values)


@dataclass(frozen=True)
class Width:
    """One channel axis of a node, wherever it shows.

    Args:
        total: Its channels.
        places: (input, axis) that have it, or a multiple or a fraction of it: they shrink in proportion.
        attributes: Numbers that count it, as `group` of a depthwise convolution or `hidden_size`.
    """

    total: int
    places: tuple[tuple[int, int], ...]
    attributes: tuple[str, ...] = ()


def surface_of(table: NodeTable, spec: NodeSpec, widths: Sequence[Width], unit: int) -> Surface:
    """The latency of a node as a function of its widths, measured through `table`.

    Args:
        spec: The node while nothing is pruned.
        widths: Its channel axes, in the order in which the surface takes them.
        unit: Channels between knots; for a convolution of fixed groups a multiple of their number.
    """

    def measured(counts: tuple[int, ...]) -> float:
        dims: dict[tuple[int, int], int] = {}
        numbers: dict[str, int] = {}
        declared = dict(spec.attributes)
        for width, count in zip(widths, counts, strict=True):
            for place in width.places:
                port = spec.inputs[place[0]]
                if port is not None:
                    dims[place] = port.shape[place[1]] * count // width.total
            for name in width.attributes:
                number = declared[name]
                if isinstance(number, int):
                    numbers[name] = number * count // width.total
        return table.latency(spec.resized(dims, numbers))

    return Surface([knots(width.total, unit) for width in widths], measured)
