"""Models that draw random numbers: both of two that are compared draw the same, and neither keeps the seeds."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import context, cosine, feeds, graph, run

from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import serialize
from onnxcomp.ops.draws import drawing, seeded
from onnxcomp.passes.precision.precision import Precision
from onnxcomp.passes.simplify.simplify import Simplify

NOISY = """g (float[N,8] x, float[8,8] w, float[8,4] w2) => (float[N,4] y) {
    a = MatMul(x, w)
    e = {drawn}
    z = Add(a, e)
    y = MatMul(z, w2)
}"""
DRAWS = ("RandomNormalLike(a)", "RandomUniformLike<low = -1.0>(a)", "RandomNormalLike<dtype = 1>(x)")


def with_a_node_more(model):
    """The same computation, in which the node that draws has another place."""
    proto = onnx.load_from_string(serialize(model))
    idle = [onnx.helper.make_node("Neg", ["x"], ["n"]), onnx.helper.make_node("Neg", ["n"], ["x2"])]
    proto.graph.node[0].input[0] = "x2"
    nodes = [*idle, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return ir.from_proto(proto)


@pytest.mark.parametrize("drawn", DRAWS)
def test_a_node_more_changes_no_draw(drawn):
    before = graph(NOISY.replace("{drawn}", drawn))
    after = with_a_node_more(before)
    feed = feeds(before)[0]
    for y, z in zip(run(before, feed), run(after, feed), strict=True):
        np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)


def test_two_draws_in_one_model_are_different_and_seeds_of_the_model_stay():
    model = graph(
        """g (float[4] x) => (float[4] y, float[4] z, float[4] s) {
            y = RandomNormalLike(x) z = RandomNormalLike(x) s = RandomNormalLike<seed = 7.0>(x)
        }"""
    )
    y, z, _ = run(model, feeds(model)[0])
    assert not np.allclose(y, z)
    with seeded(model):
        seeds = [node.attributes["seed"].as_float() for node in drawing(model)]
    assert seeds[2] == 7.0
    assert seeds[0] != seeds[1]


def test_no_seed_is_left_in_a_model_that_was_run():
    model = graph(NOISY.replace("{drawn}", DRAWS[0]))
    text = serialize(model)
    run(model, feeds(model)[0])
    assert serialize(model) == text
    assert b"seed" not in text


@pytest.mark.parametrize("drawn", DRAWS)
@pytest.mark.parametrize("step", [Simplify(), Precision()])
def test_passes_are_judged_by_what_they_did_and_not_by_the_dice(drawn, step):
    before = normalize(graph(NOISY.replace("{drawn}", drawn))).model
    given = feeds(before)
    ctx = context(given)
    after = step.apply(before, step.plan(before, ctx), ctx)
    for y, z in zip(run(before, given[0]), run(after, given[0]), strict=True):
        assert cosine(y, z) > 0.9999
