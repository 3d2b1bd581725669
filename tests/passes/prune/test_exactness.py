"""Half of the channels are zero: cutting that half leaves every output as it was."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import feeds, graph, run
from pruning import CONFIG

from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import normalize
from onnxcomp.ops.targets import TARGETS
from onnxcomp.passes.base import Context
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.prune import Prune

PLAIN = """g (float[N,3,8,8] x, float[16,3,3,3] w1, float[16] wb1, float[24,16,3,3] w2, float[24] wb2,
    float[5,24,3,3] w3, float[5] wb3) => (float[N,5,4,4] y) {
    a = Conv<pads = [1,1,1,1]>(x, w1, wb1)
    b = Relu(a)
    c = Conv(b, w2, wb2)
    d = Relu(c)
    y = Conv(d, w3, wb3)
}"""
RESIDUAL = """g (float[N,3,8,8] x, float[16,3,3,3] w1, float[16] wb1, float[20,16,3,3] w2, float[20] wb2,
    float[16,20,3,3] w3, float[16] wb3, float[10,16] w4, float[10] wb4) => (float[N,10] y) {
    a = Conv<pads = [1,1,1,1]>(x, w1, wb1)
    b = Relu(a)
    c = Conv<pads = [1,1,1,1]>(b, w2, wb2)
    d = Relu(c)
    e = Conv<pads = [1,1,1,1]>(d, w3, wb3)
    s = Add(e, b)
    r = Relu(s)
    p = GlobalAveragePool(r)
    f = Flatten(p)
    y = Gemm<transB = 1>(f, w4, wb4)
}"""
DEPTHWISE = """g (float[N,3,8,8] x, float[16,3,1,1] w1, float[16] wb1, float[16,1,3,3] w2, float[16] wb2,
    float[6,16,1,1] w3) => (float[N,6,8,8] y) {
    a = Conv(x, w1, wb1)
    b = Clip(a)
    c = Conv<group = 16, pads = [1,1,1,1]>(b, w2, wb2)
    d = Relu(c)
    y = Conv(d, w3)
}"""
GEMMS = """g (float[N,12] x, float[32,12] w1, float[32] wb1, float[32,20] w2, float[20] wb2, float[7,20] w3)
    => (float[N,7] y) {
    a = Gemm<transB = 1>(x, w1, wb1)
    b = Tanh(a)
    c = Gemm(b, w2, wb2)
    d = Relu(c)
    y = Gemm<transB = 1>(d, w3)
}"""
NORMED = """g (float[N,3,8,8] x, float[16,3,3,3] w1, float[16] wg1, float[16] wb1, float[16] wm1, float[16] wv1,
    float[16,16,3,3] w2, float[16] wg2, float[16] wb2, float[16] wm2, float[16] wv2, float[4,16,1,1] w3)
    => (float[N,4,8,8] y) {
    a = Conv<pads = [1,1,1,1]>(x, w1)
    b = BatchNormalization(a, wg1, wb1, wm1, wv1)
    c = Relu(b)
    d = Conv<pads = [1,1,1,1]>(c, w2)
    e = BatchNormalization(d, wg2, wb2, wm2, wv2)
    s = Add(e, c)
    y = Conv(s, w3)
}"""
CONCATENATED = """g (float[N,3,6,6] x, float[8,3,1,1] w1, float[8] wb1, float[12,3,3,3] w2, float[12] wb2,
    float[5,720] w3) => (float[N,5] y) {
    a = Conv(x, w1, wb1)
    b = Conv<pads = [1,1,1,1]>(x, w2, wb2)
    c = Concat<axis = 1>(a, b)
    d = Relu(c)
    f = Flatten(d)
    y = Gemm<transB = 1>(f, w3)
}"""

# Which weights make the channels of each cell: half of each is zeroed, the same half in weights of one cell.
TOPOLOGY = {
    "plain": (PLAIN, [["w1", "wb1"], ["w2", "wb2"]]),
    "residual": (RESIDUAL, [["w1", "wb1", "w3", "wb3"], ["w2", "wb2"]]),
    "depthwise": (DEPTHWISE, [["w1", "wb1", "w2", "wb2"]]),
    "gemms": (GEMMS, [["w1", "wb1"], ["w2:1", "wb2"]]),
    "batch norm": (NORMED, [["w1", "wb1", "wm1", "w2", "wb2", "wm2"]]),
    "concat": (CONCATENATED, [["w1", "wb1"], ["w2", "wb2"]]),
}


def half_zero(text, cells):
    """The graph with half of each cell's channels zero, and its twin without zeros."""
    full = graph(text)
    rng, weights = np.random.default_rng(3), {}
    positive = {
        n: np.abs(v.const_value.numpy()) + 0.5 for n, v in full.graph.initializers.items() if n.startswith("wv")
    }
    for names in cells:
        axes = [int(n.partition(":")[2] or 0) for n in names]
        arrays = [full.graph.initializers[n.partition(":")[0]].const_value.numpy().copy() for n in names]
        size = arrays[0].shape[axes[0]]
        dead = rng.permutation(size)[: size // 2]
        for name, array, axis in zip(names, arrays, axes, strict=True):
            np.moveaxis(array, axis, 0)[dead] = 0
            weights[name.partition(":")[0]] = array
    return graph(text, **weights, **positive), graph(text, **positive)


def pruned(model, ratio):
    model = normalize(model).model
    feed = feeds(model, 1, batch=2)[0]
    ctx = Context(None, TARGETS["cpu-vnni"], CONFIG, {k: v.shape for k, v in feed.items()}, feed)
    step = Prune(PruneConfig(ratio=ratio, importance="l1", scope="uniform", round_to=1))
    plan = step.plan(model, ctx)
    result = step.apply(model, plan, ctx)
    assert step.prove(model, result, plan, ctx).passed
    return plan, result


def difference(a, b):
    """max|Δ| / max|value| over a few feeds."""
    items = feeds(a, 3, batch=2)
    pairs = [(run(a, f)[0], run(b, f)[0]) for f in items]
    return max(float(np.abs(y - z).max() / np.abs(y).max()) for y, z in pairs)


@pytest.mark.parametrize("ratio", [0.2, 0.37, 0.5])
@pytest.mark.parametrize("name", TOPOLOGY)
def test_cutting_the_half_that_is_zero_leaves_the_outputs_unchanged(name, ratio):
    model, _ = half_zero(*TOPOLOGY[name])
    plan, result = pruned(model, ratio)
    assert len(plan.cells) == len(TOPOLOGY[name][1])
    assert all(c.size - len(c.keep) == int(c.size * ratio) for c in plan.cells), "rounded down in each cell"
    assert cost(result).parameters < cost(model).parameters
    assert difference(model, result) <= 1e-6


@pytest.mark.parametrize("name", TOPOLOGY)
def test_the_same_cut_of_a_model_without_zeros_does_change_them(name):
    _, model = half_zero(*TOPOLOGY[name])
    _, result = pruned(model, 0.5)
    assert difference(model, result) > 1e-2


@pytest.mark.parametrize("name", ["plain", "residual", "batch norm"])
def test_beyond_the_half_that_is_zero_the_outputs_change(name):
    model, _ = half_zero(*TOPOLOGY[name])
    _, result = pruned(model, 0.7)
    assert difference(model, result) > 1e-3
