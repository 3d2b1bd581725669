"""What ONNX does not define is refused before our code meets it; each case was found by benchmarks/fuzz.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from onnxcomp.errors import ModelError
from onnxcomp.model.expansion import inlined_nodes
from onnxcomp.model.load import LoadLimits, load
from onnxcomp.model.normalize import free_name, normalize
from onnxcomp.runtime.session import SessionConfig, open_session

HEADER = '<ir_version: 9, opset_import: ["": 17]> '
TEXT = "g (float[2,3] x) => (float[2,3] y) { c = Constant <value_float = 1.0> () s = Add (x, c) y = Relu (s) }"


def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(HEADER + TEXT)


def _constant_attribute(name: str) -> Callable[[onnx.ModelProto], object]:
    return lambda proto: setattr(proto.graph.node[0].attribute[0], "name", name)


def _foreign(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].attribute.append(onnx.helper.make_attribute("alpha", 0.5))


def _required(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].op_type = "Cast"


def _twice(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(proto.graph.node[0].attribute[0])


def _kind(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].CopyFrom(onnx.helper.make_attribute("value_float", 3))


CASES: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "no inputs": (lambda p: p.graph.node[2].ClearField("input"), "has 0 inputs; the operator has 1"),
    "one too few": (lambda p: p.graph.node[1].input.pop(), "has 1 inputs; the operator has 2"),
    "one too many": (lambda p: p.graph.node[2].input.append("x"), "has 2 inputs; the operator has 1"),
    "no outputs": (lambda p: p.graph.node.add(op_type="Relu", input=["x"]), "has 0 outputs; the operator has 1"),
    "unknown attribute": (_constant_attribute("value_dloat"), "has no attribute 'value_dloat'"),
    "attribute of another operator": (_foreign, "has no attribute 'alpha'"),
    "attribute of another type": (_kind, "is a INT, not a FLOAT"),
    "attribute twice": (_twice, "twice"),
    "required attribute": (_required, "lacks the attribute 'to'"),
}


SEEN_BY_US_ONLY = {"unknown attribute", "attribute twice"}
"""Of Constant nodes, whose first attribute ONNX Runtime makes a weight of, whatever it is called."""


@pytest.mark.parametrize("name", CASES)
def test_a_node_that_is_not_what_its_operator_is_defined_to_be_is_refused(name: str) -> None:
    proto = model()
    load(proto)
    change, reason = CASES[name]
    change(proto)
    with pytest.raises(ModelError, match=reason):
        load(proto)
    if name in SEEN_BY_US_ONLY:
        return
    with pytest.raises(ModelError), open_session(proto.SerializeToString(), SessionConfig(threads=1)):
        pytest.fail("ONNX Runtime takes it")


def test_nodes_in_subgraphs_and_functions_are_held_against_the_opset_that_is_theirs() -> None:
    text = """g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] a) { a = Relu (x) },
                    else_branch = e () => (float[2] b) { b = Relu (x) }> }"""
    proto = onnx.parser.parse_model(HEADER + text)
    load(proto)
    proto.graph.node[0].attribute[1].g.node[0].input.append("x")
    with pytest.raises(ModelError, match="2 inputs"):
        load(proto)
    function = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 17, "local": 1]> g (float[2,3] x) => (float[2] y) { y = local.f (x) }
        <opset_import: ["": 11], domain: "local"> f (a) => (b) { b = ReduceSum <axes = [1], keepdims = 0> (a) }"""
    )
    load(function)  # from opset 13 on, axes are an input
    function.functions[0].opset_import[0].version = 13
    with pytest.raises(ModelError, match="no attribute 'axes'"):
        load(function)


def test_operators_of_other_domains_may_have_what_they_like() -> None:
    proto = model()
    proto.graph.node[2].domain = "com.microsoft"
    proto.graph.node[2].attribute.append(onnx.helper.make_attribute("alpha", 0.5))
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    load(proto)


