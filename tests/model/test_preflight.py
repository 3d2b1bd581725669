"""What is refused before any pass sees a model, with the tensor, node or version at fault; and what is only said."""

from __future__ import annotations

import doctest

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import AttributeProto, TensorProto, helper

from onnxcomp.errors import ModelError
from onnxcomp.model import naming, sniff
from onnxcomp.model.load import FindingCode, LoadLimits, load

HEAD = '<ir_version: 10, opset_import: ["": 21]>'
SIMPLE = HEAD + "g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Mul(x, w) }"


def _parse(text: str = SIMPLE) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def _refusal(proto: onnx.ModelProto, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        load(proto, **options)
    assert caught.value.hint, "every refusal says what to do"
    return caught.value.message


def _with_weight(**fields: object) -> onnx.ModelProto:
    proto = _parse()
    proto.graph.initializer[0].CopyFrom(TensorProto(name="w", **fields))
    return proto


# Values of each element type, made by onnx's own helper: the sizes that it writes are the independent source here.
_TYPES = sorted(set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED, TensorProto.STRING})


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("data_type", _TYPES)
@pytest.mark.parametrize("count", [1, 4, 5])
def test_what_onnx_itself_writes_is_accepted_and_one_value_more_or_less_is_not(data_type: int, raw: bool, count: int):
    values = np.arange(count).astype(ir.DataType(data_type).numpy())
    tensor = (
        onnx.numpy_helper.from_array(values, "w")
        if raw
        else helper.make_tensor("w", data_type, [count], values.tolist())
    )
    assert tensor.data_type == data_type
    assert tensor.HasField("raw_data") == raw
    proto = _parse()
    proto.graph.initializer[0].CopyFrom(tensor)
    load(proto)
    for wrong in (count + 4, max(count - 4, 0)):
        proto.graph.initializer[0].dims[0] = wrong
        if wrong != count:
            assert "initializer 'w' holds" in _refusal(proto)


def test_the_packed_types_of_this_onnx_are_all_covered_by_the_test_above():
    assert {TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1} <= set(_TYPES)


@pytest.mark.parametrize(
    ("data_type", "dims", "raw", "ok"),
    [
        (TensorProto.INT4, [5], 3, True),
        (TensorProto.INT4, [5], 2, False),
        (TensorProto.INT4, [5], 5, False),
        (TensorProto.FLOAT4E2M1, [3, 3], 5, True),
        (TensorProto.FLOAT4E2M1, [3, 3], 9, False),
        (TensorProto.FLOAT, [], 4, True),
        (TensorProto.FLOAT, [], 0, False),
        (TensorProto.FLOAT, [0, 7], 0, True),
        (TensorProto.BFLOAT16, [2], 4, True),
        (TensorProto.COMPLEX64, [2], 16, True),
    ],
)
def test_raw_data_has_exactly_the_bytes_that_dims_and_type_ask_for(data_type: int, dims: list, raw: int, ok: bool):
    proto = _with_weight(data_type=data_type, dims=dims, raw_data=bytes(raw))
    if ok:
        load(proto)
    else:
        assert f"initializer 'w' holds {raw} bytes" in _refusal(proto)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data_type": 1, "dims": [10**12]}, "holds 0 entries of float_data"),
        ({"data_type": 1, "dims": [2], "int32_data": [1, 2]}, "holds 0 entries of float_data"),
        ({"data_type": 1, "dims": [3], "float_data": [1.0]}, "need 3"),
        ({"data_type": 8, "dims": [3], "string_data": [b"a"]}, "holds 1 entries of string_data"),
        ({"data_type": 8, "dims": [1], "raw_data": b"a"}, "strings stored as raw bytes"),
        ({"data_type": 1, "dims": [-1]}, "negative dimension"),
        ({"data_type": 1, "dims": [2**31, 2**31, 2**31], "raw_data": b""}, "impossible dimensions"),
        ({"data_type": 0, "dims": [1]}, "element type"),
        ({"data_type": 77, "dims": [1], "raw_data": b"1"}, "element type"),
    ],
)
def test_a_tensor_whose_values_contradict_its_dims_is_refused(fields: dict, reason: str):
    message = _refusal(_with_weight(**fields))
    assert "'w'" in message
    assert reason in message


def test_the_trap_is_there_onnx_ir_makes_zeros_by_the_dims_of_a_tensor_without_values():
    assert ir.from_proto(_with_weight(data_type=1, dims=[1000])).graph.initializers["w"].const_value.numpy().shape == (
        1000,
    )


