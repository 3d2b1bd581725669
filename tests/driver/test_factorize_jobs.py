"""Factorisation inside `optimize`, behind its gates, and beside what the model gives without it."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import feeds, graph, reader, run
from haste import hasten, nodes_timed_by_size, timing

import onnxcomp
from onnxcomp.driver import rival, single, steps
from onnxcomp.errors import UsageError
from onnxcomp.model.cost import cost
from onnxcomp.passes.factorize import factorize
from onnxcomp.report.structures import StepStatus, Verdict

NET = """g (float[N,3,12,12] x, float[64,3,3,3] w1, float[64] wb1, float[64,64,3,3] w2, float[64] wb2, float[8,64] w3)
    => (float[N,8] y) {
    [stem] a = Conv<pads = [1,1,1,1]>(x, w1, wb1)
    b = Relu(a)
    [body] c = Conv<pads = [1,1,1,1]>(b, w2, wb2)
    d = Relu(c)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    [head] y = Gemm<transB = 1>(f, w3)
}"""
SHAPE = {"x": (1, 3, 12, 12)}
SIMPLIFY = '[[step]]\npass = "simplify"\n'
STATIC = SIMPLIFY + '\n[[step]]\npass = "quantize"'


@pytest.fixture(autouse=True)
def speed(monkeypatch):
    """Every candidate is 1.5 × as fast; low rank against whole layers is what the test writes into the second place."""
    hasten(monkeypatch)
    nodes_timed_by_size(monkeypatch, factorize)
    wanted = [1.5, 1.5]
    for module in (steps, single):
        monkeypatch.setattr(module, "versus", lambda *args: timing(wanted[0]))
    monkeypatch.setattr(rival, "versus", lambda *args: timing(wanted[1]))
    return wanted


@pytest.fixture(scope="module")
def net():
    """The body is of rank 8."""
    rng = np.random.default_rng(0)
    body = rng.standard_normal((64, 8)) @ rng.standard_normal((8, 576)) / np.sqrt(8 * 576)
    return graph(NET, w2=body.astype(np.float32).reshape(64, 64, 3, 3))


@pytest.fixture(scope="module")
def data(net):
    return reader(feeds(net, 40, batch=2))


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe and gives its path."""

    def written(text):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return path

    return written


def step_of(result, name="factorize"):
    return next(s for s in result.report.steps if s.name == name)


def test_a_share_of_the_macs_is_kept_where_the_gates_hold(net, data, recipe):
    result = onnxcomp.optimize(net, data, factorize=0.6, goal="size", recipe=recipe(SIMPLIFY))
    assert step_of(result).status is StepStatus.KEPT
    assert result.report.verdict is Verdict.PASSED
    assert cost(result.model, SHAPE).macs <= 0.6 * cost(net, SHAPE).macs
    assert "factorize" in result.model.metadata_props["onnxcomp.passes"].split(",")
    assert [s.name for s in result.report.steps] == ["simplify", "factorize"]


def test_it_comes_before_int8_and_both_are_fused_and_compared_with_whole_layers(net, data, recipe):
    result = onnxcomp.optimize(net, data, factorize=0.6, min_cosine=0.95, goal="size", recipe=recipe(STATIC))
    assert [s.name for s in result.report.steps] == ["simplify", "factorize", "quantize"]
    assert step_of(result).status is StepStatus.KEPT
    audit = step_of(result, "quantize").audit
    assert audit is not None
    assert audit.integer_kernels["QLinearConv"] == 3
    assert audit.float_heavy == {}
    told = step_of(result).summary[-1]
    assert told.startswith("after quantize, low rank against whole layers")
    assert "1.50 × as fast" in told


