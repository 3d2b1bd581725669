from __future__ import annotations

import pytest
from graphs import graph

from onnxcomp.model.normalize import normalize
from onnxcomp.passes.selection import left_out, unmatched, unselected
from onnxcomp.report.reasons import Reason


def _model():
    model = normalize(
        graph("g (float[2] x) => (float[2] y) { a = Relu(x) b = Neg(a) y = com.microsoft.Gelu(b) }")
    ).model
    for node, name in zip(model.graph, ("block[0]/act", "block[1]/neg", "head"), strict=True):
        node.name = name
    return model


@pytest.mark.parametrize(
    ("only", "exclude", "left"),
    [
        ((), (), set()),
        ((), ("Relu",), {"block[0]/act"}),
        ((), ("block*",), {"block[0]/act", "block[1]/neg"}),
        (("com.microsoft:Gelu",), (), {"block[0]/act", "block[1]/neg"}),
        (("Neg", "head"), ("head",), {"block[0]/act", "head"}),
        (("block[0]/act",), (), {"block[1]/neg", "head"}),
    ],
)
def test_globs_of_names_and_operator_types_select_nodes(only, exclude, left):
    assert unselected(_model(), only, exclude) == left


def test_exclude_is_stronger_than_only_and_each_has_its_reason():
    node = _model().graph[0]
    assert left_out(node, ("Relu",), ("Relu",)) is Reason.EXCLUDED
    assert left_out(node, ("Neg",), ()) is Reason.NOT_SELECTED
    assert left_out(node, ("Relu",), ()) is None


def test_a_pattern_that_matches_nothing_is_found():
    assert unmatched(_model(), ["Relu", "Convv", "block[1]/neg"]) == ["Convv"]
