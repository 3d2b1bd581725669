"""The pass from end to end: plan, apply, prove, relax; on networks whose layers really are of a low rank."""

from __future__ import annotations

import doctest
import json

import numpy as np
import onnx_ir as ir
import pytest
from graphs import context, cosine, feeds, graph, reader, run
from pydantic import ValidationError

from onnxcomp.calibration.second_moments import gather
from onnxcomp.errors import PlanError, UsageError
from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import serialize
from onnxcomp.passes.base import Context, Evidence
from onnxcomp.passes.factorize import factorize as the_pass
from onnxcomp.passes.factorize import known
from onnxcomp.passes.factorize import plan as plans
from onnxcomp.passes.factorize.config import FactorizeConfig
from onnxcomp.passes.factorize.factorize import Factorize
from onnxcomp.passes.factorize.plan import FactorizePlan
from onnxcomp.passes.factorize.sites import find_sites
from onnxcomp.passes.factorize.spectrum import spectrum, wanted
from onnxcomp.report.reasons import Reason
from onnxcomp.runtime.session import SessionConfig

NET = """g (float[N,8,10,10] x, float[64,8,3,3] w1, float[64] wb1, float[64,64,3,3] w2, float[64] wb2,
           float[96,64] w3, float[96] wb3, float[96,96] w4, float[10,96] w5) => (float[N,10] y) {
    [stem] a = Conv<pads = [1,1,1,1]>(x, w1, wb1) b = Relu(a)
    [body] c = Conv<pads = [1,1,1,1]>(b, w2, wb2) d = Relu(c)
    e = GlobalAveragePool(d) f = Flatten(e)
    [wide] h = Gemm<transB = 1>(f, w3, wb3) i = Relu(h)
    [deep] j = Gemm<transB = 1>(i, w4) k = Relu(j)
    [head] y = Gemm<transB = 1>(k, w5)
}"""


def low(rows: int, columns: int, rank: int, seed: int, noise: float = 0.02) -> np.ndarray:
    """A matrix of about this rank."""
    rng = np.random.default_rng(seed)
    product = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns)) / np.sqrt(rank * columns)
    return (product + noise * rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)


@pytest.fixture(scope="module")
def net() -> ir.Model:
    model = graph(NET, w2=low(64, 576, 12, 1).reshape(64, 64, 3, 3), w3=low(96, 64, 12, 2), w4=low(96, 96, 12, 3))
    return normalize(model).model


@pytest.fixture(scope="module")
def items(net: ir.Model) -> list[dict[str, np.ndarray]]:
    return feeds(net, 48, batch=2)


@pytest.fixture(scope="module")
def held(net: ir.Model) -> list[dict[str, np.ndarray]]:
    return feeds(net, 12, batch=2, seed=9)


def step(**values: object) -> Factorize:
    return Factorize(FactorizeConfig.model_validate({"round_to": 8, "allow_slower": True} | values))


def ran(model: ir.Model, ctx: Context, **values: object) -> tuple[FactorizePlan, ir.Model]:
    own = step(**values)
    plan = own.plan(model, ctx)
    result = own.apply(model, plan, ctx)
    proof = own.prove(model, result, plan, ctx)
    assert proof.passed, proof.sentences
    return plan, result


