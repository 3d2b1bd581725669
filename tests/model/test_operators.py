"""What the nodes of each type cost together."""

from __future__ import annotations

from graphs import feeds, graph

from onnxcomp.model.normalize import normalize
from onnxcomp.model.operators import OperatorCost, by_operator
from onnxcomp.runtime.call_shapes import shapes_of_call
from onnxcomp.runtime.session import SessionConfig


def costs(text: str) -> dict[str, OperatorCost]:
    model = normalize(graph(text)).model
    return by_operator(model, shapes_of_call(model, feeds(model, 1, batch=3)[0], SessionConfig()))


def test_nodes_macs_and_bytes_of_each_type() -> None:
    found = costs("""g (float[N,8] x, float[8,16] w1, float[16,4] w2) => (float[N,4] y) {
        a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2)
    }""")
    assert found == {
        "MatMul": OperatorCost(2, 3 * (8 * 16 + 16 * 4), 4 * (8 * 16 + 16 * 4)),
        "Relu": OperatorCost(1, 0, 0),
    }


def test_a_shared_weight_counts_once() -> None:
    found = costs("g (float[N,8] x, float[8,8] w) => (float[N,8] y) { a = MatMul(x, w) y = MatMul(a, w) }")
    assert found["MatMul"].bytes == 4 * 64


def test_the_bytes_of_an_integer_weight_belong_to_the_product_that_reads_it() -> None:
    found = costs("""g (float[N,8] x, int8[8,4] wq, float ws) => (float[N,4] y) {
        f = DequantizeLinear(wq, ws) y = MatMul(x, f)
    }""")
    assert found["MatMul"].bytes == 8 * 4 + 4
    assert found["DequantizeLinear"].bytes == 0
