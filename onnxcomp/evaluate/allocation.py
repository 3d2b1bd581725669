"""Sharing out a budget: units with a list of choices each; find the choice of every unit that keeps the total cost
within the budget at the least total loss.

Two solvers:

* `spend` for costs that are not additive (the MACs of a convolution are a product of its kept input and output
  channels, which may belong to two units): greedy descent along the lower convex hulls of the (saved cost, loss)
  curves, by the best saving for each unit of loss, with lazy re-evaluation (Minoux, "Accelerated greedy algorithms for
  maximizing submodular set functions", 1978): savings only shrink as the neighbours of a unit are cut, so an outdated
  one is an upper bound, and is computed anew only when it comes to the top.
* `knapsack` for additive costs: the exact multiple-choice knapsack by dynamic programming.

Choice 0 of a unit is "as it is". Losses may be infinite: such a choice is never taken.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Unit:
    """Something with a choice.

    Args:
        name: For messages.
        losses: [choices], float64; what each choice costs in quality; `losses[0]`: as it is.
    """

    name: str
    losses: np.ndarray


class Bill(Protocol):
    """The total cost, for units that all start with choice 0."""

    def savings(self, unit: int) -> np.ndarray:
        """[choices], float64: how much the total cost falls when `unit` goes from its present choice to each one, all
        others staying where they are; 0 at the present choice, negative where the cost rises."""
        ...

    def move(self, unit: int, choice: int) -> np.ndarray:
        """Makes the choice; gives the indices of the units whose savings may have changed by it."""
        ...


@dataclass(frozen=True)
class Allocation:
    """The outcome.

    Args:
        choices: One for each unit.
        loss: Sum of their losses.
        saved: How far the total cost lies below that of choice 0 everywhere.
        reached: The budget is met; when it is not, this is the largest cut that was found.
    """

    choices: tuple[int, ...]
    loss: float
    saved: float
    reached: bool


def spend(units: Sequence[Unit], bill: Bill, target: float) -> Allocation:
    """Cuts the total cost by at least `target`, at a small total loss.

    Where the curves are convex and finely divided this is the optimum up to the last step. The last step is chosen
    apart: the least loss among the moves that reach the target. What it overshoots is then given back where that
    regains most loss. Ties: the unit that comes first, then its smaller index of choice.

    Args:
        units: With the losses.
        bill: The costs; it is moved along to the result.
        target: Cost to save, in the units of `bill`.
    """
    state = _State(units, bill, target)
    state.descend()
    if state.reached:
        state.give_back()
    loss = math.fsum(float(unit.losses[choice]) for unit, choice in zip(units, state.choices, strict=True))
    return Allocation(tuple(state.choices), loss, state.saved, state.reached)


class _State:
    """The choices so far, and what they save."""

    def __init__(self, units: Sequence[Unit], bill: Bill, target: float) -> None:
        self.bill = bill
        self.losses = [np.asarray(unit.losses, np.float64) for unit in units]
        self.choices = [0] * len(units)
        self.saved = 0.0
        # A sum of savings differs from the target by rounding: that is no reason for one more cut.
        self.target = target - 1e-9 * abs(target)
        self._gains: list[np.ndarray] = [np.zeros(0)] * len(units)
        self._stale = np.ones(len(units), bool)

    @property
    def reached(self) -> bool:
        return self.saved >= self.target

    def descend(self) -> None:
        """Takes the best moves until the target is reached or nothing more can be saved."""
        heap = [(*step, unit) for unit in range(len(self.losses)) if (step := self._best(unit)) is not None]
        heapq.heapify(heap)
        while heap and not self.reached:
            _, gain, choice, unit = heap[0]
            if not self._stale[unit] and self.saved - gain >= self.target:
                self._finish()
                return
            if not self._stale[unit]:
                self._take(unit, choice)
            step = self._best(unit)
            if step is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (*step, unit))

    def give_back(self) -> None:
        """Undoes cuts that the target does not need, those with the most loss first, until none is left."""
        while True:
            best = (0.0, 0, 0)
            for unit in range(len(self.losses)):
                regained = self.losses[unit][self.choices[unit]] - self.losses[unit]
                regained[self.saved + self._savings(unit) < self.target] = 0.0
                choice = int(np.argmax(regained))
                best = min(best, (-float(regained[choice]), unit, choice))
            if best[0] == 0:
                return
            self._take(best[1], best[2])

    def _best(self, unit: int) -> tuple[float, float, int] | None:
        """(−saving for each unit of loss, −saving, choice) of the steepest edge that leaves the present choice."""
        gains = self._savings(unit)
        rises = self.losses[unit] - self.losses[unit][self.choices[unit]]
        dear = rises > 0
        free = np.where(dear, 0.0, gains)
        choice = int(np.argmax(free))
        if free[choice] > 0:  # of what costs no quality, the most
            return -math.inf, -float(free[choice]), choice
        slopes = np.divide(gains, rises, out=np.zeros(len(gains)), where=dear)  # 0 where the loss is infinite
        choice = int(np.argmax(slopes))
        return (-float(slopes[choice]), -float(gains[choice]), choice) if slopes[choice] > 0 else None

    def _finish(self) -> None:
        """Takes the move of least loss that reaches the target; the caller knows that there is one."""
        best = (math.inf, 0.0, 0, 0)
        for unit, losses in enumerate(self.losses):
            gains = self._savings(unit)
            rises = np.where(self.saved + gains >= self.target, losses - losses[self.choices[unit]], np.inf)
            choice = int(np.argmin(rises))
            best = min(best, (float(rises[choice]), -float(gains[choice]), unit, choice))
        self._take(best[2], best[3])

    def _savings(self, unit: int) -> np.ndarray:
        if self._stale[unit]:
            self._gains[unit] = np.asarray(self.bill.savings(unit), np.float64)
            self._stale[unit] = False
        return self._gains[unit]

    def _take(self, unit: int, choice: int) -> None:
        gains = self._savings(unit)
        self.saved += float(gains[choice])
        self.choices[unit] = choice
        self._stale[self.bill.move(unit, choice)] = True
        # From the new choice every other one saves as much less as this move has saved: no need to ask.
        self._gains[unit] = gains - gains[choice]
        self._stale[unit] = False


def knapsack(
    costs: Sequence[np.ndarray], losses: Sequence[np.ndarray], budget: float, *, resolution: int = 10_000
) -> Allocation:
    """The multiple-choice knapsack with additive costs, by dynamic programming over the cost.

    best[i][b] = min over choices j of best[i − 1][b − cost(i, j)] + loss(i, j).

    Exact when the costs are whole numbers and what lies between the least total and the budget, divided by their
    greatest common divisor, is at most `resolution`. Otherwise costs are rounded up to a grid of `resolution` steps:
    the budget still holds, and the result is the optimum of a budget smaller by at most `units / resolution` of it.

    Args:
        costs, losses: For each unit [choices]; choice 0 is "as it is".
        budget: The total cost that is allowed, in the units of `costs`.
        resolution: Steps of the grid; time and memory grow in proportion.

    Returns:
        The best choices; with `reached` False the cheapest ones (at the least loss), which cost more than `budget`.

    >>> costs, losses = [np.array([4, 2]), np.array([4, 1])], [np.array([0.0, 1.0]), np.array([0.0, 3.0])]
    >>> knapsack(costs, losses, 6).choices
    (1, 0)
    """
    costs = [_allowed_costs(cost, loss) for cost, loss in zip(costs, losses, strict=True)]
    floors = [float(cost.min()) for cost in costs]
    room = budget - math.fsum(floors)
    tolerance = 1e-9 * max(1.0, abs(budget))
    if room < -tolerance:
        cheapest = [int(np.lexsort((loss, cost))[0]) for cost, loss in zip(costs, losses, strict=True)]
        return _outcome(cheapest, costs, losses, False)
    wanted = [int(np.lexsort((cost, loss))[0]) for cost, loss in zip(costs, losses, strict=True)]
    if math.fsum(float(cost[choice]) for cost, choice in zip(costs, wanted, strict=True)) <= budget + tolerance:
        return _outcome(wanted, costs, losses, True)
    extra = [cost - floor for cost, floor in zip(costs, floors, strict=True)]
    room = max(room, 0.0)
    grid = _grid(extra, room, resolution)
    size = math.floor((room + tolerance) / grid) if grid else 0
    best = np.zeros(size + 1)
    taken = np.zeros((len(extra), size + 1), np.int32)
    steps = [_steps(e, grid) for e in extra]
    for unit, (step, loss) in enumerate(zip(steps, losses, strict=True)):
        reached = np.full(size + 1, np.inf)
        for choice in np.flatnonzero(step <= size):
            s = int(step[choice])
            total = best[: size + 1 - s] + float(loss[choice])
            better = total < reached[s:]
            reached[s:][better] = total[better]
            taken[unit, s:][better] = choice
        best = reached
    choices, left = [0] * len(extra), size
    for unit in reversed(range(len(extra))):
        choices[unit] = int(taken[unit, left])
        left -= int(steps[unit][choices[unit]])
    return _outcome(choices, costs, losses, True)


def _allowed_costs(cost: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """float64, infinite where the loss is: such a choice never fits."""
    return np.where(np.isfinite(np.asarray(loss, np.float64)), np.asarray(cost, np.float64), np.inf)


def _grid(extra: Sequence[np.ndarray], room: float, resolution: int) -> float:
    """Width of one step: the common divisor of whole costs where that is fine enough."""
    finite = np.concatenate([e[np.isfinite(e)] for e in extra]) if extra else np.zeros(0)
    if room <= 0 or not len(finite):
        return 0.0
    if (finite == np.round(finite)).all() and finite.max() < 2**53:
        divisor = float(np.gcd.reduce(finite.astype(np.int64)))
        if divisor and room / divisor <= resolution:
            return divisor
    return room / resolution


def _steps(extra: np.ndarray, grid: float) -> np.ndarray:
    """Costs in steps of the grid, rounded up; what rounding of floats adds does not count as a step."""
    if not grid:
        return np.where(extra > 0, np.inf, 0.0)
    return np.ceil(extra / grid - 1e-9)


def _outcome(
    choices: Sequence[int], costs: Sequence[np.ndarray], losses: Sequence[np.ndarray], reached: bool
) -> Allocation:
    loss = math.fsum(float(row[choice]) for row, choice in zip(losses, choices, strict=True))
    saved = math.fsum(float(row[0]) - float(row[choice]) for row, choice in zip(costs, choices, strict=True))
    return Allocation(tuple(choices), loss, saved, reached)


@dataclass(frozen=True)
class Fit:
    """The cost of the whole model from that of the cost model: `rest + scale · modelled`.

    Args:
        scale: Without a unit.
        rest: What does not depend on the choices: nodes that are not modelled, the overhead of a call.
    """

    scale: float = 1.0
    rest: float = 0.0

    def whole(self, modelled: float) -> float:
        return self.rest + self.scale * modelled

    @classmethod
    def of(cls, points: Sequence[tuple[float, float]]) -> Fit:
        """Fits (modelled, measured) pairs: the original first, then what was measured after each round.

        One pair: what the table does not explain is the rest. More: the line through the first and the last one, so
        that the next round is planned with what the rounds so far really brought.
        """
        (first, measured_first), (last, measured_last) = points[0], points[-1]
        scale = 1.0
        if abs(first - last) > 1e-6 * abs(first):
            scale = (measured_first - measured_last) / (first - last)
            scale = min(max(scale, _LEAST_SCALE), 1 / _LEAST_SCALE)
        rest = measured_last - scale * last
        # Less than nothing can't be left: fusions make the whole cheaper than the sum of its nodes.
        return cls(scale, rest) if rest >= 0 or last <= 0 else cls(measured_last / last, 0.0)


_LEAST_SCALE = 0.1
"""A round that measured hardly any gain says that the table is wrong, not that ten times more has to go."""