def error(model: ir.Model, other: ir.Model, items: list[dict[str, np.ndarray]]) -> float:
    pairs = [(run(model, f)[0], run(other, f)[0]) for f in items]
    wanted = np.concatenate([a for a, _ in pairs])
    return float(((wanted - np.concatenate([b for _, b in pairs])) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum())


def test_layers_of_low_rank_are_found_and_hardly_anything_is_lost(net, items, held) -> None:
    plan, result = ran(net, context(items), energy=0.98)
    ranks = {layer.name: layer.rank for layer in plan.layers}
    assert ranks["body"] in (8, 16, 24)
    assert ranks["deep"] in (8, 16, 24)
    assert cost(result).parameters < 0.5 * cost(net).parameters
    assert 1e-9 < error(net, result, held) < 0.05
    assert cosine(run(net, held[0])[0], run(result, held[0])[0]) > 0.99


def test_a_report_holds_a_few_ranks_of_each_spectrum_and_the_chosen_one_among_them(net, items) -> None:
    plan = step(energy=0.98).plan(net, context(items))
    for layer, shown in zip(plan.layers, plan.factored(), strict=True):
        full = min(layer.out, layer.columns)
        assert len(shown.ranks) == len(shown.energies) <= 48
        assert (shown.ranks[0], shown.ranks[-1]) == (1, full)
        assert list(shown.ranks) == sorted(set(shown.ranks))
        assert [layer.energies[r - 1] for r in shown.ranks] == list(shown.energies)
        if layer.rank is not None:
            assert dict(zip(shown.ranks, shown.energies, strict=True))[layer.rank] == pytest.approx(
                layer.energy, abs=2e-6
            )
    assert sum(layer.rank is not None for layer in plan.layers) >= 2
    assert doctest.testmod(plans).failed == 0


@pytest.mark.parametrize("budget", [{"params": 0.5}, {"macs": 0.5}])
def test_a_budget_is_met_by_the_model_that_comes_out(net, items, budget) -> None:
    plan, result = ran(net, context(items), **budget)
    shapes = {"x": items[0]["x"].shape}
    before, after = cost(net, shapes), cost(result, shapes)
    assert plan.reached
    if "params" in budget:
        assert after.parameters <= 0.505 * before.parameters  # biases that layers got
        assert plan.params == pytest.approx(after.parameters / before.parameters, abs=0.005)
    else:
        assert after.macs <= 0.5 * before.macs
        assert plan.macs == pytest.approx(after.macs / before.macs, abs=1e-6)


def test_the_refit_loses_less_than_the_factors_alone_and_both_less_than_the_plain_svd(net, items, held) -> None:
    errors = {
        (method, refit): error(net, ran(net, context(items), params=0.25, method=method, refit=refit)[1], held)
        for method, refit in [("covariance", "least-squares"), ("covariance", "none"), ("svd", "none")]
    }
    assert errors["covariance", "least-squares"] < errors["covariance", "none"] < errors["svd", "none"]


def test_without_data_the_svd_of_the_weights_decides_and_a_spatial_split_may_win(items) -> None:
    """A weight that is an outer product of a column and a row kernel: of rank 1 in space, of full rank in channels."""
    rng = np.random.default_rng(0)
    tall, wide = rng.standard_normal((2, 8, 64, 3))
    w = np.einsum("rch,rnw->nchw", tall, wide).astype(np.float32) / 30
    model = graph(
        """g (float[N,64,10,10] x, float[64,64,3,3] w, float[64] wb) => (float[N,64,10,10] y) {
            [n] y = Conv<pads = [1,1,1,1]>(x, w, wb) }""",
        w=w,
    )
    feed = feeds(model, 3)
    ctx = context(feed)
    ctx = Context(None, ctx.target, ctx.session, ctx.shapes, ctx.feed)
    plan, result = ran(model, ctx, params=0.3)
    assert plan.method == "svd"
    assert plan.refit == "none"
    assert [layer.form for layer in plan.layers] == ["spatial"]
    (shown,) = plan.factored()
    assert dict(zip(shown.ranks, shown.energies, strict=True))[shown.rank] == pytest.approx(shown.energy, abs=2e-6)
    assert error(model, result, feed) < 1e-8
    assert [n.op_type for n in result.graph] == ["Conv", "Conv"]


def test_the_same_plan_model_and_feeds_give_the_same_bytes(net, items, tmp_path) -> None:
    ctx = context(items)
    plan = step(macs=0.5).plan(net, ctx)
    again = FactorizePlan.model_validate_json(plan.model_dump_json())
    assert again == plan
    one, two = (serialize(step().apply(net, p, ctx)) for p in (plan, again))
    assert one == two
    assert one != serialize(net)


def test_the_order_of_the_feeds_does_not_change_the_ranks(net, items) -> None:
    one, two = (step(macs=0.5).plan(net, context(order)) for order in (items, items[::-1]))
    assert [layer.rank for layer in one.layers] == [layer.rank for layer in two.layers]
    np.testing.assert_allclose(one.layers[1].energies, two.layers[1].energies, atol=0.05)


def test_a_rank_that_was_edited_by_hand_is_what_comes_out(net, items) -> None:
    ctx = context(items)
    data = json.loads(step(energy=0.98).plan(net, ctx).model_dump_json())
    for layer in data["layers"]:
        layer["rank"] = 20 if layer["name"] == "body" else None
    result = step().apply(net, FactorizePlan.model_validate(data), ctx)
    assert tuple(result.graph.initializers["w2.first"].shape) == (20, 64, 3, 3)
    assert "w4" in result.graph.initializers


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 65}, "rank 65 is more than"),
        ({"rank": 0}, "greater than or equal to 1"),
        ({"form": "diagonal"}, "form"),
        ({"ranks": 3}, "extra"),
    ],
)
def test_a_plan_edited_to_nonsense_is_refused(net, items, change, words) -> None:
    data = json.loads(step(energy=0.98).plan(net, context(items)).model_dump_json())
    next(layer for layer in data["layers"] if layer["name"] == "body").update(change)
    with pytest.raises(ValidationError, match=words):
        FactorizePlan.model_validate(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"name": "nobody"}, "nobody"), ({"out": 65}, "65 × 576"), ({"form": "spatial", "rank": 999}, "rank 999")],
)
def test_a_plan_for_what_is_not_there_is_refused(net, items, change, words) -> None:
    ctx = context(items)
    data = json.loads(step(energy=0.98).plan(net, ctx).model_dump_json())
    next(layer for layer in data["layers"] if layer["name"] == "body").update(change)
    with pytest.raises(PlanError, match=words):
        step().apply(net, FactorizePlan.model_validate(data), ctx)


