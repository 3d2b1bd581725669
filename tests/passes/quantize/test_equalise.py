"""Equalised inputs of depthwise convolutions: exact in float, closer in INT8 where channels differ in size."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import context, feeds, graph, run

from onnxcomp.model.normalize import giving, normalize
from onnxcomp.model.save import serialize
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.equalise import HEADROOM, SMALLEST, channel_factors, equalised, links
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.passes.quantize.quantize import Quantize

BLOCK = """g (float[N,4,8,8] x, float[16,4,1,1] w1, float[16] w1b, float w_low, float w_six, float[16,1,3,3] w2,
    float[16] w2b, float[4,16,1,1] w3) => (float[N,4,{size},{size}] y) {{
    a = Conv(x, w1, w1b) r = {between} b = Conv<group = 16, pads = [1, 1, 1, 1]>({read}, w2, w2b) c = Relu(b)
    y = Conv(c, w3) }}"""
SIZES = np.geomspace(1.0, 60.0, 16).astype(np.float32)


def block(between: str = "Relu(a)", read: str = "r", size: int = 8, top: float = 6.0) -> ir.Model:
    rng = np.random.default_rng(0)
    w1 = rng.standard_normal((16, 4, 1, 1)).astype(np.float32) * SIZES[:, None, None, None] / 100
    w2 = rng.standard_normal((16, 1, 3, 3)).astype(np.float32) / SIZES[:, None, None, None]
    bounds = {"w_low": np.float32(0.0), "w_six": np.float32(top)}
    text = BLOCK.format(between=between, read=read, size=size)
    return normalize(graph(text, w1=w1, w1b=SIZES / 100, w2=w2, **bounds)).model


def found(model: ir.Model) -> tuple[dict[str, tuple[float, ...]], list[dict[str, np.ndarray]]]:
    items = feeds(model, 8, batch=2)
    ctx = context(items)
    return channel_factors(model, ctx.calibration, ctx.session), items


@pytest.mark.parametrize(
    ("between", "read", "size"),
    [
        ("Relu(a)", "r", 8),
        ("Identity(a)", "a", 8),
        ("LeakyRelu<alpha = 0.1>(a)", "r", 8),
        ("Clip(a, w_low, w_six)", "r", 8),
        ("Relu(a) p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)", "p", 4),
        ("AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(a)", "r", 4),
    ],
)
def test_equalising_changes_the_weights_and_not_the_function(between, read, size):
    model = block(between, read, size)
    factors, items = found(model)
    assert set(factors) == {read}
    assert min(factors[read]) < 0.2
    after = equalised(model, factors)
    onnx.checker.check_model(ir.to_proto(after))
    assert serialize(after) != serialize(model)
    for feed in items:
        wanted = run(model, feed)[0]
        np.testing.assert_allclose(run(after, feed)[0], wanted, atol=1e-5 * np.abs(wanted).max())


def test_below_a_clip_channels_grow_only_to_a_share_of_its_bound():
    model = block("Clip(a, w_low, w_six)")
    factors, items = found(model)
    before, after = (
        np.max([run(giving(m, ["r"]), f)[0].max(axis=(0, 2, 3)) for f in items], axis=0)
        for m in (model, equalised(model, factors))
    )
    room = HEADROOM * 6
    small = before < room
    assert 0 < small.sum() < small.size
    np.testing.assert_array_equal(after[~small], before[~small])
    np.testing.assert_allclose(after[small], np.minimum(room, before[small] / SMALLEST), rtol=1e-4)


@pytest.mark.parametrize(
    ("between", "read"),
    [("Relu(a) z = Tanh(r)", "z"), ("HardSwish(a)", "r"), ("Clip(a, w_six)", "r"), ("Relu(a) q = Add(a, r)", "q")],
)
def test_what_is_not_homogeneous_or_read_elsewhere_is_left_alone(between, read):
    assert not links(block(between, read))


def test_with_channels_of_different_sizes_the_int8_result_is_closer_and_replays_to_the_same_bytes():
    model = block()
    items = feeds(model, 40, batch=2)
    ctx = context(items)
    auto, none = Quantize(QuantizeConfig()), Quantize(QuantizeConfig(correct="none"))
    plan, plain = auto.plan(model, ctx), none.plan(model, ctx)
    assert set(plan.equalization) == {"r"}
    assert not plain.equalization
    bare = dataclasses.replace(ctx, calibration=None)
    again = QuantPlan.model_validate_json(plan.model_dump_json())
    assert serialize(auto.apply(model, plan, bare)) == serialize(auto.apply(model, again, bare))
    errors = []
    for p in (plan, plain):
        after = auto.apply(model, p, bare)
        errors.append(sum(float(((run(after, f)[0] - run(model, f)[0]) ** 2).sum()) for f in items))
    assert errors[0] < 0.5 * errors[1]
    assert any("equalised inputs" in s for s in auto.prove(model, auto.apply(model, plan, bare), plan, ctx).sentences)
