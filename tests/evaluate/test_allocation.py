"""Budgets are met at the least loss: held against brute force, and against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from onnxcomp.evaluate.allocation import Allocation, Unit, knapsack, spend


class Additive:
    """A bill where every unit pays for itself."""

    def __init__(self, costs: Sequence[np.ndarray]) -> None:
        self.costs = costs
        self.choices = [0] * len(costs)
        self.questions = 0

    def savings(self, unit: int) -> np.ndarray:
        self.questions += 1
        return np.asarray(self.costs[unit][self.choices[unit]] - self.costs[unit])

    def move(self, unit: int, choice: int) -> np.ndarray:
        self.choices[unit] = choice
        return np.array([unit])

    def total(self, choices: Sequence[int]) -> float:
        return math.fsum(float(row[c]) for row, c in zip(self.costs, choices, strict=True))


class Chain:
    """Layers one after the other: the cost of layer i is width i × width i + 1, the last one goes to 10 classes."""

    def __init__(self, widths: Sequence[np.ndarray]) -> None:
        self.widths = widths
        self.choices = [0] * len(widths)

    def total(self, choices: Sequence[int]) -> float:
        widths = [float(row[c]) for row, c in zip(self.widths, choices, strict=True)] + [10.0]
        return sum(a * b for a, b in itertools.pairwise([3.0, *widths]))

    def savings(self, unit: int) -> np.ndarray:
        now = self.total(self.choices)
        others = [[*self.choices[:unit], c, *self.choices[unit + 1 :]] for c in range(len(self.widths[unit]))]
        return np.array([now - self.total(choices) for choices in others])

    def move(self, unit: int, choice: int) -> np.ndarray:
        self.choices[unit] = choice
        return np.array([u for u in (unit - 1, unit, unit + 1) if 0 <= u < len(self.widths)])


def units(losses: Sequence[np.ndarray]) -> list[Unit]:
    return [Unit(f"u{i}", row) for i, row in enumerate(losses)]


def brute_force(bill: Additive | Chain, losses: Sequence[np.ndarray], budget: float) -> float:
    """The least loss of all combinations within the budget; infinite when there is none."""
    best = math.inf
    for choices in itertools.product(*(range(len(row)) for row in losses)):
        if bill.total(choices) <= budget * (1 + 1e-9):
            best = min(best, math.fsum(float(row[c]) for row, c in zip(losses, choices, strict=True)))
    return best


def random_losses(rng: np.random.Generator, count: int, choices: int, *, convex: bool) -> list[np.ndarray]:
    steps = [rng.exponential(1.0, choices - 1) for _ in range(count)]
    return [np.concatenate(([0.0], np.cumsum(np.sort(s) if convex else s))) for s in steps]


def test_the_unit_with_the_most_saving_for_its_loss_is_cut_first() -> None:
    bill = Additive([np.array([10.0, 6.0, 2.0]), np.array([10.0, 6.0, 2.0])])
    losses = [np.array([0.0, 1.0, 4.0]), np.array([0.0, 2.0, 5.0])]
    assert spend(units(losses), bill, 4) == Allocation((1, 0), 1.0, 4.0, True)
    assert spend(units(losses), Additive(bill.costs), 8) == Allocation((1, 1), 3.0, 8.0, True)
    assert spend(units(losses), Additive(bill.costs), 12) == Allocation((2, 1), 6.0, 12.0, True)


def test_a_choice_inside_the_hull_is_passed_over() -> None:
    bill = Additive([np.array([10.0, 8.0, 2.0]), np.array([10.0, 8.0])])
    # Choice 1 of the first unit saves 2 for a loss of 3, choice 2 saves 8 for a loss of 4.
    losses = [np.array([0.0, 3.0, 4.0]), np.array([0.0, 1.5])]
    assert spend(units(losses), bill, 8).choices == (2, 0)


def test_what_costs_no_quality_is_always_cut_first() -> None:
    bill = Additive([np.array([10.0, 9.0]), np.array([10.0, 9.0, 8.0])])
    losses = [np.array([0.0, 1e-9]), np.array([0.0, 0.0, 0.0])]
    assert spend(units(losses), bill, 2) == Allocation((0, 2), 0.0, 2.0, True)


def test_equal_units_are_cut_in_their_order() -> None:
    costs, losses = [np.array([4.0, 2.0])] * 3, [np.array([0.0, 1.0])] * 3
    assert spend(units(losses), Additive(costs), 4).choices == (1, 1, 0)


def test_the_last_step_is_the_cheapest_that_suffices_and_what_it_makes_needless_is_given_back() -> None:
    costs = [np.array([10.0, 9.0]), np.array([10.0, 5.0])]
    losses = [np.array([0.0, 1.0]), np.array([0.0, 6.0])]
    # 1 saved by the first unit (slope 1 against 5/6), then the second one must go too: the first cut was in vain.
    assert spend(units(losses), Additive(costs), 5) == Allocation((0, 1), 6.0, 5.0, True)


def test_a_target_out_of_reach_gives_the_largest_cut_and_says_so() -> None:
    bill = Additive([np.array([10.0, 6.0]), np.array([10.0, 5.0, 1.0])])
    losses = [np.array([0.0, 1.0]), np.array([0.0, 1.0, np.inf])]
    assert spend(units(losses), bill, 15) == Allocation((1, 1), 2.0, 9.0, False)


def test_no_target_changes_nothing() -> None:
    costs, losses = [np.array([4.0, 2.0])], [np.array([0.0, 0.0])]
    assert spend(units(losses), Additive(costs), 0.0) == Allocation((0,), 0.0, 0.0, True)
    assert spend([], Additive([]), 1.0) == Allocation((), 0.0, 0.0, False)


@pytest.mark.parametrize("seed", range(20))
def test_convex_units_with_equal_steps_are_shared_out_optimally(seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses = random_losses(rng, 4, 6, convex=True)
    costs = [np.arange(6.0)[::-1]] * 4
    target = float(rng.integers(3, 15))
    result = spend(units(losses), Additive(costs), target)
    assert result.reached
    assert result.loss == pytest.approx(brute_force(Additive(costs), losses, 20 - target), rel=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_products_of_widths_are_shared_out_within_a_small_factor_of_the_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = [np.arange(64.0, 0, -8.0) for _ in range(4)]
    losses = random_losses(rng, 4, 8, convex=True)
    bill = Chain(widths)
    before = bill.total([0] * 4)
    target = before * rng.uniform(0.2, 0.8)
    result = spend(units(losses), bill, target)
    assert result.reached
    assert result.saved >= target * (1 - 1e-9)
    assert result.saved == pytest.approx(before - bill.total(result.choices))
    best = brute_force(bill, losses, before - target)
    assert best - 1e-12 <= result.loss <= 1.35 * best


def test_on_average_the_greedy_choice_is_within_five_percent_of_the_optimum() -> None:
    ratios = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        widths = [np.arange(64.0, 0, -8.0) for _ in range(4)]
        losses = random_losses(rng, 4, 8, convex=bool(seed % 2))
        before = Chain(widths).total([0] * 4)
        target = before * rng.uniform(0.2, 0.8)
        best = brute_force(Chain(widths), losses, before - target)
        ratios.append(spend(units(losses), Chain(widths), target).loss / best)
    assert np.mean(ratios) < 1.05


def test_only_neighbours_of_a_move_are_asked_again() -> None:
    rng = np.random.default_rng(0)
    losses = random_losses(rng, 200, 20, convex=True)
    bill = Additive([np.arange(20.0)[::-1]] * 200)
    result = spend(units(losses), bill, 1000)
    assert sum(result.choices) == 1000
    assert bill.questions == 200  # each unit once: nothing has neighbours


@pytest.mark.parametrize("seed", range(25))
def test_the_knapsack_is_exact_for_whole_costs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = [rng.integers(0, 50, 5) * 7 for _ in range(5)]
    losses = [rng.random(5) for _ in range(5)]
    floor, ceiling = sum(int(c.min()) for c in costs), sum(int(c.max()) for c in costs)
    budget = float(rng.integers(floor, ceiling + 1))
    result = knapsack(costs, losses, budget)
    assert result.reached
    assert sum(int(c[i]) for c, i in zip(costs, result.choices, strict=True)) <= budget
    assert result.loss == pytest.approx(brute_force(Additive(costs), losses, budget), rel=1e-12)


@pytest.mark.parametrize("seed", range(15))
def test_the_knapsack_on_a_grid_keeps_the_budget_and_loses_at_most_what_the_grid_takes_from_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = [rng.random(6) * 1e6 for _ in range(4)]
    losses = [rng.random(6) for _ in range(4)]
    floor = sum(float(c.min()) for c in costs)
    room = (sum(float(c.max()) for c in costs) - floor) * rng.random()
    result = knapsack(costs, losses, floor + room, resolution=500)
    assert result.reached
    assert sum(float(c[i]) for c, i in zip(costs, result.choices, strict=True)) <= floor + room
    bill = Additive(costs)
    assert result.loss >= brute_force(bill, losses, floor + room) - 1e-12
    assert result.loss <= brute_force(bill, losses, floor + room * (1 - 4 / 500)) + 1e-12


def test_the_knapsack_takes_a_budget_that_is_met_exactly_in_floats() -> None:
    costs = [np.array([0.3, 0.1]), np.array([0.3, 0.1]), np.array([0.3, 0.1])]
    losses = [np.array([0.0, 1.0]), np.array([0.0, 2.0]), np.array([0.0, 3.0])]
    assert knapsack(costs, losses, 0.1 + 0.1 + 0.1).choices == (1, 1, 1)
    assert knapsack(costs, losses, 0.3 + 0.1 + 0.1).choices == (1, 1, 0)
    assert knapsack(costs, losses, 0.9) == Allocation((0, 0, 0), 0.0, 0.0, True)


def test_a_budget_below_the_cheapest_choices_is_said_to_be_out_of_reach() -> None:
    costs = [np.array([5, 3, 3]), np.array([5, 4, 1])]
    losses = [np.array([0.0, 2.0, 1.0]), np.array([0.0, 1.0, np.inf])]
    assert knapsack(costs, losses, 6) == Allocation((2, 1), 2.0, 3.0, False)


def test_a_choice_of_infinite_loss_is_never_taken() -> None:
    costs = [np.array([5, 0]), np.array([5, 1])]
    losses = [np.array([0.0, np.inf]), np.array([0.0, 9.0])]
    assert knapsack(costs, losses, 6).choices == (0, 1)


def test_an_empty_knapsack_is_full() -> None:
    assert knapsack([], [], 3.0) == Allocation((), 0.0, 0.0, True)
