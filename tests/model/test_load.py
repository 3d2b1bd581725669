"""The door: what it takes, what it refuses and with which words, and what it says about a model that it lets in."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.errors import ModelError, UsageError
from onnxcomp.model.load import FindingCode, LoadLimits, load

HEAD = '<ir_version: 8, opset_import: ["": 17]>'
TEXT = HEAD + "g (float[N,3] x) => (float[N,3] y) <float[3] w = {1, 2, 3}> { y = Mul(x, w) }"


def _proto(text: str = TEXT) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def _file(folder: Path, name: str = "model.onnx", text: str = TEXT) -> Path:
    path = folder / name
    path.write_bytes(_proto(text).SerializeToString())
    return path


def _with_data(folder: Path, values: np.ndarray, location: str = "model.data", name: str = "model.onnx") -> Path:
    """A model `y = x * w` whose `w` lies in a data file."""
    proto = _proto('<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y) { y = Mul(x, w) }')
    tensor = proto.graph.initializer.add(name="w", data_type=onnx.TensorProto.FLOAT, dims=values.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / location).write_bytes(values.astype("<f4").tobytes())
    (folder / name).write_bytes(proto.SerializeToString())
    return folder / name


def _refusal(source: object, **options: object) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(source, **options)
    assert caught.value.exit_code == 4
    assert caught.value.hint
    return caught.value


def test_a_path_bytes_a_protobuf_and_an_ir_model_give_the_same_weights(tmp_path: Path):
    path = _file(tmp_path)
    for source in (path, str(path), path.read_bytes(), _proto(), ir.from_proto(_proto())):
        weights = load(source).model.graph.initializers["w"].const_value.numpy()
        np.testing.assert_array_equal(weights, np.array([1, 2, 3], np.float32))


def test_the_sha256_is_that_of_the_file_and_the_name_holds_no_folder(tmp_path: Path):
    path = _file(tmp_path)
    loaded = load(path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.path, loaded.name, loaded.bytes) == (path, "model.onnx", path.stat().st_size)


def test_the_sha256_of_a_graph_with_data_files_goes_on_over_them_in_order_of_location(tmp_path: Path):
    path = _with_data(tmp_path, np.arange(4), "b.data")
    proto = onnx.load(path, load_external_data=False)
    other = proto.graph.initializer.add()
    other.CopyFrom(proto.graph.initializer[0])
    other.name, other.external_data[0].value = "v", "a.data"
    (tmp_path / "a.data").write_bytes(np.ones(4, "<f4").tobytes())
    path.write_bytes(proto.SerializeToString())
    whole = path.read_bytes() + (tmp_path / "a.data").read_bytes() + (tmp_path / "b.data").read_bytes()
    loaded = load(path)
    assert loaded.sha256 == hashlib.sha256(whole).hexdigest()
    assert loaded.bytes == len(whole)


def test_a_model_in_memory_has_no_path_and_says_so():
    loaded = load(_proto().SerializeToString())
    assert (loaded.path, loaded.name) == (None, "<memory>")


def test_the_sha256_of_an_ir_model_follows_its_weights():
    one, two = (ir.from_proto(_proto()) for _ in range(2))
    big = {m: ir.tensor(np.full(1000, n, np.float32), name="w") for n, m in enumerate(("one", "two"))}
    one.graph.initializers["w"].const_value = big["one"]
    two.graph.initializers["w"].const_value = big["one"]
    assert load(one).sha256 == load(two).sha256
    two.graph.initializers["w"].const_value = big["two"]
    assert load(one).sha256 != load(two).sha256
    assert load(two).model is two


def test_an_ir_model_given_with_data_files_is_taken_as_it_is_but_its_bounds_are_checked(tmp_path: Path):
    path = _with_data(tmp_path, np.arange(400))
    model = ir.load(path)
    assert load(model).bytes > 1600
    (tmp_path / "model.data").write_bytes(b"short")
    assert "'w' needs the bytes 0 to 1,600 of 'model.data', which has 5" in _refusal(ir.load(path)).message
    (tmp_path / "model.data").unlink()
    assert "can't be read" in _refusal(ir.load(path)).message


def test_weights_of_a_data_file_stay_mapped(tmp_path: Path):
    tensor = load(_with_data(tmp_path, np.arange(400))).model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    np.testing.assert_array_equal(tensor.numpy(), np.arange(400, dtype=np.float32))


def test_a_large_sparse_data_file_is_loaded_with_little_memory(tmp_path: Path):
    path = _with_data(tmp_path, np.zeros(1))
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].dims[0] = 2**26
    path.write_bytes(proto.SerializeToString())
    with (tmp_path / "model.data").open("r+b") as file:
        file.truncate(2**28)
    script = (
        "import resource, sys; from onnxcomp.model.load import load\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "load(sys.argv[1]); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100_000


def test_a_missing_file_is_named_with_the_nearest_that_is_there(tmp_path: Path):
    _file(tmp_path, "resnet50.onnx")
    error = _refusal(tmp_path / "resnet5.onnx")
    assert "there is no file" in error.message
    assert error.hint == "Did you mean resnet50.onnx?"


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path):
    assert "no folder" in str(_refusal(tmp_path / "nowhere" / "model.onnx"))


def test_a_folder_is_answered_with_the_models_inside(tmp_path: Path):
    _file(tmp_path)
    error = _refusal(tmp_path)
    assert error.message.endswith("is a folder")
    assert "model.onnx" in error.hint


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "model.onnx")
    assert "not a regular file" in _refusal(tmp_path / "model.onnx").message


def test_an_empty_file_is_called_empty(tmp_path: Path):
    (tmp_path / "model.onnx").touch()
    assert "is empty" in _refusal(tmp_path / "model.onnx").message


@pytest.mark.parametrize(
    ("name", "content", "what", "hint"),
    [
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer", "git lfs pull"),
        ("m.onnx", b"<!DOCTYPE html><html>\n", "a text file", "web site"),
        ("m.ort", b"\x1c\x00\x00\x00ORTM" + bytes(40), "ONNX Runtime flatbuffer", ".onnx file"),
        ("m.tflite", b"\x1c\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite", "tf2onnx"),
        ("m.pt", b"PK\x03\x04" + bytes(40), "zip archive", "torch.onnx.export"),
        ("m.pth", b"\x80\x02}q\x00" + bytes(40), "pickle", "torch.onnx.export"),
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5", "tf2onnx"),
        ("m.safetensors", b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"w":{}}', "safetensors", "weights only"),
        ("m.pb", b"\x0a\x02\x0a\x00" + b"\x00\xff", "TensorFlow graph", "tf2onnx"),
        ("m.onnx", b"\xff\xfe\x00\x01" * 50, "not an ONNX model", "Netron"),
        (
            "input_0.pb",
            onnx.TensorProto(dims=[1], data_type=1, raw_data=bytes(4)).SerializeToString(),
            "TensorFlow",
            "",
        ),
        ("m.onnx", onnx.TensorProto(dims=[1], data_type=1, raw_data=bytes(4)).SerializeToString(), "no graph", ""),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path: Path, name: str, content: bytes, what: str, hint: str):
    (tmp_path / name).write_bytes(content)
    error = _refusal(tmp_path / name)
    assert what in error.message
    assert hint in error.hint


def test_a_cut_off_file_is_a_sentence_and_no_traceback(tmp_path: Path):
    content = _proto().SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content[: len(content) - 5])
    assert "cut off" in _refusal(tmp_path / "model.onnx").message


def test_a_graph_larger_than_the_limit_is_refused_before_it_is_read(tmp_path: Path):
    path = _file(tmp_path)
    with path.open("r+b") as file:
        file.truncate(2**31)
    error = _refusal(path)
    assert "2,147,483,648 bytes" in error.message
    assert "external data" in error.hint


@pytest.mark.parametrize("limit", [100, 1599])
def test_weights_beyond_the_limit_are_refused(tmp_path: Path, limit: int):
    path = _with_data(tmp_path, np.arange(400))
    assert f"more than {limit:,} bytes" in _refusal(path, limits=LoadLimits(data_bytes=limit)).message
    load(path, limits=LoadLimits(data_bytes=1600))


def test_tensors_that_share_bytes_of_one_small_file_count_towards_the_limit_each(tmp_path: Path):
    path = _with_data(tmp_path, np.arange(400))
    proto = onnx.load(path, load_external_data=False)
    for n in range(9):
        proto.graph.initializer.add().CopyFrom(proto.graph.initializer[0])
        proto.graph.initializer[-1].name = f"copy{n}"
    path.write_bytes(proto.SerializeToString())
    assert "more than" in _refusal(path, limits=LoadLimits(data_bytes=5_000)).message


def test_a_model_in_memory_with_data_files_is_asked_for_as_a_path(tmp_path: Path):
    path = _with_data(tmp_path, np.arange(4))
    for source in (path.read_bytes(), onnx.load(path, load_external_data=False)):
        error = _refusal(source)
        assert "initializer 'w'" in error.message
        assert "path" in error.hint


def test_what_is_no_model_source_is_a_usage_error():
    with pytest.raises(UsageError, match="from a int"):
        load(3)


def test_the_other_name_of_the_standard_domain_becomes_the_usual_one():
    proto = _proto()
    proto.opset_import[0].domain = "ai.onnx"
    assert load(proto.SerializeToString()).model.opset_imports == {"": 17}


def test_nodes_out_of_order_are_sorted_and_that_is_said():
    loaded = load(
        _proto('<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) { y = Abs(z) z = Neg(x) }')
    )
    assert [node.op_type for node in loaded.model.graph] == ["Neg", "Abs"]
    assert [finding.code for finding in loaded.findings] == [FindingCode.NODES_SORTED]


def test_an_ir_model_out_of_order_is_refused_with_the_line_that_sorts_it():
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) { y = Abs(z) z = Neg(x) }'
    )
    assert "model.graph.sort()" in _refusal(model).hint


def test_opset_and_ir_version_are_compared_only_for_an_onnxruntime_that_is_named():
    proto = _proto()
    proto.ir_version = 13
    load(proto)
    error = _refusal(proto, ort_version="1.23.2")
    assert "IR version 13" in error.message
    assert "up to 11" in error.message
    assert "model.ir_version = 8" in error.hint


def test_two_nested_functions_attributes_and_data_files_inside_functions_are_bound_to_the_folder(tmp_path: Path):
    proto = _proto(
        '<ir_version: 8, opset_import: ["": 17, "l": 1]> g (float[N] x) => (float[N] y) { y = l.f(x) }'
        '<domain: "l", opset_import: ["": 17]> f (q) => (r) { k = Constant<value = float[1] {3.0}>() r = Mul(q, k) }'
    )
    tensor = proto.functions[0].node[0].attribute[0].t
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="f.data")
    (tmp_path / "f.data").write_bytes(np.float32(3).tobytes())
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    function = next(iter(load(tmp_path / "model.onnx").model.functions.values()))
    constant = function[0].attributes["value"].as_tensor()
    assert constant.numpy() == [3.0]
    assert Path(constant.base_dir).is_absolute()


def test_names_with_escape_sequences_reach_no_terminal(tmp_path: Path):
    proto = _proto()
    proto.graph.initializer[0].name = "\x1b[2Jw"
    error = _refusal(proto.SerializeToString())
    assert "\x1b" not in str(error)
    (tmp_path / "a\x1b[2J.onnx").touch()
    assert "\x1b" not in str(_refusal(tmp_path / "a\x1b[2J.onnx"))


_SEEDS = [
    _proto(text).SerializeToString()
    for text in (
        TEXT,
        HEAD + "g (bool c, float[1] x) => (float[1] y) { y = If(c) <then_branch = t () => (float[1] a)"
        "<float[1] w = {2}> { a = Mul(x, w) }, else_branch = e () => (float[1] b) { b = Abs(x) }> }",
        '<ir_version: 8, opset_import: ["": 17, "l": 1]> g (float[N] x) => (float[N] y) { y = l.f(x) }'
        '<domain: "l", opset_import: ["": 17]> f (q) => (r) { k = Constant<value = float[1] {3.0}>() r = Mul(q, k) }',
    )
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.sampled_from(_SEEDS))
def test_whatever_the_bytes_are_the_answer_is_a_model_or_a_model_error(data: st.DataObject, seed: bytes):
    content = bytearray(seed)
    edits = st.lists(st.tuples(st.integers(0, len(seed) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    for position, value in data.draw(edits):
        content[position] = value
    with contextlib.suppress(ModelError):
        load(bytes(content), limits=LoadLimits(data_bytes=10**6))
