"""What a recipe says of single nodes and tensors."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph
from quantize_cases import TWO, quantized

from onnxcomp.errors import RecipeError, UsageError
from onnxcomp.passes.base import Evidence
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.recipe import parse_recipe


def planned(**config: object):
    rng = np.random.default_rng(0)
    items = [{"x": rng.standard_normal((1, 16, 8, 8)).astype(np.float32)} for _ in range(8)]
    items[0]["x"][0, :, 0, 0] = 40  # an outlier, on which the methods differ
    found = quantized(graph(TWO), items, correct="none")
    return found.plan, Quantize(QuantizeConfig(correct="none", **config)).plan(found.before, found.ctx)


def test_a_node_set_to_float_stays_float_with_a_reason():
    _, plan = planned(nodes={"*_a": "float"})
    assert plan.quantized() == {"Conv_y"}
    assert any(skip.node == "Conv_a" for skip in plan.left_alone())


def test_a_node_set_to_int8_is_never_given_back():
    _, plan = planned(nodes={"Conv_a": "int8"})
    assert plan.pinned == ("Conv_a",)

    def error_of(other) -> float:
        return float("Conv_a" in other.quantized()) + 0.1 * ("Conv_y" in other.quantized())

    evidence = Evidence("fidelity", error=1.1, allowed=0.5, error_of=error_of)
    relaxed = Quantize().relax(plan.model_copy(update={"alternatives": {}}), evidence)
    assert relaxed is not None
    assert relaxed.quantized() == {"Conv_a"}


def test_a_tensor_has_the_range_or_the_method_that_was_asked_for():
    default, plan = planned(tensors={"x": (-2.0, 6.0), "a": "minmax"})
    scale, zero = plan.tensors["x"].scale[0], plan.tensors["x"].zero_point
    assert -zero * scale == pytest.approx(-2.0, rel=0.02)
    assert (255 - zero) * scale == pytest.approx(6.0, rel=0.02)
    assert plan.tensors["x"] != default.tensors["x"]
    assert plan.tensors["a"] == default.alternatives["minmax"]["a"]
    assert plan.tensors["a"] != default.tensors["a"]
    for method in plan.alternatives:
        assert plan.alternatives[method]["x"] == plan.tensors["x"], "another method for the rest leaves it alone"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"nodes": {"Cnov*": "float"}}, "no node and no operator type"),
        ({"tensors": {"zz": "mse"}}, "no quantised tensor"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(config, told):
    with pytest.raises(UsageError, match=told):
        planned(**config)


def test_both_are_written_in_a_recipe():
    step = parse_recipe(
        """
        [[step]]
        pass = "quantize"
        nodes = { "/head/*" = "float" }
        [step.tensors]
        "/stem/Conv_output_0" = [0.0, 6.0]
        "/logits" = "percentile"
        """,
        "example",
    ).step[0]
    assert step.nodes == {"/head/*": "float"}
    assert step.tensors == {"/stem/Conv_output_0": (0.0, 6.0), "/logits": "percentile"}
    with pytest.raises(RecipeError, match=r"step\[0\]\.nodes"):
        parse_recipe('[[step]]\npass = "quantize"\nnodes = { a = "int4" }', "example")


def test_a_way_to_quantise_that_would_not_obey_them_is_refused():
    with pytest.raises(RecipeError, match='mode = "static"'):
        parse_recipe('[[step]]\npass = "quantize"\nmode = "auto"\nnodes = { "/head/*" = "float" }', "example")
