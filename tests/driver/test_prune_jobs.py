"""Pruning inside `optimize`, behind its gates, and the promises of the verb."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import feeds, graph, reader, run
from haste import hasten, nodes_timed_by_size, timing

import onnxcomp
from onnxcomp.driver import largest, single, steps
from onnxcomp.driver.largest import TRIALS
from onnxcomp.errors import GateError, UsageError
from onnxcomp.model.cost import cost
from onnxcomp.passes.prune import latency_choice
from onnxcomp.report.structures import StepStatus, Verdict

NET = """g (float[N,3,12,12] x, float[32,3,3,3] w1, float[32] wb1, float[32,32,3,3] w2, float[32] wb2, float[8,32] w3)
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
PRUNE_ONLY = '[[step]]\npass = "prune"\nround_to = 1\n'


@pytest.fixture(autouse=True)
def speed(monkeypatch):
    """Every candidate is 1.5 × as fast, or what the test writes into the list."""
    hasten(monkeypatch)
    wanted = [1.5]
    for module in (steps, single):
        monkeypatch.setattr(module, "versus", lambda *args: timing(wanted[0]))
    return wanted


@pytest.fixture(scope="module")
def net():
    """Half of the channels are nearly copies of others, so that half may go."""
    weights = {n: v.const_value.numpy() for n, v in graph(NET).graph.initializers.items()}
    rng = np.random.default_rng(0)
    for name in ("w1", "wb1", "w2", "wb2"):
        array = weights[name].copy()
        array[16:] = array[:16] * (1 + 1e-3 * rng.standard_normal(array[:16].shape))
        weights[name] = array.astype(np.float32)
    return graph(NET, **weights)


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


def step_of(result):
    return next(s for s in result.report.steps if s.name == "prune")


def test_a_share_of_the_macs_is_kept_where_the_gates_hold(net, data, recipe):
    result = onnxcomp.optimize(net, data, prune=0.4, goal="size", recipe=recipe('[[step]]\npass = "simplify"\n'))
    assert step_of(result).status is StepStatus.KEPT
    assert result.report.verdict is Verdict.PASSED
    assert cost(result.model, SHAPE).macs <= 0.4 * cost(net, SHAPE).macs
    assert "prune" in result.model.metadata_props["onnxcomp.passes"].split(",")


def test_pruning_and_int8_are_both_kept(net, data):
    result = onnxcomp.optimize(net, data, prune=0.5, min_cosine=0.95)
    kept = [s.name for s in result.report.steps if s.status is StepStatus.KEPT]
    assert "prune" in kept
    assert "quantize" in kept
    assert any(n.op_type == "QuantizeLinear" for n in result.model.graph)


def test_a_gate_that_no_cut_meets_undoes_the_step_and_the_original_comes_back(net, data, recipe):
    result = onnxcomp.optimize(net, data, recipe=recipe(PRUNE_ONLY + "macs = 0.05\n"), min_cosine=0.99999)
    step = step_of(result)
    assert step.status is StepStatus.UNDONE
    assert "cosine" in step.why
    assert step.attempts
    assert not any(a.kept for a in step.attempts)
    assert result.report.verdict is Verdict.NOTHING_GAINED
    assert result.report.exit_code == 0
    feed = feeds(net, 1)[0]
    np.testing.assert_array_equal(run(result.model, feed)[0], run(net, feed)[0])


def test_a_slower_step_is_undone(net, data, speed, recipe):
    speed[0] = 0.8
    result = onnxcomp.optimize(net, data, recipe=recipe(PRUNE_ONLY + "macs = 0.5\n"))
    assert step_of(result).status is StepStatus.UNDONE
    assert "slower" in step_of(result).why
    assert result.report.verdict is Verdict.NOTHING_GAINED


def test_auto_finds_the_largest_cut_in_at_most_five_trials(net, data, recipe, monkeypatch):
    asked = []
    real = largest.run_step

    def counted(step, *args, **options):
        asked.append(step.config.macs)
        return real(step, *args, **options)

    monkeypatch.setattr(largest, "run_step", counted)
    text = '[[step]]\npass = "simplify"\n'
    result = onnxcomp.optimize(net, data, prune="auto", recipe=recipe(text), target="cpu-avx2")
    assert 2 <= len(asked) <= TRIALS == 5
    step = step_of(result)
    assert step.status is StepStatus.KEPT
    kept = [share for share, attempt in zip(asked, step.attempts, strict=True) if attempt.kept]
    assert result.plan is not None
    assert cost(result.model, SHAPE).macs <= min(kept) * cost(net, SHAPE).macs or not result.plan.reached
    assert all("of the MACs may remain" in a.description for a in step.attempts)


