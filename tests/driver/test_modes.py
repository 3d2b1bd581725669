"""Ways to quantise: their options, the candidates of a target, and which of the measured ones is the best."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph, run

import onnxcomp
from onnxcomp.driver.modes import CANDIDATES, MODES, NEAR, _best, check_options, pass_of_mode
from onnxcomp.errors import PlanError, UsageError
from onnxcomp.ops.targets import TARGETS
from onnxcomp.report.structures import StepStatus, Verdict

WIDE = """g (float[N,256] x, float[256,256] w1, float[256] w1b, float[256,64] w2, float[64] w2b) => (float[N,64] y) {
    a = Gemm(x, w1, w1b)
    r = Relu(a)
    y = Gemm(r, w2, w2b)
}"""


def some_feeds(count: int = 40) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((1, 256)).astype(np.float32)} for _ in range(count)]


def test_every_mode_makes_the_pass_that_its_config_is_of():
    names = {mode: pass_of_mode(mode, {}).name for mode in MODES}
    assert names == {
        "static": "quantize",
        "dynamic": "dynamic",
        "weight-only": "weight-only",
        "fp16": "precision",
        "bf16": "precision",
    }


def test_every_target_has_candidates_and_every_candidate_is_a_mode():
    assert {t.provider for t in TARGETS.values()} == set(CANDIDATES)
    assert {name for names in CANDIDATES.values() for name in names} <= set(MODES)


@pytest.mark.parametrize(
    ("mode", "given", "told"),
    [
        ("dynamic", {"bits": 4}, "--bits means nothing with --mode dynamic; it belongs to weight-only"),
        ("weight-only", {"ranges": "mse"}, "it belongs to static"),
        ("statik", {}, "unknown mode 'statik'"),
    ],
)
def test_an_option_of_another_mode_is_refused(mode, given, told):
    with pytest.raises(UsageError) as error:
        check_options(mode, given)
    assert told in error.value.message


def test_options_reach_the_mode_that_they_belong_to():
    assert pass_of_mode("weight-only", {"bits": 8, "ranges": "minmax"}).config.bits == 8
    check_options("auto", {"bits": 8, "ranges": "minmax"})


@pytest.mark.parametrize(
    ("goal", "best"),
    [("balanced", 1), ("latency", 0), ("size", 2)],
)
def test_the_goal_says_which_of_two_measures_goes_first(goal, best):
    speeds, sizes = {0: 3.0, 1: 2.8, 2: 2.0, 3: 1.0, 4: 2.8}, {0: 400, 1: 201, 2: 100, 3: 101, 4: 200}
    errors = {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.0, 4: 0.2}  # 4 is a little smaller than 1, and further off
    assert _best(speeds, sizes, errors, goal) == best
    assert NEAR["balanced"] >= 3.0 / 2.8


def test_auto_keeps_one_candidate_and_says_what_became_of_the_others():
    model, feeds = graph(WIDE), some_feeds()
    result = onnxcomp.quantize(model, calibration=feeds, mode="auto", threads=1, goal="size")
    steps = {step.name: step for step in result.report.steps}
    assert set(steps) == {"quantize", "dynamic", "weight-only"}
    assert result.report.verdict is Verdict.PASSED
    kept = [name for name, step in steps.items() if step.status is StepStatus.KEPT]
    assert kept == ["weight-only"], "4 bits are the smallest"
    assert "is better" in steps["quantize"].why
    right, got = run(model, feeds[0])[0], run(result.model, feeds[0])[0]
    assert not np.array_equal(right, got)
    assert np.corrcoef(right.ravel(), got.ravel())[0, 1] > 0.99


def test_auto_without_data_tries_what_needs_none():
    result = onnxcomp.quantize(graph(WIDE), mode="auto", threads=1, goal="size")
    steps = {step.name: step for step in result.report.steps}
    assert "needs calibration data" in steps["quantize"].why
    assert result.report.verdict is Verdict.PASSED


def test_a_plan_of_auto_is_refused_because_there_is_none():
    with pytest.raises(UsageError, match="no plan of it"):
        onnxcomp.quantize(graph(WIDE), calibration=some_feeds(), mode="auto", dry_run=True)


@pytest.mark.parametrize("mode", ["dynamic", "weight-only", "fp16"])
def test_every_mode_gives_a_smaller_model_that_is_close_to_the_original(mode):
    model, feeds = graph(WIDE), some_feeds()
    result = onnxcomp.quantize(model, calibration=feeds, mode=mode, threads=1)
    assert result.report.result.bytes < 0.6 * result.report.source.bytes
    assert result.report.fidelity[0].cosine > 0.98
    assert not np.array_equal(run(model, feeds[0])[0], run(result.model, feeds[0])[0])


def test_a_plan_of_another_mode_is_named(tmp_path):
    plan = onnxcomp.quantize(graph(WIDE), mode="dynamic", dry_run=True).plan
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json())
    with pytest.raises(PlanError, match="one of dynamic, not of quantize"):
        onnxcomp.quantize(graph(WIDE), plan=path)
    assert onnxcomp.quantize(graph(WIDE), mode="dynamic", plan=path, threads=1).plan == plan


def test_optimize_without_any_data_takes_exact_steps_only():
    """Noise can't judge what loses something."""
    result = onnxcomp.optimize(graph(WIDE), threads=1, goal="size")
    steps = {step.name: step for step in result.report.steps}
    assert set(steps) == {"simplify", "quantize"}
    assert "needs calibration data" in steps["quantize"].why
    assert result.report.result.bytes > 0.9 * result.report.source.bytes


