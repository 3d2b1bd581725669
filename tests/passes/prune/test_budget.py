"""Budgets become counts: checked by hand, and against all combinations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from onnxcomp.evaluate.allocation import Fit
from onnxcomp.passes.prune.alignment import allowed_counts
from onnxcomp.passes.prune.budget import Budget, CellCurve, Scope, Selection, select
from onnxcomp.passes.prune.channel_costs import Axis, CostModel, NodeCost, kept, latencies
from onnxcomp.passes.prune.hull import hull_slopes, steps_of


def cell(name: str, size: int, loss: Sequence[float] | np.ndarray, *, unit: int = 1, key: str = "") -> CellCurve:
    return CellCurve(name, size, np.asarray(loss, np.float64), allowed_counts(size, unit), key)


def linear(name: str, size: int, slope: float, *, unit: int = 1, key: str = "") -> CellCurve:
    return cell(name, size, slope * np.arange(size + 1.0), unit=unit, key=key)


def random_cells(rng: np.random.Generator, sizes: Sequence[int], unit: int = 1) -> list[CellCurve]:
    losses = [np.concatenate(([0.0], np.cumsum(np.sort(rng.exponential(1.0, size))))) for size in sizes]
    return [cell(f"c{i}", size, loss, unit=unit) for i, (size, loss) in enumerate(zip(sizes, losses, strict=True))]


def chain(sizes: Sequence[int], *, area: float = 10.0) -> CostModel:
    """3 → cell 0 → cell 1 → … → 5 channels: MACs of pointwise convolutions."""
    axes = [Axis(3), *(Axis(size, ((i, 1),)) for i, size in enumerate(sizes)), Axis(5)]
    pairs = enumerate(itertools.pairwise(axes))
    return CostModel([NodeCost(f"n{i}", area * a.total * b.total, (a, b)) for i, (a, b) in pairs], sizes)


def best_of_all(cells: Sequence[CellCurve], costs: CostModel, limit: float) -> float:
    best = math.inf
    for counts in itertools.product(*(c.allowed for c in cells)):
        if costs.total(np.array(counts)) <= limit * (1 + 1e-9):
            best = min(best, sum(float(c.loss[c.size - k]) for c, k in zip(cells, counts, strict=True)))
    return best


def counts_of(selection: Selection) -> np.ndarray:
    return np.array(list(selection.keep.values()))


# Costs


def test_an_axis_after_a_concat_keeps_the_sum_of_its_parts_and_what_is_fixed() -> None:
    axis = Axis(total=3 + 8 + 2 * 6, parts=((0, 1), (2, 2)))
    assert kept(axis, counts=[5, 99, 4], sizes=[8, 99, 6]) == 3 + 5 + 2 * 4


def test_macs_are_the_product_of_the_kept_channels() -> None:
    model = chain([8, 6], area=2)
    assert model.total(np.array([8, 6])) == 2 * (3 * 8 + 8 * 6 + 6 * 5)
    assert model.total(np.array([4, 3])) == 2 * (3 * 4 + 4 * 3 + 3 * 5)


def test_a_cell_on_both_axes_of_a_node_counts_twice() -> None:
    axis = Axis(10, ((0, 1),))
    model = CostModel([NodeCost("residual conv", 900, (axis, axis))], [10])
    assert model.total(np.array([5])) == 225


def test_fixed_nodes_and_nodes_over_the_same_axes_are_all_counted() -> None:
    axis = Axis(8, ((0, 1),))
    nodes = [NodeCost("w", 72, (axis, Axis(3))), NodeCost("b", 8, (axis,)), NodeCost("head", 5, ())]
    model = CostModel(nodes, [8])
    assert model.total(np.array([8])) == 85
    assert model.total(np.array([2])) == 25


@pytest.mark.parametrize("seed", range(10))
def test_the_bill_agrees_with_the_totals_whatever_was_cut_before(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [int(s) for s in rng.integers(4, 20, 5)]
    nodes = []
    for i in range(12):
        axes = []
        for _ in range(int(rng.integers(1, 4))):
            cells = rng.choice(5, int(rng.integers(1, 4)), replace=False)
            parts = tuple((int(c), int(rng.integers(1, 4))) for c in cells)
            axes.append(Axis(sum(each * sizes[c] for c, each in parts) + int(rng.integers(0, 5)), parts))
        nodes.append(NodeCost(f"n{i}", float(rng.integers(1, 1000)), tuple(axes)))
    model = CostModel(nodes, sizes)
    choices = [allowed_counts(size, 1) for size in sizes]
    bill = model.bill(choices)
    counts = np.array(sizes)
    for _ in range(15):
        unit = int(rng.integers(5))
        savings, before = bill.savings(unit), [bill.savings(u) for u in range(5)]
        for choice, count in enumerate(choices[unit]):
            moved = counts.copy()
            moved[unit] = count
            assert savings[choice] == pytest.approx(model.total(counts) - model.total(moved), abs=1e-9)
        choice = int(rng.integers(len(choices[unit])))
        touched = bill.move(unit, choice)
        counts[unit] = choices[unit][choice]
        np.testing.assert_array_equal(bill.counts, counts)
        for other in set(range(5)) - set(touched.tolist()):
            np.testing.assert_array_equal(bill.savings(other), before[other])


def test_latencies_come_from_the_table_and_nodes_without_axes_cost_their_base() -> None:
    asked: list[tuple[str, list[list[int]]]] = []

    def latency_of(node: str, channels: np.ndarray) -> np.ndarray:
        asked.append((node, channels.tolist()))
        return np.asarray(np.ceil(channels / 4).prod(axis=1))

    nodes = [NodeCost("conv", 0, (Axis(3), Axis(8, ((0, 1),)))), NodeCost("rest", 7.0)]
    model = CostModel(nodes, [8], latencies(nodes, latency_of))
    assert model.total(np.array([8])) == 2 + 7
    assert model.total(np.array([4])) == 1 + 7
    assert asked == [("conv", [[3, 8]]), ("conv", [[3, 4]])]
    np.testing.assert_array_equal(model.bill([(8, 6, 4)]).savings(0), [0, 0, 1])


# Ratio


def test_uniform_takes_the_same_share_everywhere_and_never_more_than_asked() -> None:
    cells = [linear(name, size, 1, unit=16) for name, size in (("a", 64), ("b", 100), ("d", 24))] + [linear("c", 10, 1)]
    result = select(cells, Budget("ratio", 0.4), "uniform")
    assert result.keep == {"a": 48, "b": 64, "c": 6, "d": 24}
    assert result.after == 142
    assert result.reached  # up to rounding
    assert result.sentence == "28.3% of the channels go (40.0% asked for)"
    assert not select(cells, Budget("ratio", 0.6), "uniform").reached  # 24 channels halve at most


def test_global_removes_what_costs_least() -> None:
    cells = [linear("a", 10, 3), linear("b", 10, 1), linear("c", 10, 2)]
    result = select(cells, Budget("ratio", 0.5), "global")
    assert result.keep == {"a": 10, "b": 1, "c": 4}
    assert result.loss == 9 * 1 + 6 * 2
    assert result.reached


def test_isomorphic_cells_compete_only_among_themselves() -> None:
    rows = (("a", 1, "x"), ("b", 9, "y"), ("c", 2, "x"), ("d", 8, "y"))
    cells = [linear(name, 8, slope, key=key) for name, slope, key in rows]
    result = select(cells, Budget("ratio", 0.5), "isomorphic")
    assert result.keep == {"a": 1, "b": 7, "c": 7, "d": 1}
    assert select(cells, Budget("ratio", 0.5), "global").keep == {"a": 1, "b": 8, "c": 1, "d": 6}


@pytest.mark.parametrize("scope", ["uniform", "global", "isomorphic"])
@pytest.mark.parametrize("ratio", [0.0, 0.13, 0.5, 0.77, 1.0])
def test_a_ratio_never_takes_more_than_asked_and_only_allowed_counts(scope: Scope, ratio: float) -> None:
    rng = np.random.default_rng(3)
    cells = random_cells(rng, [64, 100, 24, 33, 8], unit=8)
    result = select(cells, Budget("ratio", ratio), scope)
    assert result.before - result.after <= ratio * result.before + 1e-9
    assert all(result.keep[c.name] in c.allowed for c in cells)
    assert result.after == sum(result.keep.values())


def test_a_step_that_does_not_fit_leaves_room_for_shorter_ones() -> None:
    cells = [CellCurve("a", 64, np.arange(65.0), (64, 32)), linear("b", 64, 5, unit=8)]
    result = select(cells, Budget("ratio", 0.2), "global")
    assert result.keep == {"a": 64, "b": 40}


def test_a_ratio_that_the_allowed_counts_do_not_permit_is_said() -> None:
    result = select([linear("a", 16, 1, unit=16)], Budget("ratio", 0.9), "global")
    assert result.keep == {"a": 8}
    assert not result.reached
    assert "allow no more" in result.sentence


@pytest.mark.parametrize("scope", ["uniform", "global", "isomorphic"])
def test_what_was_decided_elsewhere_counts_towards_the_budget(scope: Scope) -> None:
    decided = CellCurve("a", 16, np.arange(17.0), (8,))
    result = select([decided, linear("b", 16, 1)], Budget("ratio", 0.375), scope)
    assert result.keep == {"a": 8, "b": 10 if scope == "uniform" else 12}
    costs = chain([16, 16])
    result = select([decided, linear("b", 16, 1)], Budget("macs", 0.4), scope, costs)
    assert result.reached
    assert result.keep["a"] == 8
    one_more = costs.total(np.array([8, result.keep["b"] + 1]))
    assert result.after <= 0.4 * result.before < one_more


# Costs as budgets


def test_the_expensive_cell_goes_first_when_losses_are_equal() -> None:
    nodes = [NodeCost("a", 1000, (Axis(10, ((0, 1),)),)), NodeCost("b", 100, (Axis(10, ((1, 1),)),))]
    cells = [linear("a", 10, 1), linear("b", 10, 1)]
    result = select(cells, Budget("macs", 0.6), "global", CostModel(nodes, [10, 10]))
    # 440 of 1100 have to go: 4 classes of 100 and 4 of 10, or 5 of 100: one loss less for three more of the cheap ones.
    assert result.keep == {"a": 5, "b": 10}
    assert (result.before, result.after, result.loss, result.reached) == (1100, 600, 5, True)
    assert result.sentence == "MACs: 54.5% remain, 600 of 1,100 (at most 660 asked for)"


@pytest.mark.parametrize("seed", range(12))
def test_a_macs_budget_is_met_close_to_the_best_of_all_combinations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [8, 10, 6, 9]
    cells, costs = random_cells(rng, sizes), chain(sizes)
    share = float(rng.uniform(0.25, 0.85))
    result = select(cells, Budget("macs", share), "global", costs)
    assert result.reached
    assert result.after == pytest.approx(costs.total(counts_of(result)))
    assert result.after <= share * result.before * (1 + 1e-9)
    assert result.loss <= 1.3 * best_of_all(cells, costs, share * result.before)


@pytest.mark.parametrize("scope", ["uniform", "global", "isomorphic"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_every_scope_meets_a_budget_of_costs_and_cuts_something(scope: Scope, share: float) -> None:
    sizes = [64, 128, 48, 96]
    cells, costs = random_cells(np.random.default_rng(5), sizes, unit=8), chain(sizes)
    result = select(cells, Budget("params", share), scope, costs)
    assert result.reached
    assert costs.total(counts_of(result)) <= share * costs.total(np.array(sizes)) * (1 + 1e-9)
    assert all(result.keep[c.name] in c.allowed for c in cells)
    assert result.after < result.before


def test_uniform_takes_the_smallest_share_that_is_enough() -> None:
    axis = Axis(100, ((0, 1),))
    costs = CostModel([NodeCost("n", 10_000, (axis, axis))], [100])
    result = select([linear("a", 100, 1)], Budget("macs", 0.5), "uniform", costs)
    assert result.keep == {"a": 70}  # 70² = 4900; 71² = 5041 is too much


def test_global_beats_uniform_where_cells_differ() -> None:
    sizes = [64, 64, 64]
    cells = [linear(f"c{i}", 64, slope, unit=8) for i, slope in enumerate((1.0, 5.0, 25.0))]
    by_scope = {s: select(cells, Budget("macs", 0.5), s, chain(sizes)).loss for s in ("uniform", "global")}
    assert by_scope["global"] < 0.6 * by_scope["uniform"]


@pytest.mark.parametrize("scope", ["uniform", "global", "isomorphic"])
def test_a_budget_out_of_reach_gives_the_largest_cut_and_says_so(scope: Scope) -> None:
    sizes = [64, 64]
    cells, costs = random_cells(np.random.default_rng(0), sizes, unit=32), chain(sizes)
    result = select(cells, Budget("macs", 0.01), scope, costs)
    assert result.keep == {"c0": 32, "c1": 32}
    assert not result.reached
    assert "allow no more" in result.sentence


@pytest.mark.parametrize("scope", ["uniform", "global", "isomorphic"])
def test_a_budget_that_is_met_already_changes_nothing(scope: Scope) -> None:
    cells, costs = random_cells(np.random.default_rng(0), [8, 8]), chain([8, 8])
    result = select(cells, Budget("macs", 1.0), scope, costs)
    assert result.keep == {"c0": 8, "c1": 8}
    assert result.reached
    assert select(cells, Budget("macs", 1e9, absolute=True), scope, costs).keep == result.keep


def test_an_absolute_limit_is_in_the_units_of_the_cost() -> None:
    cells, costs = random_cells(np.random.default_rng(0), [8, 8]), chain([8, 8])
    share, absolute = (
        select(cells, budget, "global", costs)
        for budget in (Budget("macs", 0.5), Budget("macs", 0.5 * costs.total(np.array([8, 8])), absolute=True))
    )
    assert share == absolute


def test_a_budget_of_costs_needs_a_cost_model() -> None:
    with pytest.raises(ValueError, match="needs a cost model"):
        select([linear("a", 4, 1)], Budget("macs", 0.5), "global")


def test_a_model_without_cells_has_nothing_to_give() -> None:
    costs = CostModel([NodeCost("n", 10.0)], [])
    for scope in ("uniform", "global", "isomorphic"):
        result = select([], Budget("macs", 0.5), scope, costs)
        assert (result.keep, result.after, result.reached) == ({}, 10.0, False)
        assert select([], Budget("ratio", 0.5), scope).keep == {}


def test_the_selection_is_the_same_each_time() -> None:
    cells = [linear(f"c{i}", 64, 1.0, unit=8) for i in range(6)]
    costs = chain([64] * 6)
    first, second = (select(cells, Budget("macs", 0.5), "global", costs) for _ in range(2))
    assert first == second


# Latency in rounds


def staircase(node: str, channels: np.ndarray) -> np.ndarray:
    """What a blocked kernel costs: whole blocks of 16."""
    return np.asarray((np.ceil(channels / 16) * 16).prod(axis=1) / 1000)


def test_a_latency_budget_in_milliseconds_counts_the_rest_of_the_model() -> None:
    sizes = [64, 64]
    axes = [Axis(3), Axis(64, ((0, 1),)), Axis(64, ((1, 1),)), Axis(10)]
    nodes = [NodeCost(f"n{i}", 0, pair) for i, pair in enumerate(itertools.pairwise(axes))]
    costs = CostModel(nodes, sizes, latencies(nodes, staircase))
    cells = [linear("a", 64, 1, unit=16), linear("b", 64, 1, unit=16)]
    whole = costs.total(costs.sizes) + 2.0
    result = select(cells, Budget("latency", 5.0, absolute=True), "global", costs, Fit.of([(whole - 2.0, whole)]))
    assert result.reached
    assert result.before == pytest.approx(whole)
    assert result.after == pytest.approx(costs.total(counts_of(result)) + 2.0)
    assert result.after <= 5.0
    assert " ms (at most 5 ms asked for)" in result.sentence


def test_what_a_round_measured_rescales_the_next_one() -> None:
    # The table promised 10 → 6, the machine went 14 → 12: half as much, and 9 ms that no cell can change.
    fit = Fit.of([(10.0, 14.0), (6.0, 12.0)])
    assert (fit.scale, fit.rest) == (0.5, 9.0)
    assert fit.whole(10.0) == 14.0
    assert fit.whole(2.0) == 10.0


def test_a_whole_that_is_cheaper_than_its_nodes_scales_them_down() -> None:
    assert Fit.of([(10.0, 8.0)]) == Fit(0.8, 0.0)


def test_a_round_without_gain_does_not_ask_for_everything() -> None:
    assert Fit.of([(10.0, 14.0), (6.0, 14.5)]).scale == 0.1


def test_rounds_of_planning_and_measuring_end_within_the_budget() -> None:
    sizes = [256, 256, 256]
    cells = random_cells(np.random.default_rng(1), sizes, unit=16)
    costs = chain(sizes, area=1e-4)

    def machine(counts: np.ndarray) -> float:
        return 3.0 + 0.7 * costs.total(counts)

    points = [(costs.total(costs.sizes), machine(costs.sizes))]
    limit = 0.6 * points[0][1]
    for _ in range(3):
        result = select(cells, Budget("latency", limit, absolute=True), "global", costs, Fit.of(points))
        points.append((costs.total(counts_of(result)), machine(counts_of(result))))
    assert result.after == pytest.approx(points[-1][1], rel=1e-6)
    assert 0.95 * limit < points[-1][1] <= limit * (1 + 1e-6)


# Hulls


@pytest.mark.parametrize("seed", range(10))
def test_the_hull_lies_below_every_point_and_its_slopes_do_not_fall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.integers(1, 5, 12))
    y = np.cumsum(rng.random(12))
    slopes = hull_slopes(x, y)
    assert (np.diff(slopes) >= 0).all()
    hull = y[0] + np.concatenate(([0.0], np.cumsum(slopes * np.diff(x))))
    assert (hull <= y + 1e-12).all()
    assert hull[-1] == pytest.approx(y[-1])
    # The greatest convex function below the points: at each point the least chord over it, by brute force.
    for i in range(1, 11):
        chords = [
            y[a] + (y[b] - y[a]) * (x[i] - x[a]) / (x[b] - x[a]) for a in range(i + 1) for b in range(i, 12) if a < b
        ]
        assert hull[i] == pytest.approx(min(chords))


def test_steps_of_infinite_loss_are_never_taken() -> None:
    steps = steps_of([np.array([0, 1, 2])], [np.array([0.0, 1.0, np.inf])])
    assert steps.prefix(10).tolist() == [1]


def test_six_hundred_wide_cells_are_selected_with_few_questions() -> None:
    # Not timed here; every move may ask for a handful of neighbours only, or this would not end.
    sizes = [3000] * 600
    allowed = allowed_counts(3000, 16)
    removed = np.linspace(0, 1, 3001)
    rng = np.random.default_rng(0)
    cells = [CellCurve(f"c{i}", 3000, rng.exponential() * removed ** rng.uniform(1.2, 3), allowed) for i in range(600)]
    result = select(cells, Budget("macs", 0.8), "global", chain(sizes))
    assert result.reached
    assert 0.7999 <= result.after / result.before <= 0.8
