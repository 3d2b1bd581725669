"""From budgets to counts: how many classes each cell keeps.

A budget says how much has to go (a share of the channels) or what may remain (MACs, parameters, milliseconds); a scope
says which cells compete for it:

* `uniform`: none; every cell loses the same share.
* `global`: all; what costs least quality goes first.
* `isomorphic`: cells of equal structure among themselves, every kind loses the same share (Fang et al., "Isomorphic
  Pruning for Vision Models", ECCV 2024): losses of unlike layers need not be comparable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxcomp.evaluate.allocation import Fit, Unit, spend
from onnxcomp.passes.prune.alignment import rounded
from onnxcomp.passes.prune.channel_costs import CostModel
from onnxcomp.passes.prune.hull import Steps, steps_of

Kind = Literal["ratio", "macs", "params", "latency"]
Scope = Literal["uniform", "global", "isomorphic"]

_NAMES: dict[Kind, tuple[str, str]] = {
    "ratio": ("channels", ""),
    "macs": ("MACs", ""),
    "params": ("parameters", ""),
    "latency": ("predicted latency", " ms"),
}
_BISECTIONS = 40


@dataclass(frozen=True)
class CellCurve:
    """What a cell may give, and what that costs.

    Args:
        name: Of the cell.
        size: Classes.
        loss: float64 [size + 1]; `loss[k]`: loss of quality when k classes are removed, not decreasing.
        allowed: Counts that may be kept, descending (`alignment.allowed_counts`). The first is what the cell begins
            with: `size`, unless it was decided elsewhere that less stays.
        key: Equal for cells of equal structure; only the isomorphic scope looks at it.
    """

    name: str
    size: int
    loss: np.ndarray
    allowed: tuple[int, ...]
    key: str = ""

    def losses(self) -> np.ndarray:
        """[allowed]: the loss of keeping each allowed count."""
        loss: np.ndarray = np.asarray(self.loss, np.float64)[self.size - np.asarray(self.allowed)]
        return loss


@dataclass(frozen=True)
class Budget:
    """How far to cut.

    Args:
        kind: What is counted.
        limit: For `ratio` the share of all classes that goes; else the share of the cost that may remain,
        absolute: or, with this, the cost itself (MACs, parameters, milliseconds of the whole model).
    """

    kind: Kind
    limit: float
    absolute: bool = False


@dataclass(frozen=True)
class Selection:
    """What every cell keeps.

    Args:
        keep: Classes by name of the cell.
        loss: Sum of the cells' losses.
        before, after: The cost of the whole model (`ratio`: classes), as predicted.
        reached: The budget is met, up to rounding for `ratio`; when it is not, this is the largest cut.
        sentence: The same in words.
    """

    keep: dict[str, int]
    loss: float
    before: float
    after: float
    reached: bool
    sentence: str


def select(
    cells: Sequence[CellCurve], budget: Budget, scope: Scope, costs: CostModel | None = None, fit: Fit | None = None
) -> Selection:
    """Chooses the counts.

    `ratio` never removes more than asked for; the other budgets are met, by as little as the allowed counts permit.

    Args:
        cells: In the order of the cost model.
        budget: How far.
        scope: Who competes.
        costs: MACs, parameters or milliseconds, as the budget counts; not needed for `ratio`.
        fit: From the cost model to the whole model; by default they are the same.
    """
    fit = fit or Fit()
    if budget.kind == "ratio":
        return _by_ratio(cells, budget, scope)
    if costs is None:
        raise ValueError(f"a budget of {budget.kind} needs a cost model")
    before = fit.whole(costs.total(costs.sizes))
    limit = budget.limit if budget.absolute else budget.limit * before
    if scope == "global":
        units = [Unit(cell.name, cell.losses()) for cell in cells]
        bill = costs.bill([cell.allowed for cell in cells])
        target = (fit.whole(costs.total(_most(cells))) - limit) / fit.scale
        choices = spend(units, bill, target).choices
        counts = np.array([cell.allowed[choice] for cell, choice in zip(cells, choices, strict=True)], np.int64)
    else:
        share = _uniform(cells) if scope == "uniform" else _isomorphic(cells)
        counts = _least_share(share, lambda c: fit.whole(costs.total(c)) <= limit * (1 + 1e-9))
    after = fit.whole(costs.total(counts))
    return _selection(cells, counts, budget, before, after, limit, after <= limit * (1 + 1e-9))


def _by_ratio(cells: Sequence[CellCurve], budget: Budget, scope: Scope) -> Selection:
    size = sum(cell.size for cell in cells)
    if scope == "uniform":
        counts = _uniform(cells)(budget.limit)
        enough = [cell.size * (1 - budget.limit) >= cell.allowed[-1] - 1e-9 for cell in cells]
        reached = all(enough)
    else:
        groups = _groups(cells) if scope == "isomorphic" else [list(range(len(cells)))]
        counts = _most(cells)
        reached = True
        for group in groups:
            steps = _steps([cells[i] for i in group])
            asked = budget.limit * sum(cells[i].size for i in group) - _gone(cells, group)
            taken = steps.fill(asked)
            counts[group] -= taken
            reached &= not steps.exhausted(taken, asked)
    remaining = float(counts.sum())
    return _selection(cells, counts, budget, float(size), remaining, size * (1 - budget.limit), reached)


Shares = Callable[[float], np.ndarray]
"""Share of the classes to remove, 0 to 1 -> classes that each cell keeps, never fewer than that leaves."""


def _uniform(cells: Sequence[CellCurve]) -> Shares:
    def counts(share: float) -> np.ndarray:
        return np.array([rounded(math.ceil(c.size * (1 - share) - 1e-9), c.allowed) for c in cells], np.int64)

    return counts


def _isomorphic(cells: Sequence[CellCurve]) -> Shares:
    groups = [(group, _steps([cells[i] for i in group])) for group in _groups(cells)]
    most = _most(cells)

    def counts(share: float) -> np.ndarray:
        result = most.copy()
        for group, steps in groups:
            result[group] -= steps.prefix(share * sum(cells[i].size for i in group) - _gone(cells, group))
        return result

    return counts


def _steps(cells: Sequence[CellCurve]) -> Steps:
    return steps_of([c.allowed[0] - np.asarray(c.allowed) for c in cells], [c.losses() for c in cells])


def _most(cells: Sequence[CellCurve]) -> np.ndarray:
    """What every cell begins with."""
    return np.array([cell.allowed[0] for cell in cells], np.int64)


def _gone(cells: Sequence[CellCurve], group: Sequence[int]) -> int:
    """Classes that are gone before the budget is spent."""
    return sum(cells[i].size - cells[i].allowed[0] for i in group)


def _groups(cells: Sequence[CellCurve]) -> list[list[int]]:
    """Indices of the cells of each key."""
    groups: dict[str, list[int]] = {}
    for index, cell in enumerate(cells):
        groups.setdefault(cell.key, []).append(index)
    return list(groups.values())


def _least_share(shares: Shares, enough: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The counts of the smallest share that is enough; those of the largest one when none is."""
    low, high = 0.0, 1.0
    if enough(shares(low)):
        return shares(low)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(shares(middle)) else (middle, high)
    return shares(high)


def _selection(
    cells: Sequence[CellCurve],
    counts: np.ndarray,
    budget: Budget,
    before: float,
    after: float,
    limit: float,
    reached: bool,
) -> Selection:
    loss = math.fsum(float(cell.loss[cell.size - count]) for cell, count in zip(cells, counts, strict=True))
    keep = {cell.name: int(count) for cell, count in zip(cells, counts, strict=True)}
    return Selection(keep, loss, before, after, reached, _sentence(budget, before, after, limit, reached))


def _sentence(budget: Budget, before: float, after: float, limit: float, reached: bool) -> str:
    name, unit = _NAMES[budget.kind]
    if budget.kind == "ratio":
        gone = 1 - after / before if before else 0.0
        told, asked = f"{gone:.1%} of the channels go", f"{budget.limit:.1%} asked for"
    else:
        share = after / before if before else 1.0
        told = f"{name}: {share:.1%} remain, {after:,.4g}{unit} of {before:,.4g}{unit}"
        asked = f"at most {limit:,.4g}{unit} asked for"
    least = "" if reached else "; the channels that may go allow no more"
    return f"{told} ({asked}{least})"