def test_tensors_in_attributes_of_subgraphs_and_functions_are_checked_too():
    bad = TensorProto(data_type=1, dims=[9])
    main = _parse(HEAD + "g () => (float[1] y) { y = Constant<value = float[1] {1}>() }")
    main.graph.node[0].attribute[0].t.CopyFrom(bad)
    inside = _parse(
        HEAD + "g (bool c) => (float[1] y) { y = If(c) <then_branch = t () => (float[1] a) <float[1] v = {1}> "
        "{ a = Abs(v) }, else_branch = e () => (float[1] b) { b = Constant<value = float[1] {1}>() }> }"
    )
    branches = inside.graph.node[0].attribute
    branches[0].g.initializer[0].ClearField("float_data")
    function = _parse(
        '<ir_version: 10, opset_import: ["": 21, "l": 1]> g (float[1] x) => (float[1] y) { y = l.f(x) }'
        '<domain: "l", opset_import: ["": 21]> f (q) => (r) { k = Constant<value = float[1] {3}>() r = Mul(q, k) }'
    )
    function.functions[0].node[0].attribute[0].t.CopyFrom(bad)
    assert "attribute 'value' of the Constant that makes 'y'" in _refusal(main)
    assert "initializer 'v'" in _refusal(inside)
    assert "attribute 'value' of the Constant that makes 'k'" in _refusal(function)


def test_sparse_tensors_are_refused_where_onnx_ir_would_drop_them():
    sparse = onnx.SparseTensorProto(dims=[3], values=TensorProto(name="s", data_type=1, dims=[1], float_data=[1]))
    initializer = _parse()
    initializer.graph.sparse_initializer.append(sparse)
    attribute = _parse(HEAD + "g () => (float[3] y) { y = Constant<value = float[1] {1}>() }")
    attribute.graph.node[0].attribute[0].CopyFrom(
        AttributeProto(name="sparse_value", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)
    )
    assert "initializer 's' of the graph is a sparse tensor" in _refusal(initializer)
    assert "attribute 'sparse_value'" in _refusal(attribute)


def test_a_model_without_outputs_is_refused_and_one_without_nodes_is_not():
    assert "no outputs" in _refusal(_parse(HEAD + "g (float[3] x) => () { y = Abs(x) }"))
    load(_parse(HEAD + "g (float[3] x) => (float[3] x) { }"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[1] x) => (float[1] y) { y = Abs(x) y = Neg(x) }", "'y' is made twice in the graph: by the Abs"),
        ("g (float[1] x) => (float[1] x) { x = Abs(x) }", "made twice in the graph: by an input or initializer"),
        ("g (float[1] x) => (float[1] y) <float[1] y = {1}> { y = Abs(x) }", "made twice"),
        ("g (float[1] x, float[1] x) => (float[1] y) { y = Abs(x) }", "input 'x' occurs twice"),
        ("g (float[1] x) => (float[1] y) { y = Abs(z) }", "the Abs that makes 'y' reads 'z', which nothing"),
        ("g (float[1] x) => (float[1] y) { z = Abs(x) }", "output 'y' of the graph is made by nothing"),
        ("g (float[1] x) => (float[1] y) { y = Add(y, x) }", "a cycle"),
        ("g (float[1] x) => (float[1] y) { a = Add(x, c) b = Abs(a) c = Neg(b) y = Abs(a) }", "a cycle"),
        (
            "g (bool c) => (float[1] y) { y = If(c) <then_branch = t () => (float[1] a) { a = Abs(q) }, "
            "else_branch = e () => (float[1] b) { b = Abs(p) }> p = Abs(y) q = Neg(y) }",
            "a cycle",
        ),
        (
            "g (bool c) => (float[1] y) { y = If(c) <then_branch = t () => (float[1] a) { a = Abs(q) }, "
            "else_branch = e () => (float[1] b) { b = Constant<value = float[1] {1}>() }> }",
            "the Abs that makes 'a' reads 'q'",
        ),
        (
            "g (bool c, float[1] x) => (float[1] y) { y = If(c) <then_branch = t () => (float[1] x) { }, "
            "else_branch = e () => (float[1] b) { b = Abs(x) }> }",
            "output 'x' of a subgraph of the If that makes 'y'",
        ),
    ],
)
def test_names_made_twice_by_nobody_or_in_a_circle_are_refused(text: str, reason: str):
    assert reason in _refusal(_parse(HEAD + text))


