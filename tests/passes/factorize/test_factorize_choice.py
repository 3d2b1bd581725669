"""How a budget is spent: on menus whose costs and losses are known, with a clock that is made of arithmetic."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from graphs import context, feeds, graph

from onnxcomp.errors import ModelError
from onnxcomp.model.normalize import normalize
from onnxcomp.model.shapes import refresh
from onnxcomp.passes.factorize import choice as choices
from onnxcomp.passes.factorize.choice import Chooser
from onnxcomp.passes.factorize.costs import Menu, Option, PairTimes, menu
from onnxcomp.passes.factorize.ranks import break_even, worthwhile
from onnxcomp.passes.factorize.sites import find_sites
from onnxcomp.report.reasons import Reason
from onnxcomp.runtime.cache import Cache
from onnxcomp.runtime.node_latency import NodeTable
from onnxcomp.runtime.node_spec import NodeSpec
from onnxcomp.runtime.session import SessionConfig

NET = """g (float[N,256] x, float[256,256] w1, float[256,512] w2, float[512,256] w3) => (float[N,256] y) {
    [a] p = MatMul(x, w1) [b] q = MatMul(p, w2) [c] y = MatMul(q, w3) }"""
SHAPES = {"x": (4, 256), "p": (4, 256), "q": (4, 512), "y": (4, 256)}
MODEL = normalize(graph(NET)).model
refresh(MODEL)


def menus(unit: int = 16, forms: tuple[str, ...] = ("channels",)) -> list[Menu]:
    sites, skips = find_sites(MODEL, (), ())
    assert not skips
    macs = {"a": 4 * 256 * 256, "b": 4 * 256 * 512, "c": 4 * 512 * 256}
    return [menu(site, forms, unit, macs, SHAPES) for site in sites]  # type: ignore[arg-type]


def energies(found: list[Menu], decay: float = 20.0) -> dict[str, np.ndarray]:
    """1 − e^(−rank / decay), 1 for the whole."""
    return {
        m.site.name: np.array([1.0 if o.rank is None else 1 - np.exp(-o.rank / decay) for o in m.options])
        for m in found
    }


def losses(found: list[Menu], decay: float = 20.0) -> dict[str, np.ndarray]:
    return {name: 1 - kept for name, kept in energies(found, decay).items()}


def clock(overhead: float, per_million: float = 1.0) -> PairTimes:
    """Milliseconds of a node: an overhead, and what its products cost."""

    def timed(spec: NodeSpec, config: SessionConfig) -> float:
        ports = [port.shape for port in spec.inputs if port is not None]
        return overhead + per_million * prod(ports[0][:-1]) * prod(ports[1]) / 1e6

    return PairTimes(NodeTable(SessionConfig(), Cache(None), timed), SHAPES, 17)


def test_ranks_lie_below_break_even_and_are_multiples() -> None:
    assert break_even(256, 256) == 128
    assert worthwhile(128, 256, 16).tolist() == [16, 32, 48, 64, 80, 96]
    assert worthwhile(9.8, 10, 16).tolist() == [4]
    assert worthwhile(128, 256, 1).tolist() == list(range(1, 103))
    assert not len(worthwhile(2.0, 2, 16))


@pytest.mark.parametrize("form", ["channels", "spatial"])
def test_the_costs_of_an_option_are_those_of_the_nodes_that_are_written(form: str) -> None:
    """Counted on the rewritten graph, by the formulas for whole models."""
    from onnxcomp.model.cost import cost
    from onnxcomp.model.shapes import bind
    from onnxcomp.passes.factorize.forms import spatial_matrix
    from onnxcomp.passes.factorize.rewrite import Factors, split
    from onnxcomp.passes.factorize.spectrum import plain

    model = graph(
        """g (float[N,32,17,19] x, float[64,32,3,3] w) => (float[N,64,9,7] y) {
            [n] y = Conv<pads = [1,1,1,1], strides = [2,3]>(x, w) }"""
    )
    shapes = {"x": (2, 32, 17, 19), "y": (2, 64, 9, 7)}
    (site,), _ = find_sites(model, (), ())
    found = menu(site, [form], 16, {"n": cost(model, {"x": shapes["x"]}).macs}, shapes)  # type: ignore[list-item]
    assert len(found.options) > 1
    for index, option in enumerate(found.options[1:], 1):
        view = site.views[0]
        matrix = view.matrix() if form == "channels" else spatial_matrix(view)
        first, second, _ = plain(matrix).factors(matrix, option.rank or 0)
        made = Factors(option.form, first, second, np.zeros(view.shape[:2]))
        result = split(model, {"n": site}, {"n": made})
        bind(result, {"x": shapes["x"]})
        counted = cost(result)
        assert found.macs[index] == pytest.approx(counted.macs)
        assert found.params[index] == counted.parameters


def test_energy_takes_the_lowest_rank_that_keeps_it() -> None:
    found = menus()
    choice = Chooser(found, losses(found), None).by_energy(0.9, energies(found))
    assert {n: o.rank for n, o in choice.options.items()} == {"a": 48, "b": 48, "c": 48}
    assert 1 - np.exp(-48 / 20) >= 0.9 > 1 - np.exp(-32 / 20)
    assert choice.reached


def test_a_layer_whose_energy_needs_too_high_a_rank_stays_whole_and_says_so() -> None:
    found = menus()
    choice = Chooser(found, losses(found), None).by_energy(0.995, energies(found))
    assert choice.options["a"].rank is None
    assert choice.left["a"][0] is Reason.BREAK_EVEN
    assert "128" in choice.left["a"][1]
    assert choice.options["b"].rank == 112


@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_a_budget_is_met_at_no_more_loss_than_any_uniform_choice(share: float) -> None:
    found = menus()
    lost = losses(found)
    costs = [m.params for m in found]
    whole = float(sum(c[0] for c in costs))
    choice = Chooser(found, lost, None).by_cost("parameters", costs, whole, share)
    picked = [m.options.index(choice.options[m.site.name]) for m in found]
    assert sum(c[i] for c, i in zip(costs, picked, strict=True)) <= share * whole
    assert choice.reached
    loss = sum(lost[m.site.name][i] for m, i in zip(found, picked, strict=True))
    for rank in range(16, 97, 16):
        uniform = [next(i for i, o in enumerate(m.options) if o.rank == rank) for m in found]
        if sum(c[i] for c, i in zip(costs, uniform, strict=True)) <= share * whole:
            assert loss <= sum(lost[m.site.name][i] for m, i in zip(found, uniform, strict=True)) + 1e-12


def test_a_budget_out_of_reach_is_the_most_there_is_and_is_said() -> None:
    found = menus()
    costs = [m.macs for m in found]
    whole = float(sum(c[0] for c in costs))
    choice = Chooser(found, losses(found), None).by_cost("MACs", costs, whole, 0.01)
    assert not choice.reached
    assert "allows no more" in choice.sentence
    assert {o.rank for o in choice.options.values()} == {16}


def test_what_measures_slower_in_two_parts_stays_whole() -> None:
    """0.25 ms for each node, 0.26 for the products of a, twice that for b and c: two of a are slower at any rank."""
    found = menus()
    costs = [m.params for m in found]
    whole = float(sum(c[0] for c in costs))
    times = clock(overhead=0.25)
    choice = Chooser(found, losses(found), times).by_cost("parameters", costs, whole, 0.6)
    assert choice.options["a"].rank is None
    assert choice.left["a"][0] is Reason.SLOWER
    for name in ("b", "c"):
        option = choice.options[name]
        site = next(m.site for m in found if m.site.name == name)
        pair, one = times.of(site, option), times.of(site, Option("channels", None))
        assert pair is not None
        assert one is not None
        assert pair <= choices.FASTER * one
    assert any(key.startswith("b: channels") for key in choice.measured)


def test_a_layer_is_called_slower_only_where_its_ranks_are() -> None:
    """Of b the ranks up to 64 are faster: the energy asked for keeps it whole, or that nothing more is needed."""
    found = menus()
    by_energy = Chooser(found, losses(found), clock(overhead=0.25)).by_energy(0.99, energies(found))
    assert by_energy.left["b"][0] is Reason.SLOWER
    assert "ranks that keep 0.99" in by_energy.left["b"][1]
    costs = [m.params for m in found]
    whole = float(sum(c[0] for c in costs))
    lost = losses(found)
    lost["b"][1:] += 1e-3
    by_cost = Chooser(found, lost, clock(overhead=0.25)).by_cost("parameters", costs, whole, 0.75)
    assert by_cost.reached
    assert by_cost.left["b"] == (Reason.NOT_NEEDED, "the budget is met without factorising it")


def test_nodes_that_can_not_be_timed_are_not_factorised_where_speed_counts() -> None:
    def refused(spec: NodeSpec, config: SessionConfig) -> float:
        raise ModelError("no kernel")

    found = menus()
    times = PairTimes(NodeTable(SessionConfig(), Cache(None), refused), SHAPES, 17)
    costs = [m.params for m in found]
    choice = Chooser(found, losses(found), times).by_cost("parameters", costs, float(sum(c[0] for c in costs)), 0.6)
    assert not any(o.rank for o in choice.options.values())
    assert not choice.reached
    assert {code for code, _ in choice.left.values()} == {Reason.SLOWER}
    assert all("can't be timed" in why for _, why in choice.left.values())


def test_a_latency_is_planned_with_the_table_and_measured_on_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = menus()
    total = 4 * (256 * 256 + 2 * 256 * 512) / 1e6 + 3 * 0.001
    built: list[dict[str, Option]] = []

    def milliseconds() -> float:
        chosen = built[-1]
        return sum(clock(0.001).of(m.site, chosen[m.site.name]) or 0.0 for m in found) * 1.1  # fusions cost 10 % more

    monkeypatch.setattr(
        choices, "_measured", lambda one, other, ctx: (1.1 * total, 1.1 * total if one is other else milliseconds())
    )

    def build(chosen: dict[str, Option]) -> object:
        built.append(dict(chosen))
        return object()

    ctx = context(feeds(MODEL, 1, batch=4))
    choice = Chooser(found, losses(found), clock(0.001)).by_latency(0.5, MODEL, build, ctx)  # type: ignore[arg-type]
    assert choice.reached
    assert choice.measured["original"] == pytest.approx(1.1 * total)
    assert min(v for k, v in choice.measured.items() if k.startswith("round")) <= 0.55 * total
    assert any(o.rank for o in choice.options.values())


def test_a_latency_that_nothing_reaches_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "_measured", lambda one, other, ctx: (1.0, 1.0 if one is other else 1.4))
    found = menus()
    ctx = context(feeds(MODEL, 1, batch=4))
    choice = Chooser(found, losses(found), clock(0.001)).by_latency("0.4ms", MODEL, lambda c: MODEL, ctx)
    assert not choice.reached
    assert not any(o.rank for o in choice.options.values())
    assert "no choice that was tried is faster" in choice.sentence


def test_a_latency_that_the_original_has_already_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "_measured", lambda one, other, ctx: (1.0, 1.0))
    found = menus()
    ctx = context(feeds(MODEL, 1, batch=4))
    choice = Chooser(found, losses(found), clock(0.001)).by_latency("2ms", MODEL, lambda c: MODEL, ctx)
    assert choice.reached
    assert not any(o.rank for o in choice.options.values())
