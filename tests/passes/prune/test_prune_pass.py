"""The whole pass: with data and without, and with a rule that is wrong."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import context, feeds, graph, reader, run
from haste import hasten
from pruning import CONFIG, studied, zeroed

from onnxcomp.driver.jobs import prune
from onnxcomp.model.normalize import normalize
from onnxcomp.ops.attributes import int_attribute
from onnxcomp.ops.axes.relations import RULES, Contracted, Tied
from onnxcomp.ops.targets import TARGETS
from onnxcomp.passes.base import Context
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.prune import MAX_CULPRITS, Prune
from onnxcomp.passes.prune.rewrite import rewrite
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Verdict

NET = """g (float[N,3,8,8] x, float[16,3,3,3] w1, float[16] wb1, float[24,16,3,3] w2, float[24] wb2,
    float[16,24,1,1] w3, float[16] wb3, float[10,16] w4, float[10] wb4) => (float[N,10] y) {
    [stem] a = Conv<pads = [1,1,1,1]>(x, w1, wb1)
    b = Relu(a)
    [inner] c = Conv<pads = [1,1,1,1]>(b, w2, wb2)
    d = Relu(c)
    [outer] e = Conv(d, w3, wb3)
    [skip] s = Add(e, b)
    r = Relu(s)
    p = GlobalAveragePool(r)
    f = Flatten(p)
    [head] y = Gemm<transB = 1>(f, w4, wb4)
}"""


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def net():
    return normalize(graph(NET)).model


@pytest.fixture(scope="module")
def items(net):
    return feeds(net, 32, batch=4)


def without_data(model):
    feed = feeds(model, 1, batch=2)[0]
    return Context(None, TARGETS["cpu-vnni"], CONFIG, {k: v.shape for k, v in feed.items()}, feed)


def done(model, ctx, **values):
    step = Prune(PruneConfig(**{"ratio": 0.4, "round_to": 1, "scope": "uniform", **values}))
    plan = step.plan(model, ctx)
    result = step.apply(model, plan, ctx)
    return plan, result, step.prove(model, result, plan, ctx)


def error(a, b, items):
    pairs = [(run(a, f)[0].astype(np.float64), run(b, f)[0]) for f in items]
    return sum(((y - z) ** 2).sum() for y, z in pairs) / sum((y**2).sum() for y, _ in pairs)


@pytest.mark.parametrize("importance", ["l1", "wanda", "obs"])
def test_the_refit_reduces_the_error_on_feeds_that_it_never_saw(net, items, importance):
    fresh = feeds(net, 8, batch=4, seed=99)
    _, sliced, _ = done(net, context(items), importance=importance, refit="none")
    plan, fitted, proof = done(net, context(items), importance=importance)
    assert proof.passed
    assert plan.refit == "least-squares"
    assert [tuple(v.shape) for v in fitted.graph.initializers.values()] == [
        tuple(v.shape) for v in sliced.graph.initializers.values()
    ]
    assert error(net, fitted, fresh) < 0.7 * error(net, sliced, fresh)
    assert any("refitted" in s for s in proof.sentences)


def test_with_data_the_ranking_by_second_moments_beats_the_norm_of_the_weights(net, items):
    fresh = feeds(net, 8, batch=4, seed=99)
    by_norm = done(net, context(items), importance="l1")[1]
    by_moments = done(net, context(items), importance="obs")[1]
    assert error(net, by_moments, fresh) < error(net, by_norm, fresh)


def test_without_data_channels_are_ranked_by_weights_and_weights_are_only_sliced(net):
    plan, result, proof = done(net, without_data(net))
    assert proof.passed
    assert (plan.importance, plan.refit) == ("l1", "none")
    assert not any("refit" in s for s in proof.sentences)
    keep = plan.keep()
    w1 = net.graph.initializers["w1"].const_value.numpy()[keep["stem"]]
    np.testing.assert_array_equal(result.graph.initializers["w1"].const_value.numpy(), w1)


def test_the_sentence_of_a_refit_is_not_that_of_the_run_before(net, items):
    step, ctx = Prune(PruneConfig(ratio=0.4, round_to=1)), context(items)
    plan = step.plan(net, ctx)
    step.apply(net, plan, ctx)
    plain = plan.model_copy(update={"refit": "none"})
    proof = step.prove(net, step.apply(net, plain, ctx), plain, ctx)
    assert not any("refit" in s for s in proof.sentences)


def test_the_input_model_is_not_touched(net, items):
    before = ir.to_proto(net).SerializeToString(deterministic=True)
    done(net, context(items))
    assert ir.to_proto(net).SerializeToString(deterministic=True) == before


# Rules that are deliberately wrong. Each ties less than it should, or other channels than it should.


def conv_whose_outputs_are_mirrored(n):
    """Says that output o stands at the other end: every cut takes the wrong filters of the weight."""
    yield Tied((n.slot(0, 0), n.out(0)))
    yield Contracted((n.slot(0, 1), n.slot(1, 1)))
    size = n.shape(1)[0]
    yield Tied((n.slot(1, 0), n.out(1).at(np.arange(size)[::-1])))
    if n.given(2) is not None:
        yield Tied((n.slot(2, 0), n.out(1)))


def conv_whose_bias_is_not_tied(n):
    """Forgets the bias, which then keeps its length."""
    yield Tied((n.slot(0, 0), n.out(0)))
    yield Contracted((n.slot(0, 1), n.slot(1, 1)))
    yield Tied((n.slot(1, 0), n.out(1)))


def sum_that_ties_only_its_first_operand(n):
    """Forgets that both branches of a residual need the same channels."""
    yield Tied((n.slot(0, 0), n.out(0)))
    yield Tied((n.slot(0, 1), n.out(1)))
    for axis in (2, 3):
        yield Tied((n.slot(0, axis), n.out(axis)))


def product_whose_inputs_are_shifted(n):
    """Contracts channel k of the input with column k + 1 of the weight."""
    axis = 1 if int_attribute(n.node, "transB", 0) else 0
    size = n.shape(0)[1]
    yield Contracted((n.slot(0, 1), n.slot(1, axis).at((np.arange(size) + 1) % size)))
    yield Tied((n.slot(0, 0), n.out(0)))
    yield Tied((n.slot(1, 1 - axis), n.out(1)))
    yield Tied((n.slot(2, 0), n.out(1)))


WRONG = {
    "mirrored outputs": ("Conv", conv_whose_outputs_are_mirrored),
    "no bias": ("Conv", conv_whose_bias_is_not_tied),
    "half a residual": ("Add", sum_that_ties_only_its_first_operand),
    "shifted product": ("Gemm", product_whose_inputs_are_shifted),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_caught_and_what_comes_out_is_right(net, monkeypatch, name):
    operator, rule = WRONG[name]
    monkeypatch.setitem(RULES, operator, rule)
    ctx = without_data(net)
    plan, result, proof = done(net, ctx)
    assert proof.passed
    monkeypatch.undo()
    # By a second witness: the weights that the plan takes away are zero in the original.
    truth, analysis = studied(net)
    expected = truth
    if plan.changes():
        known = {c.name for c in analysis.structure.cells}
        assert {c.name for c in plan.cells if c.cut} <= known
        expected = zeroed(truth, rewrite(truth, analysis, plan.keep())[1])
    for feed in feeds(net, 3, batch=2, seed=5):
        np.testing.assert_allclose(run(result, feed)[0], run(expected, feed)[0], rtol=1e-4, atol=1e-5)


def test_a_rule_that_is_wrong_in_one_place_costs_only_the_cell_there(net, monkeypatch):
    right = RULES["Conv"]

    def wrong_for_inner(n):
        yield from conv_whose_outputs_are_mirrored(n) if n.node.name == "inner" else right(n)

    monkeypatch.setitem(RULES, "Conv", wrong_for_inner)
    plan, _, proof = done(net, without_data(net))
    assert proof.passed
    cells = {c.name: c for c in plan.cells}
    assert cells["stem"].cut
    assert not cells["inner"].cut
    assert cells["inner"].why == DESCRIPTIONS[Reason.NOT_PROVED]
    assert [s.code for s in plan.skips if s.node == "inner"] == [Reason.NOT_PROVED]
    assert plan.explain("inner")


def test_when_too_many_cells_fail_nothing_is_cut_at_all(monkeypatch):
    layers = MAX_CULPRITS + 3
    weights = ", ".join(f"float[4,4] w{i}" for i in range(layers))
    chain = "\n".join(f"a{i + 1} = Gemm(a{i}, w{i})" for i in range(layers - 1))
    text = f"g (float[N,4] a0, {weights}) => (float[N,4] y) {{ {chain}\n y = Gemm(a{layers - 1}, w{layers - 1}) }}"
    model = normalize(graph(text)).model

    def shifted(n):
        size = n.shape(0)[1]
        yield Contracted((n.slot(0, 1), n.slot(1, 0).at((np.arange(size) + 1) % size)))
        yield Tied((n.slot(0, 0), n.out(0)))
        yield Tied((n.slot(1, 1), n.out(1)))

    monkeypatch.setitem(RULES, "Gemm", shifted)
    plan, result, proof = done(model, without_data(model), ratio=0.5)
    assert not plan.changes()
    assert proof.passed
    assert {c.why for c in plan.cells} == {DESCRIPTIONS[Reason.NOT_PROVED]}
    feed = feeds(model, 1)[0]
    np.testing.assert_array_equal(run(result, feed)[0], run(model, feed)[0])


def test_the_verb_hands_the_original_back_when_the_proof_fails_at_the_end(net, items, monkeypatch):
    """A plan made while the rules were right, replayed with one that is wrong."""
    plan = done(net, context(items), refit="none", importance="l1")[0]
    monkeypatch.setitem(RULES, "Conv", conv_whose_outputs_are_mirrored)
    result = prune(net, calibration=reader(items), plan=plan)
    assert result.report.verdict is Verdict.NOTHING_GAINED
    assert "mask equivalence" in result.report.sentence
    feed = items[0]
    np.testing.assert_array_equal(run(result.model, feed)[0], run(net, feed)[0])
