"""SmoothQuant: exact in float, closer in INT8 where some channels are much larger than others."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import context, feeds, graph, run
from quantize_cases import quantized

from onnxcomp.model.normalize import normalize
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.placement import settle
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.passes.quantize.sites import find_sites
from onnxcomp.passes.quantize.smooth import channel_sizes, factors, smoothable, smoothed

OUTLIERS = np.where(np.arange(16) % 8 == 3, 40.0, 1.0).astype(np.float32)
BLOCK = """g (float[N,5,16] x, float[16] w_s, float[16] w_t, float[16,24] w1, float[24] w1b, float[24,16] w2,
    float[16] w2b) => (float[N,5,16] y) {{
    n = LayerNormalization(x, w_s, w_t) m = MatMul(n, w1) a = Add(m, w1b) e = Tanh(a) p = MatMul(e, w2)
    q = Add(p, w2b) y = {last} }}"""


def block(last: str = "Tanh(q)"):
    return graph(BLOCK.format(last=last), w_s=OUTLIERS, opset=17)


def parts(model):
    model = normalize(model).model
    groups = smoothable(settle(find_sites(model, (), ())[0]))
    items = feeds(model, 4, batch=2)
    sizes = channel_sizes(model, list(groups), context(items).calibration, context(items).session)
    return model, groups, sizes, items


@pytest.mark.parametrize("last", ["Tanh(q)", "Add(q, n)"], ids=["norm read once", "norm read by the residual too"])
@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_smoothing_changes_the_weights_and_not_the_function(alpha, last):
    model, groups, sizes, items = parts(block(last))
    found = factors(groups, sizes, alpha)
    assert {"n", "e"} == set(found)
    after = smoothed(model, found, {s.name: name for name, users in groups.items() for s in users})
    onnx.checker.check_model(ir.to_proto(after))
    muls = [n.op_type for n in after.graph].count("Mul")
    assert muls == (1 if last == "Tanh(q)" else 2), "the norm takes the factors only if nobody else reads it"
    weights = [v.const_value.numpy() for v in after.graph.initializers.values() if v.name.startswith("MatMul")]
    assert len(weights) == 2
    for feed in items:
        np.testing.assert_allclose(run(after, feed)[0], run(model, feed)[0], rtol=2e-4, atol=2e-4)


def test_factors_are_those_of_the_paper_with_a_mean_of_one():
    _, groups, sizes, _ = parts(block())
    (site,) = groups["n"]
    x, w = sizes["n"], np.abs(site.weight.const_value.numpy()).max(axis=1)
    wanted = x**0.7 / w**0.3
    found = np.asarray(factors(groups, sizes, 0.7)["n"])
    np.testing.assert_allclose(found / found[0], wanted / wanted[0], rtol=1e-5)
    assert np.log(found).mean() == pytest.approx(0, abs=1e-6)


def test_empty_channels_keep_a_factor_of_one():
    _, groups, sizes, _ = parts(block())
    sizes["n"][2] = 0.0
    assert factors(groups, sizes, 0.5)["n"][2] == 1.0


def test_with_outliers_in_some_channels_the_int8_result_is_closer():
    model = block()
    smooth, plain = (quantized(model, feeds(model, 12, batch=2), smooth=s) for s in (0.7, "none"))
    assert smooth.plan.smoothing
    assert not plain.plan.smoothing
    assert 1 - smooth.cosine() < 0.6 * (1 - plain.cosine())


def test_a_plan_with_smoothing_replays_from_json_without_data():
    model = normalize(block()).model
    ctx = context(feeds(model, 6, batch=2))
    step = Quantize(QuantizeConfig(smooth=0.7))
    plan = step.plan(model, ctx)
    again = QuantPlan.model_validate_json(plan.model_dump_json())
    feed = feeds(model, 1, batch=3)[0]
    after = [step.apply(model, p, ctx) for p in (plan, again)]
    np.testing.assert_array_equal(run(after[0], feed)[0], run(after[1], feed)[0])
    assert plan.smoothed == {"MatMul_m": "n", "MatMul_p": "e"}


def test_by_itself_smoothing_is_chosen_on_feeds_that_it_did_not_learn_from():
    layers = " ".join(f"n{i} = Mul(t{i}, w_c) m{i} = MatMul(n{i}, w{i}) t{i + 1} = Neg(m{i})" for i in range(4))
    text = ", ".join(f"float[16,16] w{i}" for i in range(4))
    rng = np.random.default_rng(3)
    weights = {f"w{i}": (rng.normal(0, 0.25, (16, 16)) / OUTLIERS[:, None]).astype(np.float32) for i in range(4)}
    head = f"g (float[N,16] x, float[16] w_c, {text}) => (float[N,16] y)"
    model = graph(f"{head} {{ t0 = Neg(x) {layers} y = Neg(t4) }}", w_c=OUTLIERS, **weights)
    plain, auto = (quantized(model, feeds(model, 20, batch=2), smooth=s) for s in ("none", "auto"))
    assert auto.plan.smoothing
    assert auto.cosine() > plain.cosine()
    few = quantized(model, feeds(model, 3, batch=2), smooth="auto")
    assert few.plan.smoothing, "without feeds to choose by the middle of the candidates is taken"


@pytest.mark.parametrize("portable", [True, False])
def test_a_product_with_a_bias_is_one_operator_of_onnx_runtime_unless_the_file_must_be_portable(portable):
    model = normalize(graph(BLOCK.format(last="Neg(q)").replace("Tanh(a)", "Neg(a)"))).model
    items = feeds(model, 6, batch=2)
    ctx = dataclasses.replace(context(items), portable=portable)
    step = Quantize(QuantizeConfig(smooth="none"))
    plan = step.plan(model, ctx)
    after = step.apply(model, plan, ctx)
    domains = {n.domain for n in after.graph}
    assert domains == ({""} if portable else {"", "com.microsoft"})
    proof = step.prove(model, after, plan, ctx)
    assert proof.passed
    assert any("com.microsoft" in s or "MatMulIntegerToFloat" in s for s in proof.sentences) is not portable
    for feed in items:
        a, b = run(model, feed)[0].ravel(), run(after, feed)[0].ravel()
        assert 0.99 < a @ b / np.linalg.norm(a) / np.linalg.norm(b) < 1


def test_a_product_right_at_an_input_of_the_model_is_smoothed_too():
    weight = (np.random.default_rng(5).standard_normal((16, 8)) / OUTLIERS[:, None]).astype(np.float32)
    model = graph("g (float[N,16] x, float[16,8] w) => (float[N,8] y) { y = MatMul(x, w) }", w=weight)
    items = [{"x": f["x"] * OUTLIERS} for f in feeds(model, 12, batch=2)]
    smooth, plain = (quantized(model, items, smooth=s) for s in (0.7, "none"))
    assert set(smooth.plan.smoothing) == {"x"}
    assert 1 - smooth.cosine() < 0.5 * (1 - plain.cosine())
