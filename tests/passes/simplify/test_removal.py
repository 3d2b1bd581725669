from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph
from simplify_cases import codes, kinds, simplified

from onnxcomp.report.reasons import Reason


@pytest.mark.parametrize(
    "body",
    [
        "a = Identity(h) y = Neg(a)",
        "a = Dropout(h) y = Neg(a)",
        "a, m = Dropout(h) y = Neg(a)",
        "a = Cast<to=1>(h) y = Neg(a)",
        "a = Transpose<perm=[0,1]>(h) y = Neg(a)",
        "a = Concat<axis=1>(h) y = Neg(a)",
        "a = Sum(h) y = Neg(a)",
        "s = Constant<value = int64[2] {1,1}>() a = Tile(h, s) y = Neg(a)",
        "s = Constant<value = int64[2] {1,4}>() a = Expand(h, s) y = Neg(a)",
        "s = Constant<value = int64[2] {-1,4}>() a = Reshape(h, s) y = Neg(a)",
        "s = Constant<value = int64[4] {0,0,0,0}>() a = Pad(h, s) y = Neg(a)",
        "a = Neg(h) y = Identity(a)",
        "a = Neg(h) b = Identity(a) y = Dropout(b)",
    ],
)
def test_what_returns_its_input_is_removed(body):
    plan, after = simplified(graph(f"g (float[3,4] x) => (float[3,4] y) {{ h = Relu(x) {body} }}"))
    assert kinds(after) == ["Relu", "Neg"]
    assert plan.edits


@pytest.mark.parametrize(
    "body",
    [
        "y = Identity(x) z = Relu(x)",
        "z = Relu(x) y = Identity(z)",
        "y = Identity(w) z = Relu(x)",
    ],
)
def test_an_identity_that_names_an_output_stays_with_the_reason(body):
    plan, after = simplified(graph(f"g (float[3] x, float[3] w) => (float[3] y, float[3] z) {{ {body} }}"))
    assert "Identity" in kinds(after)
    assert codes(plan) == {"Identity": Reason.GRAPH_OUTPUT}


@pytest.mark.parametrize(
    "body",
    [
        "y = Cast<to=11>(x)",
        "y = Transpose<perm=[1,0]>(x)",
        "y, m = Dropout(x) k = Not(m) z = Cast<to=1>(k)",
        "t = Constant<value = bool {1}>() r = Constant<value = float {0.0}>() y = Dropout(x, r, t)",
        "s = Shape(x) y = Expand(x, s)",
    ],
)
def test_what_may_do_something_stays(body):
    outputs = "float[N,M] y" + (", float[N,M] z" if "z =" in body else "")
    model = graph(f"g (float[N,M] x) => ({outputs}) {{ {body} }}")
    if "to=11" in body:
        model.graph.outputs[0].dtype = ir.DataType.DOUBLE
    before = len(list(model.graph))
    assert len(kinds(simplified(model)[1])) >= min(before, 2) - 1 > 0 or before == 1


def test_a_dropout_without_its_optional_inputs_is_idle():
    model = graph("g (float[N,4] x, float w) => (float[N,4] y) { a = Dropout(x, w, ) y = Neg(a) }")
    assert kinds(simplified(model)[1]) == ["Neg"]


def test_a_reshape_whose_declared_output_shape_is_wrong_is_not_removed():
    """ONNX Runtime only warns about such files; what they declare proves nothing."""
    model = graph(
        "g (float[2,6] x) => (float[2,6] y) { h = Relu(x) s = Constant<value = int64[2] {3,4}>() y = Reshape(h, s) }"
    )
    _, after = simplified(model)
    assert kinds(after) == ["Relu", "Reshape"]


def test_tied_weights_behind_identities_stay_tied():
    """PyTorch's exporter writes shared weights as Identity of the first one."""
    model = graph(
        "g (float[N,64] x, float[64,64] w) => (float[N,64] y) { k = Identity(w) a = MatMul(x, w) y = MatMul(a, k) }"
    )
    _, after = simplified(model)
    assert kinds(after) == ["MatMul", "MatMul"]
    assert list(after.graph.initializers) == ["w"]


def test_an_identity_that_a_body_reads_is_removed_around_it():
    model = graph("""g (float[3] x, bool k) => (float[3] y) { h = Relu(x) a = Identity(h)
        y = If(k) <then_branch = p () => (float[3] r) { r = Neg(a) }, else_branch = q () => (float[3] r) { r =
        Abs(a) }> }""")
    for value in (True, False):
        _, after = simplified(model, feed={"x": np.ones(3, np.float32), "k": np.asarray(value)})
        assert kinds(after) == ["Relu", "If"]


def test_an_excluded_identity_stays():
    model = graph("g (float[3] x) => (float[3] y) { h = Relu(x) a = Identity(h) y = Neg(a) }")
    assert kinds(simplified(model, exclude=("Identity",))[1]) == ["Relu", "Identity", "Neg"]
