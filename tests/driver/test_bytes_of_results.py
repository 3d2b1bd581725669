"""A result carries no bytes that its source did not need: types and shapes that anyone can infer."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from graphs import graph

import onnxcomp
from onnxcomp.model.save import serialize

CHAIN = """g (float[N,8] x, float[8,8] w) => (float[N,8] y) {
    a = MatMul(x, w) b = Identity(a) c = Relu(b) d = Neg(c) e = Abs(d) f = Neg(e) y = MatMul(f, w)
}"""


def simplified(source: ir.Model) -> onnx.ModelProto:
    result = onnxcomp.simplify(source)
    proto = onnx.load_from_string(serialize(result.model))
    assert len(proto.graph.node) < 7
    onnx.checker.check_model(proto, full_check=True)
    return proto


def test_a_file_without_types_between_its_nodes_gets_none():
    bare = ir.from_proto(onnx.load_from_string(serialize(graph(CHAIN))))
    assert not simplified(bare).graph.value_info


def test_types_that_the_source_tells_are_told_by_the_result():
    typed = onnx.shape_inference.infer_shapes(onnx.load_from_string(serialize(graph(CHAIN))))
    assert len(simplified(ir.from_proto(typed)).graph.value_info) >= 4


@pytest.mark.parametrize("typed", [False, True])
def test_weights_are_described_by_their_tensors_alone(typed):
    proto = onnx.load_from_string(serialize(graph(CHAIN)))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto) if typed else proto)
    names = {info.name for info in onnx.load_from_string(serialize(model)).graph.value_info}
    assert "w" not in names
    assert bool(names) is typed
