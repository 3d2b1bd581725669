from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, run

from onnxcomp.errors import ModelError
from onnxcomp.model import shapes


def _shape(model: ir.Model, name: str) -> str:
    return str(ir.convenience.create_value_mapping(model.graph)[name].shape)


def test_a_stale_shape_does_not_survive():
    model = graph("g (float[2,3] x, float[3,4] w) => (float[a,b] y) { h = MatMul(x, w) y = Relu(h) }")
    model.graph[0].outputs[0].shape = ir.Shape([2, 99])
    shapes.refresh(model)
    assert _shape(model, "h") == "[2,4]"
    assert _shape(model, "y") == "[2,4]"


def test_what_the_file_declares_for_an_output_does_not_reach_what_is_computed_from_it():
    """Models made dynamic by editing their inputs often keep the old numbers at the outputs; the runtime only warns."""
    model = graph("g (float[N,3] x) => (float[1,3] y, int64[2] z) { y = Relu(x) z = Shape(y) h = Neg(y) }")
    shapes.refresh(model)
    assert _shape(model, "h") == "[N,3]"
    assert _shape(model, "y") == "[1,3]"
    assert shapes.trusted(model.graph.outputs[0]) is None


def test_an_output_that_is_an_input_keeps_its_shape():
    model = graph("g (float[N,3] x) => (float[N,3] x) { y = Relu(x) }")
    shapes.refresh(model)
    assert _shape(model, "x") == "[N,3]"


def test_declared_names_of_dynamic_output_dimensions_stay():
    model = graph("g (float[N,3] x, float[3,4] w) => (float[batch,classes] y) { y = MatMul(x, w) }")
    shapes.refresh(model)
    assert _shape(model, "y") == "[batch,4]"


def test_shapes_behind_custom_operators_stay_only_where_nothing_changed():
    def made() -> ir.Model:
        model = graph("g (float[2,3] x) => (float[a,b] y) { h = com.microsoft.Foo(x) y = Relu(h) }")
        model.graph[0].outputs[0].type, model.graph[0].outputs[0].shape = (
            ir.TensorType(ir.DataType.FLOAT),
            ir.Shape([2, 7]),
        )
        return model

    kept, cleared = made(), made()
    shapes.refresh(kept, keep_foreign=True)
    shapes.refresh(cleared)
    assert _shape(kept, "y") == "[2,7]"
    assert _shape(cleared, "h") == "None"


def test_what_inference_can_not_read_leaves_the_model_without_shapes():
    model = graph("g (float[2] x) => (float[2] y) { h = Cast<to=99>(x) y = Relu(h) }")
    shapes.refresh(model)
    assert _shape(model, "h") == "None"
    assert _shape(model, "y") == "[2]"


def test_values_inside_bodies_get_their_shapes():
    model = graph(
        """g (float[N,3] x, bool c, float[3,4] w) => (float[N,4] y) {
            y = If<then_branch = a () => (float[P,Q] p) { h = MatMul(x, w) p = Relu(h) },
                   else_branch = b () => (float[P,Q] q) { q = MatMul(x, w) }>(c) }"""
    )
    shapes.refresh(model)
    inner = next(iter(model.graph[0].attributes["then_branch"].as_graph()))
    assert str(inner.outputs[0].shape) == "[N,4]"


def test_a_bound_symbol_is_bound_everywhere():
    model = graph("g (float[N,3] x, float[N,3] z) => (float[N,3] y) { y = Add(x, z) }")
    shapes.bind(model, {"x": (5, 3)})
    assert [_shape(model, n) for n in ("x", "z", "y")] == ["[5,3]"] * 3


def test_a_symbol_that_two_inputs_bind_differently_stays_symbolic_elsewhere():
    model = graph("g (float[N,3] x, float[N,3] z, float[N,3] v) => (float[N,3] y) { y = Relu(v) a = Relu(x) }")
    shapes.bind(model, {"x": (5, 3), "z": (1, 3)})
    assert [_shape(model, n) for n in ("a", "z", "v")] == ["[5,3]", "[1,3]", "[N,3]"]


@pytest.mark.parametrize("wanted", [(5,), (5, 4), (1, 5, 3)])
def test_a_shape_that_does_not_fit_the_input_is_refused_with_both_shapes(wanted):
    model = graph("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    with pytest.raises(ModelError, match=r"input 'x' is \[N,3\] in the model") as caught:
        shapes.bind(model, {"x": wanted})
    assert str(list(wanted)) in caught.value.message
    assert caught.value.hint


def test_an_input_without_a_rank_takes_any_shape():
    model = graph("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    model.graph.inputs[0].shape = None
    shapes.bind(model, {"x": (5, 3), "no input": (1,)})
    assert _shape(model, "x") == "[5,3]"


SEQUENCE = "s = SplitToSequence<axis=1, keepdims=1>(x, w)"


@pytest.mark.parametrize(
    "nodes",
    [
        f"{SEQUENCE} y = ConcatFromSequence<axis=1>(s)",
        f"{SEQUENCE} t = Identity(s) y = ConcatFromSequence<axis=1>(t)",
        "s = SequenceConstruct(x, x) y = ConcatFromSequence<axis=1>(s)",
        f"""{SEQUENCE} z = ReduceMax<keepdims=0>(x) c = Cast<to=9>(z)
            t = If<then_branch = a () => (seq(float[N,3]) p) {{ p = Identity(s) }},
                   else_branch = b () => (seq(float[N,3]) q) {{ q = Identity(s) }}>(c)
            y = ConcatFromSequence<axis=1>(t)""",
    ],
    ids=["split", "identity", "construct", "if"],
)
def test_sequences_stay_sequences(nodes):
    """onnx-ir's own inference writes the dtype of the elements into a value without a type: a tensor then."""
    model = graph(f"g (float[N,6] x, int64 w) => (float[N,M] y) {{ {nodes} }}", w=np.array(2))
    x = {"x": np.arange(12, dtype=np.float32).reshape(2, 6)}
    expected = run(model, x)
    shapes.refresh(model)
    np.testing.assert_array_equal(run(model, x)[0], expected[0])
    shapes.refresh(model)
    assert all(not isinstance(v.type, ir.TensorType) for n in model.graph for v in n.outputs if v.name in ("s", "t"))
