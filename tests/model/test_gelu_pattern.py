"""GELU written as arithmetic becomes Gelu; ONNX Runtime computes the same from both."""

from __future__ import annotations

import re
from math import pi, sqrt

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import feeds, graph, run
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.model.normalize import normalize
from onnxcomp.ops.attributes import string_attribute
from onnxcomp.ops.upgrade import RULES, CannotLift

NUMBERS = {
    "w_r": sqrt(2),
    "w_i": 1 / sqrt(2),
    "w_one": 1,
    "w_half": 0.5,
    "w_two": 2,
    "w_three": 3,
    "w_k": sqrt(2 / pi),
    "w_c": 0.044715,
    "w_kc": 0.044715 * sqrt(2 / pi),
}
HEAD = f"g (float[N,6] x, {', '.join(f'float {name}' for name in NUMBERS)}) => (float[N,6] y) "


def model(body: str, *, head: str = HEAD, opset: int = 17, **weights: np.ndarray) -> ir.Model:
    numbers = {name: np.asarray(value, np.float32) for name, value in NUMBERS.items()}
    return graph(head + "{ " + body + " }", opset=opset, **(numbers | weights))


def recognised(source: ir.Model) -> ir.Model:
    """The canonical form, which computes what ONNX Runtime computes from the source."""
    result = normalize(source).model
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert [v.name for v in result.graph.outputs] == [v.name for v in source.graph.outputs]
    for feed in feeds(source, 2, batch=50, scale=2.0):
        for a, b in zip(run(source, feed), run(result, feed), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)
    return result


def kinds(result: ir.Model) -> list[str]:
    return [node.op_type for node in result.graph]


