"""What a model costs as a function of how many classes each cell keeps.

The cost of a node depends on the channels of a few axes, which depend on the counts of a few cells. MACs and parameters
are products: `base · Π kept / total` over the axes; a latency is whatever a table says for the kept channels. Costs are
therefore not additive over cells, and `CostModel.bill` tells for one cell at a time what each of its choices would save
while the others stay.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Price = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(nodes: int [n], kept channels: float64 [n, axes, choices]) -> cost, float64 [n, choices]. Axes that a node does not
have are 1."""

LatencyOf = Callable[[str, np.ndarray], np.ndarray]
"""(node, kept channels: int64 [choices, axes]) -> milliseconds, float64 [choices]."""


@dataclass(frozen=True)
class Axis:
    """One axis of a weight or of an activation.

    Args:
        total: Its channels while nothing is pruned.
        parts: (index of a cell, channels that each of its classes owns here); several after a Concat. What they don't
            cover is fixed.
    """

    total: int
    parts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class NodeCost:
    """One summand of the cost: a node's MACs or milliseconds, or the elements of one initializer.

    Args:
        node: Its name.
        base: The cost while nothing is pruned.
        axes: The axes that it depends on. The same cell may appear on two of them.
    """

    node: str
    base: float
    axes: tuple[Axis, ...] = ()


def kept(axis: Axis, counts: Sequence[int], sizes: Sequence[int]) -> int:
    """Channels that an axis keeps: `total − Σ channels per class · (size − count)`.

    Args:
        counts, sizes: For each cell: classes that are kept, and classes there are.

    >>> kept(Axis(total=10, parts=((0, 1), (1, 2))), counts=[3, 1], sizes=[4, 2])
    7
    """
    return axis.total - sum(each * (sizes[cell] - counts[cell]) for cell, each in axis.parts)


class CostModel:
    """The cost of a model whose cells keep given counts.

    Args:
        nodes: The summands.
        sizes: Classes of each cell.
        price: What nodes cost; `base · Π kept / total` by default.
    """

    def __init__(self, nodes: Sequence[NodeCost], sizes: Sequence[int], price: Price | None = None) -> None:
        self.nodes = tuple(nodes if price else _merged(nodes))
        self.sizes = np.asarray(sizes, np.int64)
        depth = max((len(node.axes) for node in self.nodes), default=0)
        self.full = np.ones((len(self.nodes), max(depth, 1)))
        rows: list[tuple[int, int, int, int]] = []
        for i, node in enumerate(self.nodes):
            for j, axis in enumerate(node.axes):
                self.full[i, j] = axis.total
                rows += [(cell, i, j, each) for cell, each in axis.parts]
        parts = np.array(sorted(rows), np.int64).reshape(-1, 4)
        self.price = price or _products(self.nodes, self.full)
        self._cell, self._node, self._axis, self._each = parts.T
        bounds = np.searchsorted(self._cell, np.arange(len(self.sizes) + 1))
        # For each cell the nodes that it takes part in, and its channels per class on each of their axes.
        self.touched: list[np.ndarray] = []
        self.each: list[np.ndarray] = []
        for begin, end in itertools.pairwise(bounds.tolist()):
            touched, each = self._of_cell(slice(begin, end))
            self.touched.append(touched)
            self.each.append(each)

    def _of_cell(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        nodes, position = np.unique(self._node[rows], return_inverse=True)
        each = np.zeros((len(nodes), self.full.shape[1]))
        np.add.at(each, (position, self._axis[rows]), self._each[rows])
        return nodes, each

    def kept(self, counts: np.ndarray) -> np.ndarray:
        """float64 [nodes, axes]: channels that each axis keeps."""
        result = self.full.copy()
        removed = (self.sizes - counts)[self._cell]
        np.subtract.at(result, (self._node, self._axis), self._each * removed)
        return result

    def total(self, counts: np.ndarray) -> float:
        """The cost when cell i keeps `counts[i]` classes."""
        every = np.arange(len(self.nodes))
        return math.fsum(self.price(every, self.kept(counts)[:, :, None])[:, 0])

    def bill(self, choices: Sequence[Sequence[int]]) -> CellBill:
        """For `evaluate.allocation.spend`: cell i may keep `choices[i]`, of which it begins with the first."""
        return CellBill(self, choices)


class CellBill:
    """The cost while cells are cut one after the other."""

    def __init__(self, model: CostModel, choices: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.choices = [np.asarray(c, np.float64) for c in choices]
        self.counts = np.array([c[0] for c in choices], np.int64)
        self._at = [0] * len(choices)
        self._kept = model.kept(self.counts)
        self._neighbours: dict[int, np.ndarray] = {}

    def savings(self, unit: int) -> np.ndarray:
        """[choices]: how much the total falls when the cell goes to each of its counts."""
        nodes, each = self.model.touched[unit], self.model.each[unit]
        step = self.choices[unit] - self.counts[unit]
        now = self._kept[nodes][:, :, None]
        costs = self.model.price(nodes, now + each[:, :, None] * step).sum(axis=0)
        result: np.ndarray = costs[self._at[unit]] - costs
        return result

    def move(self, unit: int, choice: int) -> np.ndarray:
        """Cuts the cell; gives the cells that share a node with it."""
        count = int(self.choices[unit][choice])
        self._kept[self.model.touched[unit]] += self.model.each[unit] * (count - self.counts[unit])
        self.counts[unit], self._at[unit] = count, choice
        if unit not in self._neighbours:
            shared = np.isin(self.model._node, self.model.touched[unit])
            self._neighbours[unit] = np.unique(self.model._cell[shared])
        return self._neighbours[unit]


def latencies(nodes: Sequence[NodeCost], latency_of: LatencyOf) -> Price:
    """The price of nodes whose milliseconds a table gives; a node without axes costs its base.

    Args:
        latency_of: Asked with the name of a node and the kept channels on each of its axes, one row a choice.
    """

    def price(indices: np.ndarray, kept_channels: np.ndarray) -> np.ndarray:
        result = np.empty((len(indices), kept_channels.shape[2]))
        for row, (index, channels) in enumerate(zip(indices, kept_channels, strict=True)):
            node = nodes[index]
            asked = np.rint(channels[: len(node.axes)]).astype(np.int64).T
            result[row] = latency_of(node.node, asked) if node.axes else node.base
        return result

    return price


def _products(nodes: Sequence[NodeCost], full: np.ndarray) -> Price:
    rate = np.array([node.base for node in nodes], np.float64) / full.prod(axis=1)

    def price(indices: np.ndarray, kept_channels: np.ndarray) -> np.ndarray:
        result: np.ndarray = kept_channels.prod(axis=1) * rate[indices][:, None]
        return result

    return price


def _merged(nodes: Sequence[NodeCost]) -> list[NodeCost]:
    """Products over the same axes added up: weight, bias and statistics of a layer are few terms."""
    bases: dict[tuple[Axis, ...], list[NodeCost]] = {}
    for node in nodes:
        bases.setdefault(tuple(a for a in node.axes if a.parts), []).append(node)
    return [NodeCost(group[0].node, math.fsum(n.base for n in group), axes) for axes, group in bases.items()]
