"""Values inside of two models: matched by name, and the error is the ratio of energies that it is said to be."""

from __future__ import annotations

from math import inf

import numpy as np
import onnx_ir as ir
import pytest
from graphs import feeds, graph, run

from onnxcomp.evaluate import layers as module
from onnxcomp.evaluate.layers import compare_layers, observed_values
from onnxcomp.model.normalize import giving, normalize
from onnxcomp.runtime.session import SessionConfig

CHAIN = """g (float[N,8] x, float[8,16] w1, float[16,4] w2) => (float[N,4] y) {
    a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2)
}"""
CONFIG = SessionConfig()


def canonical(text: str, **weights: np.ndarray) -> ir.Model:
    return normalize(graph(text, **weights)).model


def test_equal_models_have_no_error_anywhere() -> None:
    model = canonical(CHAIN)
    found = compare_layers(model, model, feeds(model, 3), CONFIG)
    assert {x.name: x.error for x in found.errors} == {"a": 0.0, "b": 0.0, "y": 0.0}
    assert (found.values, found.matched) == (3, 3)


def test_the_error_is_the_energy_of_the_difference_over_that_of_a() -> None:
    a = canonical(CHAIN)
    b = canonical(CHAIN, w2=np.asarray(a.graph.initializers["w2"].const_value.numpy() * 1.1))
    given = feeds(a, 3)
    found = {x.name: x for x in compare_layers(a, b, given, CONFIG).errors}
    assert found["y"].error == pytest.approx(0.01, rel=1e-4)
    assert (found["a"].error, found["y"].op_type) == (0.0, "MatMul")
    own = [run(giving(a, ["y"]), feed)[0] for feed in given]
    other = [run(giving(b, ["y"]), feed)[0] for feed in given]
    noise = sum(float(((p - q).astype(np.float64) ** 2).sum()) for p, q in zip(own, other, strict=True))
    assert found["y"].error == pytest.approx(noise / sum(float((p.astype(np.float64) ** 2).sum()) for p in own), 1e-5)


def test_the_worst_comes_first_and_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = canonical(CHAIN), canonical(CHAIN, w2=np.zeros((16, 4), np.float32))
    whole = compare_layers(a, b, feeds(a, 2), CONFIG)
    monkeypatch.setattr(module, "GROUP_VALUES", 1)
    assert compare_layers(a, b, feeds(a, 2), CONFIG) == whole
    assert (whole.errors[0].name, whole.errors[0].error) == ("y", 1.0)


def test_a_dequantised_value_stands_for_the_one_it_was() -> None:
    quantised = canonical("""g (float[N,8] x, float[8,16] w1, float[16,4] w2) => (float[N,4] y) {
        a = MatMul(x, w1) s = Constant<value = float {0.05}>() z = Constant<value = uint8 {0}>()
        b = Relu(a) b_q = QuantizeLinear(b, s, z) c = DequantizeLinear(b_q, s, z) y = MatMul(c, w2)
    }""")
    next(v for n in quantised.graph for v in n.outputs if v.name == "c").name = "b.dequantized"
    assert observed_values(quantised)["b"].name == "b.dequantized"
    a = canonical(CHAIN)
    found = {x.name: x for x in compare_layers(a, quantised, feeds(a, 2), CONFIG).errors}
    assert 0 < found["b"].error < 1e-2
    assert found["b"].op_type == "Relu"


def test_pruned_channels_are_named_and_not_compared() -> None:
    a = canonical(CHAIN)
    b = canonical(CHAIN.replace("16", "12"))
    found = compare_layers(a, b, feeds(a, 2), CONFIG)
    assert found.reshaped == ("a", "b")
    assert [x.name for x in found.errors] == ["y"]


def test_values_that_only_one_model_has_are_counted() -> None:
    a, b = canonical(CHAIN), canonical(CHAIN.replace("b = Relu(a) y = MatMul(b", "q = Relu(a) y = MatMul(q"))
    found = compare_layers(a, b, feeds(a, 1), CONFIG)
    assert (found.values, found.matched) == (3, 2)


def test_no_more_values_than_asked_for_spread_over_the_graph() -> None:
    body = " ".join(f"t{i + 1} = Neg(t{i})" for i in range(20))
    model = canonical(f"g (float[N,8] x) => (float[N,8] t20) {{ t0 = Relu(x) {body} }}")
    found = compare_layers(model, model, feeds(model, 1), CONFIG, most=5)
    assert [x.name for x in found.errors] == ["t0", "t4", "t8", "t12", "t16"]
    assert found.matched == 21


def test_equal_infinities_are_no_difference_and_unequal_ones_are_all_of_it() -> None:
    text = "g (float[N,8] x, float[8] w) => (float[N,8] y) { m = Mul(x, w) y = Relu(m) }"
    limits = np.asarray([np.inf, *[1.0] * 7], np.float32)
    a, b = canonical(text, w=limits), canonical(text, w=np.ones(8, np.float32))
    given = [{"x": np.ones((1, 8), np.float32)}]
    assert {x.error for x in compare_layers(a, a, given, CONFIG).errors} == {0.0}
    assert {x.error for x in compare_layers(a, b, given, CONFIG).errors} == {inf}
