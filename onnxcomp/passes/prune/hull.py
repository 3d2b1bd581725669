"""Cuts of cells that pay for themselves, in the order of what they cost in quality.

Each cell's curve (classes removed, loss) is replaced by its lower convex hull; the steps of all cells, sorted by their
slope, are the greedy order of removal, and each beginning of that order is an optimal choice for what it removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Steps:
    """From one allowed count to the next, cheapest first.

    Args:
        cells: Number of cells.
        cell: int [steps]: who takes the step.
        classes: int [steps]: how many classes it removes.
    """

    cells: int
    cell: np.ndarray
    classes: np.ndarray

    def prefix(self, most: float) -> np.ndarray:
        """int [cells]: classes removed by the longest beginning that removes at most `most` in all."""
        end = int(np.searchsorted(np.cumsum(self.classes), most + 1e-9, side="right"))
        return self._removed(np.arange(len(self.cell)) < end)

    def fill(self, most: float) -> np.ndarray:
        """As `prefix`, but a step that is too long only ends its own cell: shorter ones may follow."""
        taken = np.zeros(len(self.cell), bool)
        ended = np.zeros(self.cells, bool)
        left = most + 1e-9
        for i, (cell, classes) in enumerate(zip(self.cell.tolist(), self.classes.tolist(), strict=True)):
            if left < 1:
                break
            if classes > left:
                ended[cell] = True
            elif not ended[cell]:
                taken[i] = True
                left -= classes
        return self._removed(taken)

    def exhausted(self, taken: np.ndarray, most: float) -> bool:
        """Whether all steps are taken and more was asked for."""
        return int(taken.sum()) == int(self.classes.sum()) and float(taken.sum()) < most - 1e-9

    def _removed(self, taken: np.ndarray) -> np.ndarray:
        result: np.ndarray = np.bincount(self.cell[taken], self.classes[taken], minlength=self.cells).astype(np.int64)
        return result


def steps_of(removed: Sequence[np.ndarray], losses: Sequence[np.ndarray]) -> Steps:
    """All steps, sorted by slope; ties: the first cell, and within a cell in order.

    Args:
        removed: For each cell int [choices], ascending from 0.
        losses: For each cell float64 [choices]; choices from the first infinite one on are left out.
    """
    cells, classes, slopes = [], [], []
    for index, (gone, loss) in enumerate(zip(removed, losses, strict=True)):
        finite = len(loss) if np.isfinite(loss).all() else int(np.argmin(np.isfinite(loss)))
        amounts = np.diff(gone[:finite])
        cells.append(np.full(len(amounts), index))
        classes.append(amounts)
        slopes.append(hull_slopes(gone[:finite], loss[:finite]))
    if not cells:
        return Steps(0, np.zeros(0, np.int64), np.zeros(0, np.int64))
    # Slopes within a cell don't fall, so that a stable sort keeps its steps in order.
    order = np.argsort(np.concatenate(slopes), kind="stable")
    return Steps(len(cells), np.concatenate(cells)[order], np.concatenate(classes)[order])


def hull_slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slope of the lower convex hull of the points over each interval between neighbours.

    By pooling adjacent violators: neighbours whose slopes fall are merged into their mean, weighted by length.

    Args:
        x: [points], ascending.
        y: [points].

    >>> hull_slopes(np.array([0, 1, 2, 3]), np.array([0.0, 3.0, 4.0, 8.0]))
    array([2., 2., 4.])
    """
    lengths: list[float] = []
    rises: list[float] = []
    members: list[int] = []
    for length, rise in zip(np.diff(x).tolist(), np.diff(y).tolist(), strict=True):
        count = 1
        while lengths and rises[-1] * length >= rise * lengths[-1]:
            length, rise, count = length + lengths.pop(), rise + rises.pop(), count + members.pop()
        lengths.append(length)
        rises.append(rise)
        members.append(count)
    return np.repeat(np.divide(rises, lengths), members) if members else np.zeros(0)
