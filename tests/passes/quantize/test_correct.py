"""Bias correction against means over real outputs of ONNX Runtime, and ranges chosen by the error of the outputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import context, feeds, graph, run
from quantize_cases import quantized

from onnxcomp.evaluate.sensitivity import Sensitivity
from onnxcomp.model.normalize import clone, normalize
from onnxcomp.model.save import serialize
from onnxcomp.ops.attributes import constant
from onnxcomp.passes.integer_weights import quantize_weight
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.correct import correctable, corrected, shifts
from onnxcomp.passes.quantize.plan import QParams, QuantPlan
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.passes.quantize.sites import find_sites
from onnxcomp.passes.quantize.tune import TRIALS, tuned
from onnxcomp.report.reasons import Reason

CONVOLUTIONS = """g (float[{n},3,9,9] x, float[16,3,3,3] w1, float[16] w1b, float[16,1,3,3] w2, float[8,16,1,1] w3)
    => (float[{n},8,5,5] y) {{
    a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w1, w1b) r = Relu(a)
    b = Conv<group = 16, pads = [2, 1, 0, 1]>(r, w2) c = Relu(b) y = Conv(c, w3) }}"""
PRODUCTS = """g (float[{n},5,24] x, float[24,16] w1, float[16] w1b, float[16,16] w2) => (float[{n},5,16] y) {{
    a = MatMul(x, w1) b = Add(w1b, a) r = Relu(b) y = MatMul(r, w2) }}"""
CLASSIFIER = """g (float[{n},24] x, float[16,24] w1, float[16] w1b, float[16,8] w2) => (float[{n},8] y) {{
    a = Gemm<transB = 1>(x, w1, w1b) r = Relu(a) y = Gemm(r, w2) }}"""
MODELS = {"convolutions": CONVOLUTIONS, "products": PRODUCTS, "classifier": CLASSIFIER}


def coarse(text: str, *, n: object = "N", opset: int = 17) -> ir.Model:
    return normalize(graph(text.format(n=n), opset=opset)).model


def with_rounded_weights(model: ir.Model, plan: QuantPlan) -> ir.Model:
    """The model in float, with the weights that the integers stand for."""
    result = clone(model)
    for site in find_sites(result, (), ())[0]:
        array = constant(site.weight)
        if array is not None and site.weight_key in plan.tensors:
            scales = np.asarray(plan.tensors[site.weight_key].scale, np.float32)
            shape = [-1 if a == site.weight_axis else 1 for a in range(array.ndim)]
            rounded = quantize_weight(array, scales, site.weight_axis) * scales.reshape(shape)
            site.weight.const_value = ir.tensor(rounded.astype(np.float32), name=site.weight.name)
    return result


def coarsened(plan: QuantPlan) -> QuantPlan:
    """With weights of about four bits, so that corrections are far from float rounding."""
    wider = {
        name: p.model_copy(update={"scale": tuple(16 * s for s in p.scale)}) if p.dtype == "int8" else p
        for name, p in plan.tensors.items()
    }
    return plan.model_copy(update={"tensors": wider})


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("n", ["N", 3], ids=["any batch", "batch of 3"])
@pytest.mark.parametrize("name", MODELS)
def test_the_correction_makes_the_mean_of_each_channel_what_it_was_where_only_one_layer_is_rounded(name, n, opset):
    model = coarse(MODELS[name], n=n, opset=opset)
    items = [{k: np.abs(v) for k, v in feed.items()} for feed in feeds(model, 20, batch=3)]
    ctx = context(items)
    plan = coarsened(Quantize(QuantizeConfig(correct="none", smooth="none")).plan(model, ctx))
    sites = correctable(find_sites(model, (), ())[0])
    found = shifts(model, sites, plan.tensors, ctx.calibration, ctx.session, lambda done, total: None)
    assert len(found) == {"convolutions": 3, "products": 1, "classifier": 2}[name], "a bare MatMul adds no bias"
    for site in sites:
        one = plan.model_copy(update={"tensors": {site.weight_key: plan.tensors[site.weight_key]}})
        before, after = (
            with_rounded_weights(model, one),
            with_rounded_weights(corrected(model, {site.name: found[site.name]}), one),
        )
        last = next((x for x in site.absorbed if x.op_type == "Add"), site.node).outputs[0].name
        wanted, shifted, back = (mean_of(m, last, items) for m in (model, before, after))
        assert np.abs(shifted - wanted).max() > 1e-3
        np.testing.assert_allclose(back, wanted, atol=2e-6 + 1e-3 * np.abs(shifted - wanted).max())


def mean_of(model: ir.Model, name: str, items: list[dict[str, np.ndarray]]) -> np.ndarray:
    extended = clone(model)
    value = ir.convenience.create_value_mapping(extended.graph)[name]
    extended.graph.outputs.clear()
    extended.graph.outputs.append(value)
    arrays = np.concatenate([run(extended, feed)[0].astype(np.float64) for feed in items])
    channel = 1 if arrays.ndim == 4 else arrays.ndim - 1
    return arrays.mean(axis=tuple(a for a in range(arrays.ndim) if a != channel))


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_with_corrections_replays_from_json_to_the_same_bytes_without_data(name):
    model = coarse(MODELS[name])
    items = [{k: np.abs(v) for k, v in feed.items()} for feed in feeds(model, 40, batch=2)]
    ctx = context(items)
    step = Quantize(QuantizeConfig(smooth="none", ranges="minmax"))
    plan = step.plan(model, ctx)
    assert plan.correction_choice
    assert not plan.alternatives
    plan = plan if plan.corrections else plan.model_copy(update={"corrections": {next(iter(plan.nodes)): (0.25,) * 16}})
    again = QuantPlan.model_validate_json(plan.model_dump_json())
    bare = dataclasses.replace(ctx, calibration=None)
    first, second, without = (
        serialize(step.apply(model, p, bare)) for p in (plan, again, plan.model_copy(update={"corrections": {}}))
    )
    assert first == second
    assert first != without
    onnx.checker.check_model(ir.to_proto(step.apply(model, plan, bare)))


def test_a_node_that_went_back_to_float_is_not_corrected():
    model = coarse(CONVOLUTIONS)
    ctx = context(feeds(model, 4, batch=2))
    step = Quantize(QuantizeConfig(correct="none"))
    plan = step.plan(model, ctx)
    name = next(n for n in plan.nodes if plan.nodes[n].op_type == "Conv")
    shifted = plan.model_copy(update={"corrections": {name: (0.5,) * 16}})
    left = [p.with_float(frozenset({name}), Reason.RELAXED, "") for p in (plan, shifted)]
    assert serialize(step.apply(model, left[0], ctx)) == serialize(step.apply(model, left[1], ctx))
    assert serialize(step.apply(model, plan, ctx)) != serialize(step.apply(model, shifted, ctx))


@pytest.mark.parametrize("count", [4, 40])
def test_corrections_are_kept_only_where_the_error_falls_on_feeds_that_they_did_not_learn_from(count):
    model = coarse(CONVOLUTIONS)
    items = [{k: np.abs(v) for k, v in feed.items()} for feed in feeds(model, count, batch=2)]
    plain, auto = (quantized(model, items, ranges="minmax", correct=c) for c in ("none", "auto"))
    assert not plain.plan.correction_choice
    assert plain.plan.alternatives
    if count == 4:
        assert auto.plan.correction_choice == "none: too few feeds to hold some back"
        assert auto.plan.tensors == plain.plan.tensors
        return
    held = Sensitivity(model, context(items[32:]).calibration, auto.ctx.session, 8)
    assert held.error(auto.after) <= held.error(plain.after)
    assert (auto.plan.tensors, auto.plan.corrections) != (plain.plan.tensors, {})


def plan_with_alternatives() -> QuantPlan:
    """Of eight tensors, with other scales by two other methods."""
    plan = Quantize(QuantizeConfig(correct="none")).plan(coarse(CONVOLUTIONS), context(feeds(coarse(CONVOLUTIONS), 2)))

    def scaled(by: float) -> dict[str, QParams]:
        return {f"t{i}": QParams(dtype="uint8", scale=(by,), zero_point=0) for i in range(8)}

    others = {"minmax": scaled(2.0), "percentile": scaled(0.5)}
    return plan.model_copy(update={"tensors": scaled(1.0), "alternatives": others})


def test_tuning_takes_from_each_method_the_part_that_it_is_best_in_and_looks_at_a_bounded_number_of_plans():
    plan = plan_with_alternatives()
    part = {n: p for n, p in plan.alternatives["minmax"].items() if n in ("t0", "t1")}
    wanted = plan.alternatives["percentile"] | part
    seen: list[QuantPlan] = []

    def distance(candidate: QuantPlan) -> float:
        seen.append(candidate)
        return 1.0 + sum(candidate.tensors[n] != wanted[n] for n in wanted)

    best, error = tuned(plan, "mse", distance, lambda done, total: None)
    assert best.tensors == wanted
    assert not best.alternatives
    assert error == 1.0
    assert len(seen) <= TRIALS
    assert best.range_choice == "percentile, then minmax in part 1 of 4: error of the outputs 1, with mse 9"


def test_tuning_leaves_the_ranges_alone_where_nothing_lowers_the_error_by_more_than_chance():
    plan = plan_with_alternatives()
    errors = iter([0.5, *[0.495] * TRIALS])
    best, error = tuned(plan, "mse", lambda candidate: next(errors), lambda done, total: None)
    assert (best.tensors, error, best.range_choice) == (plan.tensors, 0.5, "")


def test_a_model_whose_only_product_sees_nan_has_nothing_to_correct():
    model = coarse("g (float[{n},5,16] x, float[16,16] w) => (float[{n},5,16] y) {{ l = Log(x) y = MatMul(l, w) }}")
    step, ctx = Quantize(QuantizeConfig(correct="auto")), context(feeds(model, 16))
    assert np.isnan(run(model, ctx.feed)[0]).any()
    plan = step.plan(model, ctx)
    assert not plan.quantized()
    assert Reason.NOT_FINITE in {skip.code for skip in plan.skips}
    assert serialize(step.apply(model, plan, ctx)) == serialize(model)