def test_a_layer_twice_in_a_plan_is_refused(net, items) -> None:
    ctx = context(items)
    plan = step(energy=0.98).plan(net, ctx)
    doubled = plan.model_copy(update={"layers": (*plan.layers, plan.layers[0])})
    with pytest.raises(PlanError, match="twice"):
        step().apply(net, doubled, ctx)


def test_few_samples_are_said_and_regularised_more(net) -> None:
    few = feeds(net, 2)
    plan = step(params=0.3).plan(net, context(few))
    deep = next(layer for layer in plan.layers if layer.name == "deep")
    assert deep.rank is not None
    assert deep.alpha == pytest.approx(0.1 * 2 * deep.rank / 2)
    assert any("FEW SAMPLES" in doubt for doubt in plan.warnings())
    body = next(layer for layer in plan.layers if layer.name == "body")
    assert body.alpha == 0.1  # 200 positions


def test_what_needs_data_says_so(net, items) -> None:
    ctx = context(items)
    bare = Context(None, ctx.target, ctx.session, ctx.shapes, ctx.feed)
    for values in ({"method": "covariance"}, {"method": "asvd"}, {"refit": "least-squares"}):
        with pytest.raises(UsageError, match="calibration data"):
            step(energy=0.9, **values).plan(net, bare)
    with pytest.raises(UsageError, match="without data"):
        step().apply(net, step(energy=0.98).plan(net, ctx), bare)


def test_relaxing_gives_the_most_costly_layers_back(net, items) -> None:
    plan = step(params=0.3).plan(net, context(items))
    cut = [layer for layer in plan.layers if layer.rank is not None]
    assert len(cut) > 1
    relaxed = step().relax(plan, Evidence("fidelity", error=0.1, allowed=0.08))
    assert relaxed is not None
    worst = max(cut, key=lambda layer: layer.loss).name
    given = {layer.name: layer for layer in relaxed.layers}
    assert given[worst].rank is None
    assert given[worst].code is Reason.RELAXED
    assert any(skip.node == worst and skip.code is Reason.RELAXED for skip in relaxed.left_alone())
    while relaxed is not None:
        last, relaxed = relaxed, step().relax(relaxed, Evidence("latency"))
    assert len(last.changes()) >= 1


def test_what_is_told_of_a_relaxed_plan_is_told_of_its_own_ranks(net) -> None:
    """Of few samples the wide layers only; when those are whole again, neither the warning nor the prediction stays."""
    ctx = context(feeds(net, 2))
    own = step(params=0.3)
    plan = own.plan(net, ctx)
    assert "FEW SAMPLES" in plan.warnings()[0]
    whole = {x.name: x.model_copy(update={"rank": None}) for x in plan.layers if x.op_type == "Gemm"}
    relaxed = plan.with_layers(whole)
    assert relaxed.warnings() == ()
    result = own.apply(net, relaxed, ctx)
    told = next(s for s in own.prove(net, result, relaxed, ctx).sentences if s.startswith("predicted"))
    remain = cost(result).parameters / cost(net).parameters
    assert f"{remain:.0%}" == f"{float(told.split('and ')[1].split('%')[0]) / 100:.0%}"
    assert abs(remain - plan.params) > 0.02


def test_a_pair_that_computes_something_else_is_not_proved(net, items, monkeypatch) -> None:
    ctx = context(items)
    own = step(energy=0.98)
    plan = own.plan(net, ctx)
    real = the_pass.split

    def off(*arguments: object) -> ir.Model:
        result = real(*arguments)
        value = result.graph.initializers["w2.second"]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.01), name="w2.second")
        return result

    monkeypatch.setattr(the_pass, "split", off)
    proof = own.prove(net, net, plan, ctx)
    assert not proof.passed
    assert "differs from the product of its factors" in proof.sentences[0]


def test_another_budget_of_the_same_pass_does_not_watch_the_model_again(net, items, monkeypatch) -> None:
    own = step(macs=0.6)
    ctx = context(items)
    own.plan(net, ctx)
    monkeypatch.setattr(known, "gather", None)
    monkeypatch.setattr(the_pass, "measured_losses", None)
    other = own.with_macs(0.4)
    assert other.plan(net, ctx).macs < 0.41


