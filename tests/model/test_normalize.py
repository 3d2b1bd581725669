"""The canonical form computes what the model computes; ONNX Runtime is asked both times."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import feeds, graph, run

from onnxcomp.model.normalize import clone, name_nodes, name_values, normalize


def _same(model: ir.Model, *, batch: int = 2, feed: dict[str, np.ndarray] | None = None) -> ir.Model:
    """Normalizes; checks outputs, signature, and that the argument is as it was."""
    feed = feed or feeds(model, 1, batch=batch)[0]
    before, expected = ir.to_proto(model).SerializeToString(deterministic=True), run(model, feed)
    result = normalize(model).model
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert [v.name for v in result.graph.outputs] == [v.name for v in model.graph.outputs]
    for a, b in zip(expected, run(result, feed), strict=True):
        np.testing.assert_array_equal(a, b)
    onnx.checker.check_model(ir.to_proto(result))
    return result


def _parsed(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def test_constant_nodes_become_initializers_whatever_they_hold():
    result = _same(
        graph("""g (float[2] x) => (float[2] y) {
        a = Constant<value = float[2] {1,2}>() b = Constant<value_float = 3.0>() c = Constant<value_floats =
        [1.0, 2.0]>()
        s = Constant<value_int = 1>() t = Constant<value_ints = [2]>()
        u = Add(x, a) v = Mul(u, b) w = Add(v, c) e = Expand(w, t) f = Cast<to=1>(s) y = Add(e, f) }""")
    )
    assert [n.op_type for n in result.graph] == ["Add", "Mul", "Add", "Expand", "Cast", "Add"]
    assert set("abcst") <= set(result.graph.initializers)


def test_constants_in_bodies_are_lifted_inside_their_body():
    result = _same(
        graph("""g (float[2] x, bool k) => (float[2] y) {
        y = If(k) <then_branch = p () => (float[2] r) { c = Constant<value = float[2] {1,2}>() r = Add(x, c) },
                   else_branch = q () => (float[2] r) { c = Constant<value = float[2] {3,4}>() r = Add(x, c) }> }"""),
        feed={"x": np.ones(2, np.float32), "k": np.asarray(True)},
    )
    assert all("c" in body.initializers for body in result.graph.subgraphs())


def test_a_constant_that_is_an_output_stays_an_output():
    result = _same(
        graph("g (float[2] x) => (float[2] y, float[1] c) { c = Constant<value = float[1] {5}>() y = Add(x, c) }")
    )
    assert [v.name for v in result.graph.outputs] == ["y", "c"]


def test_initializers_among_the_inputs_are_taken_out_and_said_aloud_from_ir_4_on():
    text = "g (float[N,3] x, float[3,4] w) => (float[N,4] y) { y = MatMul(x, w) }"
    for ir_version, notes in ((3, 0), (8, 1)):
        model = graph(text, ir_version=ir_version, opset=13 if ir_version == 8 else 8)
        model.graph.inputs.append(model.graph.initializers["w"])
        result = normalize(model)
        assert [v.name for v in result.model.graph.inputs] == ["x"]
        assert len(result.notes) == notes
        assert result.model.ir_version >= 4


FUNCTION = """<ir_version: 8, opset_import: ["": {model}, "f": 1]>
    g (float[N,4] x, bool k) => (float[N,4] y) {{
        t = f.scaled<by = 2.0>(x) u = f.scaled<by = 3.0>(t)
        y = If(k) <then_branch = p () => (float[N,4] r) {{ r = f.scaled<by = 5.0>(u) }},
                   else_branch = q () => (float[N,4] r) {{ t_3 = Neg(u) r = Abs(t_3) }}> }}
    <domain: "f", opset_import: ["": {function}]>
    scaled <by> (a) => (b) {{ t = Constant<value_float: float = @by>() t_2 = {op}(a) b = Mul(t_2, t) }}"""


@pytest.mark.parametrize(("model", "function"), [(17, 17), (17, 15), (18, 17)])
def test_functions_are_inlined_in_the_graph_and_in_bodies_without_name_clashes(model, function):
    feed = {"x": np.ones((2, 4), np.float32), "k": np.asarray(True)}
    result = _same(_parsed(FUNCTION.format(model=model, function=function, op="Relu")), feed=feed)
    assert not result.functions
    assert "f" not in result.opset_imports
    assert [n.op_type for n in result.graph] == ["Relu", "Mul", "Relu", "Mul", "If"]


def test_functions_of_an_old_model_are_inlined_before_it_is_lifted():
    feed = {"x": np.ones((2, 4), np.float32), "k": np.asarray(True)}
    result = normalize(_parsed(FUNCTION.format(model=12, function=12, op="Softmax")))
    assert result.notes == ()
    assert result.model.opset_imports[""] == 13
    np.testing.assert_allclose(run(result.model, feed)[0].sum(), 2 * 5.0, rtol=1e-6)


def test_a_function_of_another_opset_whose_operators_differ_is_left_alone_with_the_reason():
    model = _parsed(FUNCTION.format(model=17, function=12, op="Softmax"))
    result = normalize(model)
    assert "Softmax differs between opset 12 (in scaled) and 17 (the model)" in result.notes[0]
    assert len(result.model.functions) == 1


def test_nodes_that_nobody_reads_go_and_custom_domains_stay():
    model = graph("g (float[2] x, float[2] w) => (float[2] y) { d = Add(x, w) y = com.microsoft.Gelu(x) }")
    result = _same(model)
    assert [n.op_type for n in result.graph] == ["Gelu"]
    assert not result.graph.initializers
    assert result.opset_imports["com.microsoft"] == 1


def test_two_custom_domains_pass_through():
    model = _parsed("""<ir_version: 8, opset_import: ["": 17, "a.b": 1, "c": 3]>
        g (float[2] x) => (float[2] y) { t = a.b.Foo<k = 2>(x) y = c.Foo(t) }""")
    result = normalize(model).model
    assert [(n.domain, n.op_type) for n in result.graph] == [("a.b", "Foo"), ("c", "Foo")]
    assert (result.opset_imports["a.b"], result.opset_imports["c"]) == (1, 3)


def test_every_node_gets_a_name_of_its_own_and_good_names_stay():
    model = graph("g (float[2] x) => (float[2] y) { a = Relu(x) b = Relu(a) c = Relu(b) y = Neg(c) }")
    for node, name in zip(model.graph, ("act", "act", "", "Relu_b"), strict=True):
        node.name = name
    name_nodes(model)
    assert [n.name for n in model.graph] == ["act", "Relu_b_1", "Relu_c", "Relu_b"]


def test_a_value_that_hides_one_around_it_is_renamed():
    model = graph("""g (float[2] x, bool k) => (float[2] y) { t = Relu(x)
        y = If(k) <then_branch = p () => (float[2] r) { u = Neg(t) r = Abs(u) },
                   else_branch = q () => (float[2] r) { u = Abs(t) r = Neg(u) }> }""")
    for body in model.graph.subgraphs():
        body[0].outputs[0].name = "t"
    name_values(model)
    assert [body[0].outputs[0].name for body in model.graph.subgraphs()] == ["t_1", "t_1"]
    assert model.graph[0].outputs[0].name == "t"
    run(model, {"x": np.ones(2, np.float32), "k": np.asarray(True)})


def test_names_of_inputs_and_outputs_win_over_new_values():
    model = graph("g (float[2] x) => (float[2] y) { t = Relu(x) y = Neg(t) }")
    model.graph[0].outputs[0].name = "y"
    name_values(model)
    assert [n.outputs[0].name for n in model.graph] == ["y_1", "y"]


@pytest.mark.parametrize(
    "text",
    [
        "g (float[N,3] x) => (float[N,3] y, float[N,3] y) { y = Relu(x) }",
        "g (float[N,3] x) => (float[N,3] x, float[N,3] y) { y = Relu(x) }",
        "g (float[3] x, float[3] w) => (float[3] y, float[3] w) { y = Add(x, w) }",
        "g (float x) => (float y) { y = Relu(x) }",
    ],
)
def test_odd_outputs_pass_through(text):
    _same(graph(text))


def test_omitted_inputs_and_outputs_stay_omitted():
    result = _same(
        graph("""g (float[5,2,3] x, float[1,16,3] w1, float[1,16,4] w2) => (float[1,2,4] h) {
        , h = LSTM<hidden_size=4>(x, w1, w2) }""")
    )
    assert [v.name for v in result.graph[0].outputs] == ["", "h"]


def test_weights_are_shared_with_the_argument():
    model = graph("g (float[N,3] x, float[3,4] w) => (float[N,4] y) { y = MatMul(x, w) }")
    for copy in (clone(model), normalize(model).model):
        assert copy.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