def test_an_initializer_that_occurs_twice_is_refused():
    proto = _parse()
    proto.graph.initializer.add().CopyFrom(proto.graph.initializer[0])
    assert "initializer 'w' occurs twice" in _refusal(proto)
    proto.graph.initializer[1].name = ""
    assert "no name" in _refusal(proto)


def test_an_initializer_that_is_also_an_input_is_a_default_value_and_allowed():
    load(_parse(HEAD + "g (float[1] x, float[1] w) => (float[1] y) <float[1] w = {1}> { y = Mul(x, w) }"))


def test_a_subgraph_may_read_what_the_graph_around_it_makes_later_in_the_file():
    loaded = load(
        _parse(
            HEAD
            + "g (bool c, float[1] x) => (float[1] y) { y = If(c) <then_branch = t () => (float[1] a) { a = Abs(q) }, "
            "else_branch = e () => (float[1] b) { b = Neg(x) }> q = Abs(x) }"
        )
    )
    assert [finding.code for finding in loaded.findings] == [FindingCode.NODES_SORTED]
    assert [node.op_type for node in loaded.model.graph] == ["Abs", "If"]


def test_functions_that_call_themselves_or_are_defined_twice_are_refused():
    text = (
        '<ir_version: 10, opset_import: ["": 21, "l": 1]> g (float[1] x) => (float[1] y) { y = l.f(x) }'
        '<domain: "l", opset_import: ["": 21, "l": 1]> f (q) => (r) { r = l.h(q) }'
        '<domain: "l", opset_import: ["": 21, "l": 1]> h (q) => (r) { r = l.f(q) }'
    )
    assert "calls itself" in _refusal(_parse(text))
    proto = _parse(text.replace("r = l.f(q)", "r = Abs(q)"))
    load(proto)
    proto.functions[1].name = "f"
    assert "defined twice" in _refusal(proto)


def test_an_attribute_without_a_type_is_refused_where_onnx_ir_would_drop_its_value():
    proto = _parse(HEAD + "g (float[1, 2] x) => (float[N] y) { y = Squeeze(x) }")
    proto.graph.node[0].attribute.add(name="axes").ints.append(0)
    assert "attribute 'axes' of the Squeeze" in _refusal(proto)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.ClearField("t"),
        lambda a: setattr(a, "type", AttributeProto.INTS),
        lambda a: setattr(a, "type", AttributeProto.GRAPH),
        lambda a: a.tensors.add(),
        lambda a: a.g.node.add(),
    ],
)
def test_an_attribute_that_says_one_type_and_holds_another_is_refused(change):
    proto = _parse(HEAD + "g () => (float[1] y) { y = Constant<value = float[1] {1}>() }")
    change(proto.graph.node[0].attribute[0])
    message = _refusal(proto)
    assert "attribute 'value'" in message or "'float_data'" in message


def test_names_that_are_not_utf_8_are_refused_at_the_door_and_not_when_the_result_is_written():
    content = _parse().SerializeToString().replace(b"Mul", b"M\xffl")
    with pytest.raises(ModelError, match="not UTF-8"):
        load(content)


def _nested(depth: int) -> onnx.ModelProto:
    def branch(level: int) -> onnx.GraphProto:
        node = helper.make_node("Identity", ["x"], [f"o{level}"])
        if level < depth:
            node = helper.make_node(
                "If", ["c"], [f"o{level}"], then_branch=branch(level + 1), else_branch=branch(depth)
            )
        return helper.make_graph([node], f"b{level}", [], [helper.make_tensor_value_info(f"o{level}", 1, [1])])

    graph = branch(0)
    graph.input.append(helper.make_tensor_value_info("x", 1, [1]))
    graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


def test_subgraphs_nested_deeper_than_the_limit_are_refused():
    load(_nested(3), limits=LoadLimits(depth=3))
    assert "more than 3 deep" in _refusal(_nested(4), limits=LoadLimits(depth=3))
    load(_nested(20))


def test_subgraphs_nested_deeper_than_protobuf_parses_are_a_sentence_not_a_decode_error():
    content = b""
    # Written by hand: protobuf's own writer stops at this depth as well.
    for _ in range(60):
        attribute = _field(6, content) + b"\xa0\x01\x05"
        content = _field(1, _field(4, b"If") + _field(5, attribute))
    with pytest.raises(ModelError, match="nested too deeply"):
        load(b"\x08\x0a" + _field(7, content))


def _field(number: int, payload: bytes) -> bytes:
    size, length = b"", len(payload)
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + payload


