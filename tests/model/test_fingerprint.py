from __future__ import annotations

import numpy as np
import pytest
from graphs import graph

from onnxcomp.model.fingerprint import structure_sha256
from onnxcomp.model.normalize import clone

TEXT = "g (float[N,3,8,8] x, float[4,3,3,3] w) => (float[N,4,6,6] y) { a = Conv<pads=[0,0,0,0]>(x, w) y = Relu(a) }"


def test_values_of_weights_do_not_count():
    assert structure_sha256(graph(TEXT, seed=1)) == structure_sha256(graph(TEXT, seed=2))
    assert structure_sha256(graph(TEXT)) == structure_sha256(clone(graph(TEXT)))


@pytest.mark.parametrize(
    "other",
    [
        TEXT.replace("Relu", "Neg"),
        TEXT.replace("pads=[0,0,0,0]", "pads=[0,0,0,1]"),
        TEXT.replace("pads=[0,0,0,0]", "dilations=[1,1]"),
        TEXT.replace("4,3,3,3", "5,3,3,3"),
        TEXT.replace("w)", "v)").replace("w)", "v)").replace("] w", "] v"),
        TEXT.replace("y = Relu(a)", "b = Relu(a) y = Relu(b)"),
    ],
)
def test_operators_attributes_shapes_and_names_count(other):
    assert structure_sha256(graph(other)) != structure_sha256(graph(TEXT))


def test_dtype_and_opset_count():
    assert structure_sha256(graph(TEXT, opset=16)) != structure_sha256(graph(TEXT, opset=17))
    half = graph(TEXT, w=np.zeros((4, 3, 3, 3), np.float16))
    assert structure_sha256(half) != structure_sha256(graph(TEXT))


def test_names_with_separators_in_them_cannot_imitate_a_list_of_names():
    one = graph("g (float[2] x, float[2] z) => (float[2] y) { y = Sum(x, z) }")
    two = graph("g (float[2] x) => (float[2] y) { y = Sum(x) }")
    two.graph.inputs[0].name = "x', 'z"
    assert structure_sha256(one) != structure_sha256(two)
