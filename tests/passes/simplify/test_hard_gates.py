"""Hard gates written as arithmetic become HardSigmoid."""

from __future__ import annotations

import pytest
from graphs import graph
from simplify_cases import kinds, simplified

CONSTANTS = """three = Constant<value = float {3.0}>() zero = Constant<value = float {0.0}>()
    six = Constant<value = float {6.0}>() sixth = Constant<value = float {0.16666667}>()
    one = Constant<value = float {1.0}>()
    half = Constant<value = float {0.5}>()"""


def gate(body: str, outputs: str = "float[N,3,4,4] y"):
    return graph(f"g (float[N,3,4,4] x) => ({outputs}) {{ {CONSTANTS} {body} }}")


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
        "a = Add(three, x) c = Clip(a, zero, six) m = Mul(c, x) y = Mul(m, sixth)",
        "a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)",
        "a = Add(x, three) c = Clip(a, zero, six) d = Mul(sixth, c) y = Mul(d, x)",
    ],
)
def test_hard_swish_is_one_gate_and_one_product(body):
    plan, after = simplified(gate(body))
    assert sorted(kinds(after)) == ["HardSigmoid", "Mul"]
    assert "written as one operator" in {e.action for e in plan.edits}


def test_a_gate_alone_is_one_operator_with_and_without_a_factor():
    assert kinds(simplified(gate("a = Add(x, half) y = Clip(a, zero, one)"))[1]) == ["HardSigmoid"]
    assert kinds(simplified(gate("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)"))[1]) == ["HardSigmoid"]


@pytest.mark.parametrize(
    "body",
    [
        "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, three)",
        "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(six, m)",
        "a = Add(x, three) c = Clip(a, half, six) y = Div(c, six)",
        "a = Add(x, three) c = Clip(a, zero, six) r = Relu(c) y = Div(r, six)",
        "a = Add(x, three) c = Clip(a, zero, zero) y = Div(c, six)",
        "a = Add(x, three) c = Clip(a, zero) y = Div(c, six)",
    ],
    ids=["another factor", "divided by", "another floor", "something between", "nothing left", "no ceiling"],
)
def test_what_is_no_gate_stays(body):
    plan, after = simplified(gate(body))
    assert "HardSigmoid" not in kinds(after)
    assert "written as one operator" not in {e.action for e in plan.edits}


def test_a_gate_whose_middle_others_read_stays():
    body = "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six) z = Relu(a)"
    assert "HardSigmoid" not in kinds(simplified(gate(body, "float[N,3,4,4] y, float[N,3,4,4] z"))[1])


def test_excluded_nodes_stay():
    body = "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)"
    assert "HardSigmoid" not in kinds(simplified(gate(body), exclude=("Clip",))[1])