def test_more_nodes_than_the_limit_are_refused_wherever_they_are():
    load(_nested(3), limits=LoadLimits(nodes=7))
    assert "more than 6 nodes" in _refusal(_nested(3), limits=LoadLimits(nodes=6))


@pytest.mark.parametrize(
    ("ir_version", "opset", "reason"),
    [
        (onnx.IR_VERSION + 1, 17, f"IR version {onnx.IR_VERSION + 1}"),
        (2, 7, "IR version 2; the oldest"),
        (0, 7, "IR version 0"),
        (10, onnx.defs.onnx_opset_version() + 1, "knows 1 to"),
        (10, 0, "opset 0"),
    ],
)
def test_versions_that_the_installed_onnx_does_not_read_are_refused(ir_version: int, opset: int, reason: str):
    proto = _parse()
    proto.ir_version, proto.opset_import[0].version = ir_version, opset
    assert reason in _refusal(proto)


@pytest.mark.parametrize(
    ("ort", "ir_version", "opset", "numbers"),
    [
        ("1.23.2", 10, 24, ("opset 24", "up to 23")),
        ("1.23.2", 12, 21, ("IR version 12", "up to 11")),
        ("1.31.1", 14, 21, ("IR version 14", "up to 13")),
        ("1.31.1", 13, 27, ("opset 27", "up to 26")),
    ],
)
def test_what_an_onnxruntime_does_not_load_is_refused_with_both_numbers(
    ort: str, ir_version: int, opset: int, numbers: tuple
):
    proto = _parse()
    proto.ir_version, proto.opset_import[0].version = ir_version, opset
    message = _refusal(proto, ort_version=ort)
    assert ort in message
    assert all(number in message for number in numbers)
    load(proto)


def test_standard_operators_without_an_opset_and_operator_sets_in_two_versions_are_refused():
    proto = _parse()
    proto.opset_import[0].domain = "com.microsoft"
    assert "does not say of which opset" in _refusal(proto)
    proto = _parse()
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 13))
    assert "'ai.onnx' in 2 versions" in _refusal(proto)
    proto.opset_import[-1].version = proto.opset_import[0].version
    assert load(proto).model.opset_imports == {"": 21}


def test_custom_operators_are_listed_and_not_refused():
    loaded = load(
        _parse(
            '<ir_version: 10, opset_import: ["": 21, "acme": 1, "com.microsoft": 1]> g (float[1] x) => (float[1] y)'
            "{ a = acme.Spin(x) b = acme.Roll(a) c = com.microsoft.FusedGemm(b, b) y = acme.Roll(c) }"
        )
    )
    assert loaded.unknown_domains == ("acme",)
    (finding,) = loaded.findings
    assert finding.code == FindingCode.CUSTOM_DOMAIN
    assert "3 nodes" in finding.sentence
    assert "Roll, Spin" in finding.sentence


def test_an_operator_that_a_function_of_the_model_defines_is_not_custom():
    loaded = load(
        _parse(
            '<ir_version: 10, opset_import: ["": 21, "l": 1]> g (float[1] x) => (float[1] y) { y = l.f(x) }'
            '<domain: "l", opset_import: ["": 21]> f (q) => (r) { r = Abs(q) }'
        )
    )
    assert loaded.unknown_domains == ()
    assert [finding.code for finding in loaded.findings] == [FindingCode.FUNCTIONS]


def test_what_is_dropped_or_kept_is_said():
    proto = _parse()
    proto.training_info.add()
    proto.graph.node[0].doc_string = "File train.py, line 3"
    content = proto.SerializeToString() + b"\xa2\x06\x01x"
    loaded = load(content)
    assert [finding.code for finding in loaded.findings] == [
        FindingCode.TRAINING_INFO,
        FindingCode.UNKNOWN_FIELDS,
        FindingCode.DOC_STRINGS,
    ]
    assert loaded.model.graph[0].doc_string == "File train.py, line 3"


def test_a_clean_model_has_no_findings():
    assert load(_parse()).findings == ()


def test_bfloat16_weights_keep_their_bits():
    values = np.array([1.5, -2, 3], ml_dtypes.bfloat16)
    proto = _with_weight(data_type=TensorProto.BFLOAT16, dims=[3], raw_data=values.tobytes())
    np.testing.assert_array_equal(load(proto).model.graph.initializers["w"].const_value.numpy(), values)


@pytest.mark.parametrize("module", [naming, sniff])
def test_the_examples_in_the_docstrings_run(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