def test_a_factorisation_that_is_not_better_after_int8_is_undone(net, data, speed):
    speed[1] = 0.8
    result = onnxcomp.optimize(net, data, factorize=0.6, min_cosine=0.95)
    step = step_of(result)
    assert step.status is StepStatus.UNDONE
    assert "not better than the whole layers" in step.why
    assert step_of(result, "quantize").status is StepStatus.KEPT
    assert not any("first" in name for name in result.model.graph.initializers)
    assert any(n.op_type == "QuantizeLinear" for n in result.model.graph)
    assert "factorize" not in result.model.metadata_props["onnxcomp.passes"].split(",")


def test_auto_finds_the_lowest_ranks_that_pass(net, data, recipe):
    result = onnxcomp.optimize(net, data, factorize="auto", recipe=recipe(SIMPLIFY), target="cpu-avx2")
    step = step_of(result)
    assert step.status is StepStatus.KEPT
    assert len(step.attempts) >= 2
    assert all("of the MACs may remain" in a.description for a in step.attempts)
    assert {x.name: x.rank for x in step.layers}["body"] == 8


def test_a_gate_that_no_rank_meets_undoes_the_step_and_the_original_comes_back(recipe):
    model = graph(NET)
    data = reader(feeds(model, 40, batch=2))
    result = onnxcomp.optimize(model, data, factorize=0.3, recipe=recipe(SIMPLIFY), min_cosine=0.99999999)
    step = step_of(result)
    assert step.status is StepStatus.UNDONE
    assert "cosine" in step.why
    assert result.report.verdict is Verdict.NOTHING_GAINED
    feed = feeds(model, 1)[0]
    np.testing.assert_array_equal(run(result.model, feed)[0], run(model, feed)[0])


def test_a_slower_step_is_undone(net, data, speed, recipe):
    speed[0] = 0.8
    result = onnxcomp.optimize(net, data, factorize=0.6, recipe=recipe(SIMPLIFY))
    assert step_of(result).status is StepStatus.UNDONE
    assert "slower" in step_of(result).why


def test_pruning_comes_first_and_what_is_left_is_factorised(net, data, recipe):
    result = onnxcomp.optimize(net, data, prune=0.8, factorize=0.6, min_cosine=0.5, recipe=recipe(STATIC))
    assert [s.name for s in result.report.steps] == ["prune", "simplify", "factorize", "quantize"]


@pytest.mark.parametrize("share", [0, 1, "half", float("nan")])
def test_a_share_that_makes_no_sense_is_refused(net, data, share):
    with pytest.raises(UsageError, match="--factorize"):
        onnxcomp.optimize(net, data, factorize=share)


def test_a_recipe_that_factorises_and_the_option_are_one_too_many(net, data, recipe):
    text = '[[step]]\npass = "factorize"\nmacs = 0.5\n'
    with pytest.raises(UsageError, match="--factorize"):
        onnxcomp.optimize(net, data, factorize=0.5, recipe=recipe(text))


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("macs = 2.0", r"step\[0\]\.macs"),
        ("energyy = 0.5", r"did you mean 'energy'|energyy"),
        ('latency = "x"', "latency"),
    ],
)
def test_a_recipe_with_a_wrong_number_names_its_place(net, data, recipe, line, place):
    with pytest.raises(UsageError, match=place):
        onnxcomp.optimize(net, data, recipe=recipe(f'[[step]]\npass = "factorize"\n{line}\n'))


def test_a_recipe_factorises_by_energy(net, data, recipe):
    text = SIMPLIFY + '[[step]]\npass = "factorize"\nenergy = 0.999\nround_to = 8\n'
    result = onnxcomp.optimize(net, data, recipe=recipe(text))
    assert {x.name: x.rank for x in step_of(result).layers}["body"] == 8


def test_the_verb_works_on_bytes_and_says_where_the_result_comes_from(net, data):
    result = onnxcomp.factorize(net, data, macs=0.6)
    assert result.model.metadata_props["onnxcomp.passes"] == "factorize"
    assert result.plan is not None
    assert result.plan.changes() == {"body"}