def test_what_is_not_tried_says_of_each_node_why_it_stays():
    convolution = "g (float[N,8,8,8] x, float[8,8,3,3] w1) => (float[N,8,6,6] y) { [only] y = Conv(x, w1) }"
    rng = np.random.default_rng(0)
    items = [{"x": rng.standard_normal((1, 8, 8, 8)).astype(np.float32)} for _ in range(20)]
    result = onnxcomp.quantize(graph(convolution), calibration=items, mode="auto", threads=1)
    steps = {step.name: step for step in result.report.steps}
    for name in ("dynamic", "weight-only"):
        assert steps[name].status is StepStatus.NOTHING_TO_DO
        assert [skip.node for skip in steps[name].skips] == ["only"]


def test_a_sensitivity_file_without_a_step_that_quantises_is_refused(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[step]]\npass = "simplify"')
    with pytest.raises(UsageError, match="no step of static INT8"):
        onnxcomp.optimize(graph(WIDE), recipe=recipe, sensitivity=tmp_path / "units.json")


def test_static_int8_is_tried_where_it_has_the_work_although_not_the_weights():
    """A convolution with nearly all multiply-accumulates, and a GRU with nearly all weights."""
    text = """g (float[N,16,32,32] x, float[16,16,3,3] w1, float[1,768,16] w2, float[1,768,256] w3)
        => (float[a,b,c,d] y, float[1,N,256] h) {
        [work] c1 = Conv<pads = [1, 1, 1, 1]>(x, w1) y = Relu(c1) m = GlobalAveragePool(y) f = Flatten(m)
        zero = Constant<value = int64[1] {0}>() s = Unsqueeze(f, zero)
        [weights] o, h = GRU<hidden_size = 256>(s, w2, w3)
    }"""
    rng = np.random.default_rng(0)
    items = [{"x": rng.standard_normal((1, 16, 32, 32)).astype(np.float32)} for _ in range(20)]
    result = onnxcomp.quantize(graph(text), calibration=items, mode="auto", threads=1)
    steps = {step.name: step for step in result.report.steps}
    assert len(steps["quantize"].attempts) > 0
    assert "not tried" in steps["dynamic"].why or "no node" in steps["dynamic"].why