def test_auto_tries_no_more_when_no_more_may_go(net, data, recipe):
    result = onnxcomp.optimize(net, data, prune="auto", recipe=recipe('[[step]]\npass = "simplify"\n'), min_cosine=0.0)
    step = step_of(result)
    assert step.status is StepStatus.KEPT
    assert [a.kept for a in step.attempts] == [True, True, True]
    assert len({(c.name, c.kept) for c in step.channels}) == 2


def test_auto_behind_a_gate_that_nothing_meets_ends_with_the_original(net, data, recipe):
    result = onnxcomp.optimize(
        graph(NET), data, prune="auto", recipe=recipe('[[step]]\npass = "simplify"\n'), min_cosine=1.0
    )
    step = step_of(result)
    assert step.status in (StepStatus.UNDONE, StepStatus.NOTHING_TO_DO)
    assert len(step.attempts) <= TRIALS
    assert result.report.verdict is Verdict.NOTHING_GAINED


def test_a_recipe_gives_ratios_by_node_name(net, data, recipe):
    text = PRUNE_ONLY + 'refit = "none"\nimportance = "l1"\nratios = { stem = 0.25, "bo*" = 0.5 }\n'
    result = onnxcomp.optimize(net, data, recipe=recipe(text), min_cosine=0.0)
    assert {c.name: (c.size, c.kept) for c in step_of(result).channels} == {"stem": (32, 24), "body": (32, 16)}
    assert tuple(result.model.graph.initializers["w2"].shape) == (16, 24, 3, 3)


@pytest.mark.parametrize(
    ("line", "place"),
    [("macs = 2.0", r"step\[0\]\.macs"), ("ratioo = 0.5", r"step\[0\]\.ratioo"), ('latency = "soon"', "latency")],
)
def test_a_recipe_with_a_wrong_number_names_its_place(net, data, recipe, line, place):
    with pytest.raises(UsageError, match=place):
        onnxcomp.optimize(net, data, recipe=recipe(PRUNE_ONLY + line + "\n"))


def test_a_recipe_that_prunes_and_prune_are_one_too_many(net, data, recipe):
    with pytest.raises(UsageError, match="--prune"):
        onnxcomp.optimize(net, data, prune=0.5, recipe=recipe(PRUNE_ONLY + "macs = 0.5\n"))


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.5, float("nan"), "half", ""])
def test_a_share_that_makes_no_sense_is_refused(net, data, share):
    with pytest.raises(UsageError, match="--prune"):
        onnxcomp.optimize(net, data, prune=share)


def test_the_verb_writes_where_the_result_comes_from(net, data):
    result = onnxcomp.prune(net, data, ratio=0.3, round_to=1)
    props = result.model.metadata_props
    assert props["onnxcomp.passes"] == "prune"
    assert props["onnxcomp.source_sha256"] == result.report.source.sha256
    assert props["onnxcomp.calibration"].startswith("real:")


def test_the_verb_warns_when_its_budget_is_not_met(net, data):
    result = onnxcomp.prune(net, data, macs=0.05, max_ratio=0.5, round_to=16)
    assert result.report.verdict is Verdict.DONE
    assert any(n.level == "warning" and n.sentence.startswith("BUDGET NOT MET: MACs") for n in result.report.notes)


def test_the_verb_keeps_a_slower_result_that_the_user_fixed_and_warns(net, data, speed):
    speed[0] = 0.5
    result = onnxcomp.prune(net, data, ratio=0.1, round_to=1)
    assert result.report.verdict is Verdict.DONE
    assert any(n.level == "warning" and n.sentence.startswith("SLOWER") for n in result.report.notes)


def test_the_verb_refuses_a_slower_result_where_a_latency_was_asked_for(net, data, speed, monkeypatch):
    """The rounds of the plan find it faster, the last measurement does not."""
    nodes_timed_by_size(monkeypatch, latency_choice)
    monkeypatch.setattr(latency_choice, "_measured", lambda one, other, ctx: (1.0, 1.0 if one is other else 0.3))
    speed[0] = 0.99
    with pytest.raises(GateError, match="not faster"):
        onnxcomp.prune(net, data, latency=0.5)
    speed[0] = 1.2
    assert onnxcomp.prune(net, data, latency=0.5).report.verdict is Verdict.DONE


def test_a_dry_run_gives_the_plan_and_leaves_the_model(net, data):
    result = onnxcomp.prune(net, data, macs=0.5, round_to=1, dry_run=True)
    assert result.report.verdict is Verdict.PLANNED
    assert result.model.graph.initializers["w1"].shape[0] == 32
    assert result.plan is not None
    assert result.plan.changes()
    replayed = onnxcomp.prune(net, data, plan=result.plan)
    direct = onnxcomp.prune(net, data, macs=0.5, round_to=1)
    for a, b in zip(replayed.model.graph.initializers.values(), direct.model.graph.initializers.values(), strict=True):
        assert a.const_value.tobytes() == b.const_value.tobytes()
