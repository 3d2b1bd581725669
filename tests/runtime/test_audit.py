from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxcomp.errors import ModelError
from onnxcomp.runtime.audit import operator_counts, optimized_graph
from onnxcomp.runtime.session import SessionConfig

CONV_RELU = """g (float[1,4,8,8] x) => (float[1,CHANNELS,8,8] y) {
    shape = Constant<value_ints=[CHANNELS,4,3,3]>()
    half = Constant<value_float=0.5>()
    w = Expand(half, shape)
    c = Conv<pads=[1,1,1,1]>(x, w)
    y = Relu(c)
}"""


def test_a_convolution_and_its_relu_are_seen_as_one_operator(serialized: Callable[[str], bytes]) -> None:
    optimized = optimized_graph(serialized(CONV_RELU.replace("CHANNELS", "4")), SessionConfig(optimization="extended"))
    assert operator_counts(optimized) == {"com.microsoft:FusedConv": 1}


def test_without_optimisation_the_operators_are_those_of_the_file(serialized: Callable[[str], bytes]) -> None:
    optimized = optimized_graph(serialized(CONV_RELU.replace("CHANNELS", "4")), SessionConfig(optimization="none"))
    assert operator_counts(optimized)["Conv"] == 1
    assert operator_counts(optimized)["Relu"] == 1


def test_the_weights_of_the_optimised_graph_can_still_be_read(serialized: Callable[[str], bytes]) -> None:
    text = CONV_RELU.replace("CHANNELS", "64")
    optimized = optimized_graph(serialized(text), SessionConfig(optimization="extended"))
    (weight,) = (v.const_value for v in optimized.graph.initializers.values() if v.const_value is not None)
    assert isinstance(weight, ir.ExternalTensor)
    np.testing.assert_array_equal(weight.numpy(), np.full((64, 4, 3, 3), 0.5, np.float32))


def test_bodies_of_control_flow_are_counted() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (bool c, float[3] x) => (float[3] y) {
        y = If<then_branch = t () => (float[3] a) { a = Relu(x) },
               else_branch = e () => (float[3] b) { b = Relu(x) }>(c)
    }"""
    assert operator_counts(ir.from_onnx_text(text)) == {"If": 1, "Relu": 2}


def test_a_model_that_does_not_load_has_no_optimised_graph() -> None:
    with pytest.raises(ModelError):
        optimized_graph(b"garbage")