PLACES: dict[str, Callable[[onnx.ModelProto], bytes]] = {
    "opset": lambda p: p.opset_import.add(domain="qqqq", version=1).SerializeToString(),
    "producer": lambda p: setattr(p, "producer_name", "qqqq") or b"",
    "metadata": lambda p: p.metadata_props.add(key="qqqq").SerializeToString(),
    "node": lambda p: setattr(p.graph.node[0], "name", "qqqq") or b"",
    "overload": lambda p: setattr(p.graph.node[0], "overload", "qqqq") or b"",
    "dimension": lambda p: setattr(p.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", "qqqq") or b"",
    "tensor": lambda p: p.graph.initializer.append(onnx.TensorProto(name="qqqq", data_type=1, float_data=[1])) or b"",
    "reference": lambda p: setattr(p.graph.node[0].attribute[0], "doc_string", "qqqq") or b"",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_text_that_is_not_utf_8_is_refused_wherever_it_stands(place: str) -> None:
    proto = model()
    PLACES[place](proto)
    content = proto.SerializeToString()
    load(content)
    assert content.count(b"qqqq") == 1
    with pytest.raises(ModelError, match="not UTF-8"):
        load(content.replace(b"qqqq", b"q\xff\xfeq"))


def test_a_device_configuration_that_onnx_ir_can_not_write_is_refused() -> None:
    proto = model()
    proto.graph.node[0].device_configurations.add()
    with pytest.raises(ModelError, match="device configuration"):
        load(proto)


def laughing(levels: int) -> onnx.ModelProto:
    """Functions of which each calls the next twice: 2^levels nodes in a few hundred bytes."""
    functions = "".join(
        f"""<opset_import: ["": 17, "l": 1], domain: "l"> f{i} (a) => (c) {{ b = l.f{i + 1} (a) c = l.f{i + 1} (b) }}
        """
        for i in range(levels)
    )
    last = f'<opset_import: ["": 17], domain: "l"> f{levels} (a) => (b) {{ b = Relu (a) }}'
    head = '<ir_version: 9, opset_import: ["": 17, "l": 1]> g (float[2] x) => (float[2] y) { y = l.f0 (x) }'
    return onnx.parser.parse_model(f"{head} {functions} {last}")


def test_functions_that_grow_without_end_when_inlined_are_refused_before_they_are() -> None:
    assert inlined_nodes(laughing(10)) == 1024
    assert sum(1 for _ in normalize(load(laughing(4)).model).model.graph) == 16
    with pytest.raises(ModelError, match="once its functions are inlined"):
        load(laughing(60))
    with pytest.raises(ModelError, match="more than 1,023 nodes once"):
        load(laughing(10), limits=LoadLimits(nodes=1023))


def test_the_next_free_number_is_found_without_counting() -> None:
    taken: set[str] = set()
    assert [free_name("a", taken) for _ in range(6)] == ["a", "a_1", "a_2", "a_3", "a_4", "a_5"]
    names = {free_name("b", taken) for _ in range(20_000)}  # a second; counting from one took minutes
    assert len(names) == 20_000


def test_the_corpus_of_the_fuzzer_still_passes(tmp_path: Path) -> None:
    """What onnx itself ships is not refused."""
    shipped = sorted((Path(onnx.__file__).parent / "backend/test/data").rglob("*.onnx"))
    assert len(shipped) > 100
    for path in shipped:
        normalize(load(path).model)


@pytest.mark.parametrize("operator", ["Expand (x, n)", "Reshape (x, n)", "ConstantOfShape (n)"])
def test_a_shape_of_countless_axes_is_refused_where_onnx_would_write_them_down(operator: str) -> None:
    proto = onnx.parser.parse_model(HEADER + f"g (float[2] x, int64[4] n) => (float y) {{ y = {operator} }}")
    load(proto)
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 2**62
    with pytest.raises(ModelError, match="axes"):
        load(proto)


def test_a_node_that_leaves_out_what_it_needs_is_refused() -> None:
    for change in (lambda p: p.graph.node[1].input.__setitem__(0, ""), lambda p: p.graph.node.add().CopyFrom(EMPTY)):
        proto = model()
        change(proto)
        with pytest.raises(ModelError, match="leaves out its"):
            load(proto)


EMPTY = onnx.helper.make_node("Constant", [], [""], value_float=1.0)
