"""Budgets, scopes and limits, measured on the model that comes out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import feeds, graph
from pruning import CONFIG, studied

from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import normalize
from onnxcomp.ops.targets import TARGETS
from onnxcomp.passes.base import Context
from onnxcomp.passes.prune import latency_choice
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.costs import macs_by_node, multiplications
from onnxcomp.passes.prune.prune import Prune

RESIDUAL = """g (float[N,3,8,8] x, float[16,3,3,3] w1, float[24,16,3,3] w2, float[16,24,1,1] w3, float[10,16,1,1] w4)
=> (float[N,10,8,8] y) {
    [stem] a = Conv<pads = [1,1,1,1]>(x, w1)
    [inner] c = Conv<pads = [1,1,1,1]>(a, w2)
    [outer] e = Conv(c, w3)
    [skip] s = Add(e, a)
    [head] y = Conv(s, w4)
}"""

NET = """g (float[N,3,10,10] x, float[32,3,3,3] w1, float[32] wb1, float[48,32,3,3] w2, float[48] wb2,
    float[48,48,3,3] w3, float[48] wb3, float[32,48,1,1] w4, float[32] wb4, float[64,32] w5, float[10,64] w6)
    => (float[N,10] y) {
    [stem] a = Conv<pads = [1,1,1,1]>(x, w1, wb1)
    b = Relu(a)
    [wide] c = Conv(b, w2, wb2)
    d = Relu(c)
    [wider] e = Conv<pads = [1,1,1,1]>(d, w3, wb3)
    f = Relu(e)
    [narrow] g = Conv(f, w4, wb4)
    h = Relu(g)
    i = GlobalAveragePool(h)
    j = Flatten(i)
    [hidden] k = Gemm<transB = 1>(j, w5)
    l = Relu(k)
    [head] y = Gemm<transB = 1>(l, w6)
}"""
SHAPE = {"x": (1, 3, 10, 10)}
CELLS = ("stem", "wide", "wider", "narrow", "hidden")


@pytest.fixture(scope="module")
def net():
    return normalize(graph(NET)).model


def prune(model, target="cpu-vnni", only=(), exclude=(), **values):
    ctx = replace(Context(None, TARGETS[target], CONFIG, SHAPE, feeds(model, 1)[0]), only=only, exclude=exclude)
    step = Prune(PruneConfig(**values))
    plan = step.plan(model, ctx)
    return plan, step.apply(model, plan, ctx)


def kept(plan):
    return {cell.name: len(cell.keep) for cell in plan.cells}


@pytest.mark.parametrize("scope", ["global", "uniform", "isomorphic"])
@pytest.mark.parametrize("share", [0.7, 0.4, 0.15])
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_what_remains_as_counted_afterwards_is_within_the_budget_and_near_it(net, kind, share, scope):
    plan, result = prune(net, **{kind: share}, scope=scope, round_to=1)
    field = {"macs": "macs", "params": "parameters"}[kind]
    measured = getattr(cost(result, SHAPE), field) / getattr(cost(net, SHAPE), field)
    assert measured <= share + 1e-9
    assert measured > share - 0.06
    assert getattr(plan, kind) == pytest.approx(measured, abs=2e-3)
    assert plan.reached


@pytest.mark.parametrize("scope", ["global", "uniform", "isomorphic"])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8])
def test_a_ratio_is_a_share_of_all_channels_and_never_more(net, ratio, scope):
    plan, _ = prune(net, ratio=ratio, scope=scope, round_to=1)
    total = sum(c.size for c in plan.cells)
    gone = total - sum(kept(plan).values())
    assert total * ratio - len(plan.cells) <= gone <= total * ratio + 1e-9


def test_uniform_takes_the_same_share_of_every_cell_and_global_does_not(net):
    plan, _ = prune(net, ratio=0.5, scope="uniform", round_to=1)
    assert kept(plan) == {"stem": 16, "wide": 24, "wider": 24, "narrow": 16, "hidden": 32}
    other, _ = prune(net, ratio=0.5, scope="global", round_to=1)
    assert kept(other) != kept(plan)
    assert sum(kept(other).values()) == sum(kept(plan).values())


def test_a_budget_of_everything_changes_nothing(net):
    plan, _ = prune(net, macs=1.0)
    assert not plan.changes()
    plan, _ = prune(net, ratio=0.0)
    assert not plan.changes()


def test_a_budget_that_can_not_be_met_says_so_and_goes_as_far_as_it_can(net):
    plan, _ = prune(net, macs=0.3, max_ratio=0.1, round_to=1)
    assert not plan.reached
    assert "no more" in plan.budget
    assert all(len(c.keep) == int(np.ceil(c.size * 0.9 - 1e-9)) for c in plan.cells)


@pytest.mark.parametrize("unit", [4, 5, 8])
def test_kept_channels_are_multiples_of_what_was_asked_for(net, unit):
    plan, result = prune(net, macs=0.4, round_to=unit, scope="uniform")
    cut = {n: k for n, k in kept(plan).items() if k < {c.name: c.size for c in plan.cells}[n]}
    assert len(cut) >= 3
    assert all(k % unit == 0 for k in cut.values())
    widths = [result.graph.initializers[f"w{i}"].shape[0] for i in range(1, 6)]
    assert widths == [kept(plan)[name] for name in CELLS]


@pytest.mark.parametrize(("target", "unit"), [("cpu-vnni", 16), ("cpu-avx2", 8)])
def test_by_default_kept_channels_suit_the_target(net, target, unit):
    plan, _ = prune(net, target, macs=0.4)
    cut = [len(c.keep) for c in plan.cells if c.cut]
    assert cut
    assert all(k % unit == 0 for k in cut)
    assert TARGETS[target].channel_multiple == unit


@pytest.mark.parametrize("most", [0.25, 0.5])
def test_no_cell_loses_more_than_max_ratio(net, most):
    plan, _ = prune(net, ratio=most * 0.9, max_ratio=most, round_to=1)
    assert any(c.cut for c in plan.cells)
    assert all(c.size - len(c.keep) <= c.size * most for c in plan.cells)


def test_ratios_by_glob_come_before_the_budget(net):
    plan, _ = prune(net, ratios={"wid*": 0.25, "hidden": 0.5}, round_to=1)
    assert kept(plan) == {"stem": 32, "wide": 36, "wider": 36, "narrow": 32, "hidden": 32}
    plan, _ = prune(net, ratios={"wid*": 0.0}, ratio=0.3, scope="uniform", round_to=1)
    assert (kept(plan)["wide"], kept(plan)["stem"]) == (48, 23)


def test_the_first_of_several_globs_that_match_holds(net):
    plan, _ = prune(net, ratios={"wider": 0.5, "wid*": 0.25}, round_to=1)
    assert (kept(plan)["wide"], kept(plan)["wider"]) == (36, 24)


def test_an_excluded_node_keeps_every_byte_of_its_weights(net):
    plan, result = prune(net, macs=0.6, exclude=("wider",), round_to=1)
    for name in ("w3", "wb3"):
        before, after = (m.graph.initializers[name].const_value.tobytes() for m in (net, result))
        assert before == after
    assert cost(result, SHAPE).macs < cost(net, SHAPE).macs
    sizes = kept(plan)
    assert (sizes["wide"], sizes["wider"]) == (48, 48), "its inputs and its outputs"
    assert any("left out" in c.why.lower() or "exclude" in c.why.lower() for c in plan.cells)


def test_an_operator_type_can_be_excluded(net):
    plan, result = prune(net, ratio=0.3, exclude=("Gemm",), round_to=1)
    for name in ("w5", "w6"):
        assert (
            net.graph.initializers[name].const_value.tobytes() == result.graph.initializers[name].const_value.tobytes()
        )
    assert kept(plan)["hidden"] == 64


@pytest.mark.parametrize("scope", ["global", "uniform", "isomorphic"])
def test_a_ratio_is_one_of_the_channels_that_may_be_touched(net, scope):
    plan, _ = prune(net, ratio=0.25, only=("wide", "hidden"), round_to=1, scope=scope)
    assert kept(plan)["wide"] + kept(plan)["hidden"] == (48 + 64) * 3 // 4
    assert [kept(plan)[name] for name in ("stem", "wider", "narrow")] == [32, 48, 32]
    plan, _ = prune(net, ratio=0.5, exclude=("hidden", "head"), round_to=1, scope=scope)
    assert sum(kept(plan).values()) == 64 + 32 + (32 + 48 + 48) // 2, "hidden reads narrow, which stays too"


def test_when_everything_is_left_out_nothing_is_cut(net):
    plan, _ = prune(net, ratio=0.5, exclude=("*",))
    assert not plan.changes()
    assert {c.name for c in plan.cells} == set(CELLS)


def test_only_what_was_named_loses_outputs(net):
    plan, _ = prune(net, ratio=0.1, only=("wide", "hidden"), round_to=1)
    assert {c.name for c in plan.cells if c.cut} <= {"wide", "hidden"}
    assert any(c.cut for c in plan.cells)
    assert not any(c.why == "" for c in plan.cells if not c.cut)


def test_a_latency_budget_is_met_as_measured_and_reported(net, monkeypatch):
    """The clock is the number of MACs: a model of half the MACs takes half the time."""

    def clock(one, other, ctx):
        return tuple(cost(m, SHAPE).macs / 1e6 for m in (one, other))

    monkeypatch.setattr(latency_choice, "_measured", clock)
    monkeypatch.setattr(latency_choice, "NodeTable", lambda config: None)
    monkeypatch.setattr(latency_choice, "latency_model", _by_macs)
    plan, result = prune(net, latency=0.5, round_to=1)
    assert plan.reached
    assert cost(result, SHAPE).macs <= 0.5 * cost(net, SHAPE).macs
    assert plan.measured["original"] == pytest.approx(cost(net, SHAPE).macs / 1e6)
    assert any(value == pytest.approx(cost(result, SHAPE).macs / 1e6) for value in plan.measured.values())


def test_when_no_cut_is_faster_a_latency_budget_cuts_nothing_and_says_why(net, monkeypatch):
    monkeypatch.setattr(latency_choice, "_measured", lambda one, other, ctx: (1.0, 1.0 if one is other else 1.3))
    monkeypatch.setattr(latency_choice, "NodeTable", lambda config: None)
    monkeypatch.setattr(latency_choice, "latency_model", _by_macs)
    plan, _ = prune(net, latency=0.5, round_to=1)
    assert not plan.changes()
    assert not plan.reached
    assert "no cut that was tried is faster" in plan.budget


def test_a_latency_that_the_original_has_already_cuts_nothing_and_is_met(net, monkeypatch):
    monkeypatch.setattr(latency_choice, "_measured", lambda one, other, ctx: (1.0, 1.0))
    monkeypatch.setattr(latency_choice, "NodeTable", lambda config: None)
    monkeypatch.setattr(latency_choice, "latency_model", _by_macs)
    plan, _ = prune(net, latency="8ms", round_to=1)
    assert not plan.changes()
    assert plan.reached
    assert "meets it already" in plan.budget


def _by_macs(model, shapes, axes, sizes, table, unit):
    """A cost model in milliseconds where a million elements of weights take one."""
    from types import SimpleNamespace

    from onnxcomp.passes.prune.channel_costs import CostModel, NodeCost

    weights = {name: v.const_value.shape.numpy() for name, v in model.graph.initializers.items() if name[1:].isdigit()}
    nodes = [
        NodeCost(name, float(np.prod(shape)) / 1e4, tuple(a for a in axes[name] if a is not None))
        for name, shape in weights.items()
    ]
    return SimpleNamespace(costs=CostModel(nodes, sizes))


def test_where_two_patterns_meet_in_a_residual_sum_the_smaller_share_holds() -> None:
    model = normalize(graph(RESIDUAL)).model
    items = feeds(model, 1, batch=2)
    shapes = {name: array.shape for name, array in items[0].items()}
    ctx = Context(None, TARGETS["cpu-vnni"], CONFIG, shapes, items[0])
    plans = [
        Prune(PruneConfig(ratios=ratios, round_to=1)).plan(model, ctx)
        for ratios in ({"stem": 0.5, "outer": 0.25}, {"outer": 0.25, "stem": 0.5}, {"stem": 0.5, "outer": 0})
    ]
    kept = [next(len(c.keep) for c in plan.cells if c.name == "stem") for plan in plans]
    assert kept == [12, 12, 16]


def test_macs_are_counted_where_shapes_are_known_from_running_only() -> None:
    text = """g (float[N,6,16] x, float[16,32] w1, float[32,8] w2) => (float[N,6,8] y) {
        [first] a = MatMul(x, w1)
        b = com.microsoft.QuickGelu(a)
        [second] y = MatMul(b, w2)
    }"""
    model, found = studied(graph(text), {"x": np.zeros((2, 6, 16), np.float32)})
    bound = cost(model, {"x": (2, 6, 16)})
    assert bound.macs_unknown or bound.by_node.get("second") is None, "inference does not know this operator"
    assert macs_by_node(model, found.shapes) == {"first": 2 * 6 * 16 * 32, "QuickGelu_b": 0, "second": 2 * 6 * 32 * 8}
    total = multiplications(model, found)
    assert total.total(total.sizes) == 2 * 6 * 16 * 32 + 2 * 6 * 32 * 8