ERF = "d = Div(x, w_r) e = Erf(d) a = Add(e, w_one) "
CUBE = "p = Pow(x, w_three) q = Mul(p, w_c) r = Add(x, q) s = Mul(r, w_k) t = Tanh(s) a = Add(t, w_one) "
ORDERS = {
    "as PyTorch writes it": (ERF + "g = Mul(x, a) y = Mul(g, w_half)", "none"),
    "half of x first": (ERF + "h = Mul(x, w_half) y = Mul(h, a)", "none"),
    "half of the sum": (ERF + "h = Mul(a, w_half) y = Mul(x, h)", "none"),
    "half by division": (ERF + "h = Div(x, w_two) y = Mul(a, h)", "none"),
    "a product as argument": ("d = Mul(w_i, x) e = Erf(d) a = Add(w_one, e) g = Mul(a, x) y = Mul(w_half, g)", "none"),
    "half in both terms": ("d = Mul(x, w_i) e = Erf(d) h = Mul(x, w_half) k = Mul(h, e) y = Add(h, k)", "none"),
    "half of erf": ("d = Mul(x, w_i) e = Erf(d) k = Mul(e, w_half) a = Add(k, w_half) y = Mul(a, x)", "none"),
    "tanh as GPT-2 writes it": (CUBE + "h = Mul(x, w_half) y = Mul(h, a)", "tanh"),
    "tanh, half last": (CUBE + "g = Mul(x, a) y = Mul(g, w_half)", "tanh"),
    "tanh with products": ("u = Mul(x, x) p = Mul(u, x) q = Mul(w_c, p) r = Add(q, x) s = Mul(w_k, r) t = Tanh(s) "
                           "a = Add(w_one, t) h = Mul(w_half, x) y = Mul(a, h)", "tanh"),
    "tanh of x in brackets": ("l = Mul(x, w_k) u = Mul(x, w_c) q = Mul(u, x) b = Add(q, w_one) s = Mul(l, b) "
                              "t = Tanh(s) a = Add(t, w_one) h = Mul(x, w_half) y = Mul(h, a)", "tanh"),
    "tanh with both factors multiplied out": ("p = Pow(x, w_three) q = Mul(p, w_kc) l = Mul(x, w_k) s = Add(l, q) "
                                              "t = Tanh(s) a = Add(t, w_one) g = Mul(x, a) y = Mul(g, w_half)", "tanh"),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_is_one_gelu(order):
    body, approximate = ORDERS[order]
    result = recognised(model(body))
    assert kinds(result) == ["Gelu"]
    assert string_attribute(result.graph[0], "approximate", "") == approximate
    assert (result.opset_imports[""], result.ir_version) == (20, 9)


def test_x_may_itself_be_arithmetic():
    for source in (
        "x = Add(x0, w_one)",
        "x = Mul(x0, x0)",
        "x = Div(x0, w_r)",
        "x = Erf(x0)",
        "z = Mul(x0, w_half) x = Tanh(z)",
    ):
        for body, _ in ORDERS.values():
            result = recognised(model(f"{source} {body}", head=HEAD.replace("] x,", "] x0,")))
            assert kinds(result) == [
                *kinds(model(source + " y = Neg(x)", head=HEAD.replace("] x,", "] x0,")))[:-1],
                "Gelu",
            ]


def test_a_gelu_inside_a_model_keeps_what_is_around_it():
    head = HEAD.replace("(float[N,6] x,", "(float[N,4] i, float[4,6] w1, float[6] w2,")
    result = recognised(model("m = MatMul(i, w1) x = Add(m, w2) " + ORDERS["as PyTorch writes it"][0], head=head))
    assert kinds(result) == ["MatMul", "Add", "Gelu"]


def test_two_gelus_in_a_row_are_both_found():
    first = ORDERS["as PyTorch writes it"][0].replace("y = ", "z = ")
    second = "d2 = Div(z, w_r) e2 = Erf(d2) a2 = Add(e2, w_one) g2 = Mul(z, a2) y = Mul(g2, w_half)"
    assert kinds(recognised(model(first + " " + second))) == ["Gelu", "Gelu"]


def test_a_model_of_an_old_opset_is_lifted():
    result = recognised(
        model(
            "z = ReduceMax<axes = [1]>(x) " + ORDERS["half of x first"][0].replace("y =", "k =") + " y = Add(k, z)",
            opset=11,
        )
    )
    assert (sorted(kinds(result)), result.opset_imports[""]) == (["Add", "Gelu", "ReduceMax"], 20)


PYTORCH, GPT2 = ORDERS["as PyTorch writes it"][0], ORDERS["tanh as GPT-2 writes it"][0]
NEAR_MISSES = {
    "another divisor": PYTORCH.replace("w_r", "w_two"),
    "another addend": PYTORCH.replace("Add(e, w_one)", "Add(e, w_two)"),
    "another factor": PYTORCH.replace("w_half", "w_two"),
    "no factor": ERF + "y = Mul(x, a)",
    "another function": PYTORCH.replace("Erf", "Tanh"),
    "tanh of erf's form": GPT2.replace("Tanh", "Erf"),
    "the square, not the cube": GPT2.replace("w_three", "w_two"),
    "another coefficient": GPT2.replace("w_c", "w_k"),
    "another operand": "z = Neg(x) " + PYTORCH.replace("Mul(x, a)", "Mul(z, a)"),
    "a sum in place of the product": PYTORCH.replace("Mul(x, a)", "Add(x, a)"),
    "SiLU": "e = Sigmoid(x) y = Mul(x, e)",
    "a divided number": PYTORCH.replace("Div(x, w_r)", "Div(w_r, x)"),
    "a function that is read elsewhere": PYTORCH.replace("y = Mul(g, w_half)", "h = Mul(g, w_half) y = Add(h, e)"),
    "a sum that is read elsewhere": PYTORCH.replace("y = Mul(g, w_half)", "h = Mul(g, w_half) y = Add(h, a)"),
    "half of x that is read elsewhere": ERF + "h = Mul(x, w_half) k = Mul(h, a) y = Add(k, h)",
}  # fmt: skip


@pytest.mark.parametrize("miss", NEAR_MISSES)
def test_what_only_looks_like_gelu_stays(miss):
    source = model(NEAR_MISSES[miss])
    result = recognised(source)
    assert "Gelu" not in kinds(result)
    assert (len(result.graph), result.opset_imports[""]) == (len(source.graph), 17)


@pytest.mark.parametrize("inner", ["d", "e", "a", "g"])
def test_a_value_on_the_way_that_is_an_output_of_the_graph_stays(inner):
    assert "Gelu" not in kinds(recognised(model(PYTORCH, head=HEAD.replace("] y)", f"] y, float[N,6] {inner})"))))


def test_a_constant_that_adds_an_axis_or_differs_by_channel_is_no_number():
    for shape in ((1, 1, 1), (6,)):
        head = HEAD.replace("float w_one", f"float[{','.join(map(str, shape))}] w_one").replace("[N,6] y", "[a,b,c] y")
        weights = np.ones(shape, np.float32)
        assert "Gelu" not in kinds(recognised(model(PYTORCH, head=head, w_one=weights)))


def test_half_precision_stays_because_onnx_runtime_has_no_kernel_for_it():
    head = HEAD.replace("float", "float16")
    half = {name: np.asarray(value, np.float16) for name, value in NUMBERS.items()}
    assert "Gelu" not in kinds(normalize(model(PYTORCH, head=head, **half)).model)


NORM = """m = ReduceMean<axes = [-1]>(y0) c = Sub(y0, m) c2 = Mul(c, c) v = ReduceMean<axes = [-1]>(c2)
    u = Add(v, w_c) o = Sqrt(u) y = Div(c, o)"""


def test_norm_and_gelu_are_recognised_together():
    assert kinds(recognised(model(PYTORCH.replace("y = ", "y0 = ") + NORM))) == ["Gelu", "LayerNormalization"]


def test_a_norm_is_recognised_where_only_the_opset_of_gelu_cannot_be_had(monkeypatch):
    def refuse(node: ir.Node) -> None:
        raise CannotLift("not this one")

    monkeypatch.setitem(RULES, ("Neg", 18), refuse)
    source = model(PYTORCH.replace("y = ", "z = ") + "y0 = Neg(z) " + NORM, opset=13)
    result = normalize(source)
    assert kinds(result.model)[-1] == "LayerNormalization"
    assert ("Gelu" in kinds(result.model), result.model.opset_imports[""]) == (False, 17)
    assert "operators of opset 20 stay written as arithmetic, because it can't be lifted: not this one" in result.notes


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_shape_computes_the_same(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    own = [1] * data.draw(st.integers(0, len(shape)))
    body, _ = ORDERS[data.draw(st.sampled_from(sorted(ORDERS)))]
    head = HEAD.replace("N,6", ",".join(map(str, shape)))
    head = re.sub(r"float (\w+)", rf"float[{','.join(map(str, own))}] \g<1>" if own else r"float \g<1>", head)
    weights = {name: np.full(own, value, np.float32) for name, value in NUMBERS.items()}
    assert kinds(recognised(model(body, head=head, **weights))) == ["Gelu"]