def test_moments_that_do_not_fit_together_are_gathered_in_turns(net, items, monkeypatch) -> None:
    whole = step(energy=0.98).plan(net, context(items))
    calls = []
    real = known.gather
    monkeypatch.setattr(known, "gather", lambda *a, **k: calls.append(len(a[1])) or real(*a, **k))
    monkeypatch.setattr(known, "MOMENT_BYTES", 100_000)
    parts = step(energy=0.98).plan(net, context(items))
    assert len(calls) > 1
    assert [layer.rank for layer in parts.layers] == [layer.rank for layer in whole.layers]


def test_tied_layers_get_one_pair_of_factors() -> None:
    model = normalize(
        graph(
            """g (float[N,64] x, float[64,64] w, float[64] wb1, float[64] wb2) => (float[N,64] y) {
                [a] p = MatMul(x, w) q = Add(p, wb1) r = Relu(q) [b] s = MatMul(r, w) y = Add(s, wb2) }""",
            w=low(64, 64, 6, 5),
        )
    ).model
    items = feeds(model, 40, batch=4)
    plan, result = ran(model, context(items), energy=0.98)
    assert [layer.nodes for layer in plan.layers] == [("a", "b")]
    assert plan.changes() == {"a", "b"}
    assert "w.first" in result.graph.initializers
    assert error(model, result, feeds(model, 5, batch=4, seed=8)) < 0.05


def test_the_means_of_tied_layers_are_those_of_what_they_multiply_whatever_their_biases() -> None:
    model = graph(
        """g (float[N,24] x, float[24,24] w, float[24] wb1, float[24] wb2) => (float[N,24] y) {
            [a] p = MatMul(x, w) q = Add(p, wb1) r = Relu(q) [b] s = MatMul(r, w) y = Add(s, wb2) }""",
        wb1=np.full(24, 3, np.float32),
        wb2=np.full(24, -5, np.float32),
    )
    items = feeds(model, 50, batch=8)
    (site,), _ = find_sites(model, (), ())
    want = wanted(site, "covariance")
    assert want is not None
    gram = gather(model, {"w": want}, reader(items), SessionConfig())["w"]
    weight = site.views[0].matrix()[0]
    x = np.concatenate([item["x"] for item in items]).astype(np.float64)
    rows = np.concatenate([x, np.maximum(x @ weight.T + 3, 0)])
    found = spectrum(site, "covariance", gram, 0.0)
    np.testing.assert_allclose(found.mean[0], weight @ rows.mean(axis=0), atol=1e-4)
    values = np.linalg.eigvalsh(np.cov(rows @ weight.T, rowvar=False, bias=True))[::-1]
    np.testing.assert_allclose(found.shares, values / values.sum(), atol=1e-5)


def test_a_model_is_factorised_twice() -> None:
    model = normalize(
        graph(
            """g (float[N,256] x, float[256,256] w1, float[256] wb, float[256,256] w2) => (float[N,256] y) {
                [a] p = Gemm(x, w1, wb) q = Relu(p) [b] y = Gemm(q, w2) }""",
            w1=low(256, 256, 40, 1),
            w2=low(256, 256, 40, 2),
        )
    ).model
    items = feeds(model, 60, batch=4)
    _, once = ran(model, context(items), energy=0.99)
    plan, twice = ran(once, context(items), energy=0.3, round_to=1)
    assert {"a", "b"} <= plan.changes()
    names = [node.name for node in twice.graph]
    assert len(names) == len(set(names)) > len(once.graph)
    assert run(twice, items[0])[0].shape == run(model, items[0])[0].shape


def test_dynamic_lengths_stay_dynamic() -> None:
    model = normalize(
        graph(
            """g (float[N,T,64] x, float[64,96] w1, float[96] wb, float[96,64] w2) => (float[N,T,64] y) {
                [a] p = MatMul(x, w1) q = Add(p, wb) r = Relu(q) [b] y = MatMul(r, w2) }""",
            w1=low(64, 96, 8, 1),
            w2=low(96, 64, 8, 2),
        )
    ).model
    rng = np.random.default_rng(0)
    items = [{"x": rng.standard_normal((1, n, 64)).astype(np.float32)} for n in (3, 5, 7, 9) * 6]
    _, result = ran(model, context(items), energy=0.97)
    longer = {"x": rng.standard_normal((2, 31, 64)).astype(np.float32)}
    assert run(result, longer)[0].shape == (2, 31, 64)
    assert 0.98 < cosine(run(model, longer)[0], run(result, longer)[0]) < 1.0
