"""Saving: what comes back is what went in, and whatever stops the process the old model or the new one is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxcomp.errors import ModelError, WriteError
from onnxcomp.model import data_file, save, staging
from onnxcomp.model.convert import to_proto
from onnxcomp.model.load import load
from onnxcomp.model.save import SavedModel, save_model, serialize, weight_bytes

SIZE = 600


def _model(value: float = 1.0) -> ir.Model:
    """`y = (x * w) + b`, `w` large enough to lie in a data file, all its elements equal to `value`."""
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 21, "ai.onnx.ml": 3], producer_name: "test", metadata_props: ["k": "v"]>'
        "g (float[N] x) => (float[N] y) <float[1] b = {7}, float[1] w = {0}> { s = Mul(x, w) y = Add(s, b) }",
    )
    weight = model.graph.initializers["w"]
    weight.const_value, weight.shape = ir.tensor(np.full(SIZE, value, np.float32), name="w"), ir.Shape([SIZE])
    return model


def _weight(path: Path) -> np.ndarray:
    """Read by onnx itself, which knows nothing of this package; the graph must also be valid."""
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    return onnx.numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == "w"))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("external", [False, True])
def test_weights_metadata_and_opsets_survive_the_round_trip(tmp_path: Path, external: bool):
    model = _model(3.0)
    saved = save_model(model, tmp_path / "m.onnx", external=external)
    loaded = load(saved.path)
    np.testing.assert_array_equal(_weight(saved.path), np.full(SIZE, 3, np.float32))
    assert loaded.model.metadata_props == {"k": "v"}
    assert loaded.model.opset_imports == {"": 21, "ai.onnx.ml": 3}
    assert loaded.model.producer_name == "test"
    assert ir.to_proto(loaded.model).graph.node == ir.to_proto(model).graph.node
    assert (loaded.sha256, loaded.bytes) == (saved.sha256, saved.bytes)


@pytest.mark.parametrize("external", [False, True])
def test_the_result_computes_what_the_model_computes(tmp_path: Path, external: bool):
    saved = save_model(_model(3.0), tmp_path / "m.onnx", external=external)
    (result,) = ReferenceEvaluator(str(saved.path)).run(None, {"x": np.full(SIZE, 2, np.float32)})
    np.testing.assert_array_equal(result, np.full(SIZE, 13, np.float32))


def test_onnxruntime_loads_the_pair_and_computes_the_same(tmp_path: Path):
    ort = pytest.importorskip("onnxruntime")
    saved = save_model(_model(3.0), tmp_path / "m.onnx", external=True)
    session = ort.InferenceSession(saved.path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": np.full(SIZE, 2, np.float32)})
    np.testing.assert_array_equal(result, np.full(SIZE, 13, np.float32))


@pytest.mark.parametrize("external", [False, True])
def test_two_saves_of_one_model_give_the_same_bytes(tmp_path: Path, external: bool):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_model(_model(3.0), tmp_path / name / "m.onnx", external=external)
    assert _names(tmp_path / "one") == _names(tmp_path / "two")
    for name in _names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_serialize_gives_what_an_inline_save_writes(tmp_path: Path):
    saved = save_model(_model(), tmp_path / "m.onnx")
    assert saved == SavedModel(saved.path, None, len(saved.path.read_bytes()), saved.sha256)
    assert saved.path.read_bytes() == serialize(_model())
    assert saved.sha256 == hashlib.sha256(serialize(_model())).hexdigest()


def test_the_data_file_is_named_by_its_content_and_small_initializers_stay_in_the_graph(tmp_path: Path):
    saved = save_model(_model(), tmp_path / "m.onnx", external=True)
    digest = hashlib.sha256(saved.data_path.read_bytes()).hexdigest()
    assert saved.data_path == tmp_path / f"m-{digest[:12]}.onnx.data"
    where = {t.name: t.data_location for t in onnx.load(saved.path, load_external_data=False).graph.initializer}
    assert where == {"w": onnx.TensorProto.EXTERNAL, "b": onnx.TensorProto.DEFAULT}


def test_weights_go_outside_by_themselves_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert weight_bytes(_model()) == SIZE * 4 + 4
    monkeypatch.setattr(save, "INLINE_LIMIT", SIZE * 4 + 3)
    assert save_model(_model(), tmp_path / "m.onnx").data_path is not None
    with pytest.raises(ModelError, match="external data"):
        serialize(_model())
    with pytest.raises(ModelError, match="external data"):
        save_model(_model(), tmp_path / "n.onnx", external=False)
    monkeypatch.setattr(save, "INLINE_LIMIT", SIZE * 4 + 4)
    assert save_model(_model(), tmp_path / "o.onnx").data_path is None


def test_external_with_nothing_large_writes_no_data_file(tmp_path: Path):
    model = ir.from_onnx_text('<ir_version: 10, opset_import: ["": 21]> g (float[1] x) => (float[1] y) { y = Abs(x) }')
    assert save_model(model, tmp_path / "m.onnx", external=True).data_path is None
    assert _names(tmp_path) == ["m.onnx"]


def test_a_shared_weight_is_written_once_and_stays_shared(tmp_path: Path):
    model = _model()
    tied = ir.val(
        "v", const_value=model.graph.initializers["w"].const_value, dtype=ir.DataType.FLOAT, shape=ir.Shape([SIZE])
    )
    model.graph.register_initializer(tied)
    saved = save_model(model, tmp_path / "m.onnx", external=True)
    assert saved.data_path.stat().st_size == SIZE * 4
    again = save_model(load(saved.path).model, tmp_path / "again.onnx", external=True)
    assert again.data_path.stat().st_size == SIZE * 4
    assert {t.name for t in onnx.load(again.path).graph.initializer} == {"w", "v", "b"}


def test_every_tensor_starts_where_vector_loads_are_aligned(tmp_path: Path):
    model = _model()
    for n in range(3):
        odd = ir.tensor(np.full(1025 + n, n, np.int8), name=f"v{n}")
        model.graph.register_initializer(ir.val(f"v{n}", const_value=odd))
    saved = save_model(model, tmp_path / "m.onnx", external=True)
    tensors = onnx.load(saved.path, load_external_data=False).graph.initializer
    offsets = [int(e.value) for t in tensors for e in t.external_data if e.key == "offset"]
    assert len(offsets) == 4
    assert all(offset % 64 == 0 for offset in offsets)
    assert onnx.numpy_helper.to_array(onnx.load(saved.path).graph.initializer[-1]).tolist() == [2] * 1027


@pytest.mark.parametrize("dtype", [ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.BFLOAT16, ir.DataType.FLOAT8E4M3FN])
@pytest.mark.parametrize("external", [False, True])
def test_packed_and_exotic_types_keep_their_values_from_memory_and_from_a_data_file(
    tmp_path: Path, dtype: ir.DataType, external: bool
):
    values = (np.arange(3001) % 7).astype(dtype.numpy())
    model = _model()
    model.graph.register_initializer(ir.val("q", const_value=ir.Tensor(values, dtype=dtype, name="q")))
    first = save_model(model, tmp_path / "m.onnx", external=True)
    second = save_model(load(first.path).model, tmp_path / "n.onnx", external=external)
    loaded = load(second.path).model.graph.initializers["q"].const_value
    assert loaded.dtype == dtype
    np.testing.assert_array_equal(loaded.numpy().astype(np.float32), values.astype(np.float32))


def test_strings_subgraphs_functions_and_tensors_in_attributes_survive(tmp_path: Path):
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 21, "l": 1]> g (bool c, float[1] x) => (float[1] y)'
        '<string[2] s = {"a", "b"}>'
        "{ y = If(c) <then_branch = t () => (float[1] a) <float[1] w = {2}> { a = Mul(x, w) },"
        " else_branch = e () => (float[1] b) { b = l.f(x) }> }"
        '<domain: "l", opset_import: ["": 21]> f (q) => (r) { k = Constant<value = float[1] {3}>() r = Mul(q, k) }'
    )
    content = serialize(model)
    assert onnx.ModelProto.FromString(content) == to_proto(model)
    assert onnx.ModelProto.FromString(serialize(load(content).model)) == to_proto(model)


@pytest.mark.parametrize("external", [False, True])
def test_saving_changes_nothing_in_the_model(tmp_path: Path, external: bool):
    model = _model()
    tensor = model.graph.initializers["w"].const_value
    tensor.name = "an older name"
    tied = ir.val("v", const_value=tensor)
    model.graph.register_initializer(tied)
    save_model(model, tmp_path / "m.onnx", external=external)
    assert model.graph.initializers["w"].const_value is tensor
    assert tied.const_value is tensor
    assert tensor.name == "an older name"


def test_a_model_out_of_order_is_refused_and_leaves_no_file(tmp_path: Path):
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) { y = Abs(z) z = Neg(x) }'
    )
    with pytest.raises(ModelError, match="sort"):
        save_model(model, tmp_path / "m.onnx")
    assert _names(tmp_path) == []


def test_weights_are_streamed_and_do_not_fill_the_memory(tmp_path: Path):
    script = """
import resource, sys
import numpy as np, onnx_ir as ir
from onnxcomp.model.save import save_model
model = ir.from_onnx_text('<ir_version: 10, opset_import: ["": 21]> g (float[1] x) => (float[1] y) { y = Abs(x) }')
with open(sys.argv[1] + "/big", "wb") as file:
    file.truncate(2**28)
for n in range(2):
    place = ("big", n * 2**27, 2**27, ir.DataType.FLOAT)
    half = ir.ExternalTensor(*place, shape=ir.Shape([2**25]), name=f"w{n}", base_dir=sys.argv[1])
    model.graph.register_initializer(ir.val(f"w{n}", const_value=half))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
save_model(model, sys.argv[1] + "/m.onnx", external=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 60_000


# What is refused


def _refusal(*arguments: object, **options: object) -> WriteError:
    with pytest.raises(WriteError) as caught:
        save_model(*arguments, **options)
    assert caught.value.exit_code == 5
    assert caught.value.hint
    return caught.value


def test_an_existing_file_is_refused_unless_overwriting_was_asked_for(tmp_path: Path):
    path = save_model(_model(1), tmp_path / "m.onnx").path
    error = _refusal(_model(2), path)
    assert "exists" in error.message
    assert "--force" in error.hint
    assert _weight(path)[0] == 1
    save_model(_model(2), path, overwrite=True)
    assert _weight(path)[0] == 2


def test_a_file_that_appears_while_the_model_is_written_is_refused_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = staging.Staging.write

    def slow(self: staging.Staging, fill):
        (tmp_path / "m.onnx").write_text("somebody else's")
        return write(self, fill)

    monkeypatch.setattr(staging.Staging, "write", slow)
    assert "exists" in _refusal(_model(), tmp_path / "m.onnx", external=True).message
    assert _names(tmp_path) == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "somebody else's"


def test_the_input_is_never_overwritten_not_under_another_name_either(tmp_path: Path):
    path = save_model(_model(), tmp_path / "m.onnx").path
    (tmp_path / "alias.onnx").symlink_to("m.onnx")
    for other in (path, tmp_path / "alias.onnx", tmp_path / "x" / ".." / "m.onnx"):
        assert "the input itself" in _refusal(_model(2), other, overwrite=True, source=path).message
    assert _weight(path)[0] == 1


def test_the_data_file_of_the_input_is_never_overwritten(tmp_path: Path):
    saved = save_model(_model(), tmp_path / "m.onnx", external=True)
    assert "weights of the input" in _refusal(load(saved.path).model, saved.data_path, overwrite=True).message
    assert _weight(saved.path)[0] == 1


def test_a_missing_folder_a_folder_and_a_device_are_refused(tmp_path: Path):
    assert "does not exist" in _refusal(_model(), tmp_path / "no" / "m.onnx").message
    assert "is a folder" in _refusal(_model(), tmp_path, overwrite=True).message
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in _refusal(_model(), tmp_path / "pipe", overwrite=True).message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("external", [False, True])
def test_what_the_system_refuses_is_passed_on_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, external: bool
):
    path = save_model(_model(1), tmp_path / "m.onnx", external=True).path
    before = _names(tmp_path)

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(staging.os, "fsync", refuse)
    assert os.strerror(number) in _refusal(_model(2), path, overwrite=True, external=external).message
    assert _names(tmp_path) == before
    assert _weight(path)[0] == 1


def test_weights_that_can_not_be_read_are_the_model_s_fault_and_not_the_destination_s(tmp_path: Path):
    saved = save_model(_model(), tmp_path / "m.onnx", external=True)
    for external in (False, True):
        model = load(saved.path).model
        saved.data_path.rename(tmp_path / "away")
        with pytest.raises(ModelError, match="weights of 'w'"):
            save_model(model, tmp_path / "n.onnx", external=external)
        (tmp_path / "away").rename(saved.data_path)
    assert not (tmp_path / "n.onnx").exists()


def test_a_symbolic_link_is_replaced_and_its_target_is_not_touched(tmp_path: Path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "m.onnx").symlink_to("target")
    assert "exists" in _refusal(_model(), tmp_path / "m.onnx").message
    save_model(_model(), tmp_path / "m.onnx", overwrite=True)
    assert not (tmp_path / "m.onnx").is_symlink()
    assert (tmp_path / "target").read_text() == "precious"


def test_a_symbolic_link_without_a_target_exists_too(tmp_path: Path):
    (tmp_path / "m.onnx").symlink_to("nothing")
    assert "exists" in _refusal(_model(), tmp_path / "m.onnx").message


# What is left behind


def test_data_of_the_overwritten_model_is_removed_and_nothing_else_is(tmp_path: Path):
    kept = ["m-0123.onnx.data", "m.onnx.data", "other-0123456789ab.onnx.data", "m-0123456789ab.bin"]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / "m-0123456789ac.onnx.data").symlink_to("m.onnx.data")
    save_model(_model(1), tmp_path / "m.onnx", external=True)
    new = save_model(_model(2), tmp_path / "m.onnx", external=True, overwrite=True)
    assert _names(tmp_path) == sorted([*kept, "m-0123456789ac.onnx.data", "m.onnx", new.data_path.name])
    save_model(_model(3), tmp_path / "m.onnx", overwrite=True)
    assert _names(tmp_path) == sorted([*kept, "m-0123456789ac.onnx.data", "m.onnx"])


def test_data_that_the_model_being_saved_is_mapped_from_is_not_removed(tmp_path: Path):
    saved = save_model(_model(1), tmp_path / "m.onnx", external=True)
    model = load(saved.path).model
    model.graph.initializers["b"].const_value = ir.tensor(np.zeros(SIZE, np.float32), name="b")
    save_model(model, saved.path, external=True, overwrite=True)
    assert model.graph.initializers["w"].const_value.numpy()[0] == 1
    assert _weight(saved.path)[0] == 1


def test_data_files_are_not_hard_links_and_have_the_rights_of_the_umask(tmp_path: Path):
    old = os.umask(0o027)
    try:
        saved = save_model(_model(), tmp_path / "m.onnx", external=True)
    finally:
        os.umask(old)
    for path in (saved.path, saved.data_path):
        assert path.stat().st_nlink == 1
        assert path.stat().st_mode & 0o777 == 0o640


# What stops it. Every system call that matters goes through these, so each is a place where the machine can stop.

_STEPS = [
    (call, when, n)
    for call, count in (("fsync", 4), ("replace", 2))
    for when in ("before", "after")
    for n in range(count)
]


def _stop_at(call: str, when: str, n: int, stop) -> None:
    """Makes the n-th `os.<call>` of the process stop it, before or after doing its work."""
    original, seen = getattr(os, call), iter(range(1000))

    def wrapped(*arguments: object) -> None:
        here = next(seen) == n
        if here and when == "before":
            stop()
        original(*arguments)
        if here and when == "after":
            stop()

    setattr(os, call, wrapped)


def _save_and_die(folder: str, call: str, when: str, n: str) -> None:
    """Runs in another process; `os._exit` leaves as a killed process does: no handler, no cleaning up."""
    _stop_at(call, when, int(n), lambda: os._exit(9))
    save_model(_model(2), Path(folder) / "m.onnx", external=True, overwrite=True)


@pytest.mark.parametrize(("call", "when", "n"), _STEPS)
def test_a_process_killed_at_any_step_leaves_the_old_model_or_the_new_one_whole(
    tmp_path: Path, call: str, when: str, n: int
):
    save_model(_model(1), tmp_path / "m.onnx", external=True)
    child = os.fork()
    if child == 0:
        try:
            _save_and_die(str(tmp_path), call, when, str(n))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9, "the step was not reached"
    loaded = load(tmp_path / "m.onnx").model.graph.initializers["w"].const_value.numpy()
    assert set(loaded) in ({1.0}, {2.0})
    np.testing.assert_array_equal(_weight(tmp_path / "m.onnx"), loaded)
    committed = (call, when, n) in {("replace", "after", 1), ("fsync", "before", 3), ("fsync", "after", 3)}
    assert set(loaded) == ({2.0} if committed else {1.0})
    # What the dead process left does not hinder the next one, which also removes the data file.
    save_model(_model(3), tmp_path / "m.onnx", external=True, overwrite=True)
    assert _weight(tmp_path / "m.onnx")[0] == 3
    assert len([name for name in _names(tmp_path) if name.endswith(".data")]) == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("call", "when", "n"), _STEPS)
def test_an_interrupt_at_any_step_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, when: str, n: int, overwrite: bool
):
    if overwrite:
        save_model(_model(1), tmp_path / "m.onnx", external=True)

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, getattr(os, call))
    _stop_at(call, when, n, interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_model(_model(2), tmp_path / "m.onnx", external=True, overwrite=overwrite)
    monkeypatch.undo()
    names = _names(tmp_path)
    assert not [name for name in names if name.endswith(".tmp")]
    if "m.onnx" in names:
        assert _weight(tmp_path / "m.onnx")[0] in (1, 2)
        load(tmp_path / "m.onnx")
    else:
        assert names == []


def test_two_processes_that_save_to_one_path_again_and_again_end_with_one_whole_model(tmp_path: Path):
    children = []
    for worker in range(2):
        child = os.fork()
        if child == 0:
            try:
                for turn in range(20):
                    save_model(_model(100 * worker + turn), tmp_path / "m.onnx", external=True, overwrite=True)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    weight = _weight(tmp_path / "m.onnx")
    assert weight[0] in (19, 119)
    assert len(set(weight)) == 1
    load(tmp_path / "m.onnx")
    assert len(_names(tmp_path)) == 2, "one graph and its data, nothing left over"


def test_of_two_processes_that_create_the_same_file_exactly_one_succeeds(tmp_path: Path):
    children = []
    for worker in range(2):
        child = os.fork()
        if child == 0:
            try:
                save_model(_model(worker), tmp_path / "m.onnx", external=True)
                os._exit(0)
            except WriteError as error:
                os._exit(error.exit_code)
            finally:
                os._exit(1)
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [0, 5]
    assert len(set(_weight(tmp_path / "m.onnx"))) == 1
    assert len(_names(tmp_path)) == 2


def test_a_tensor_that_gives_fewer_bytes_than_it_promised_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data_file, "write_tensor", lambda tensor, sink: sink.write(b"short"))
    with pytest.raises(ModelError, match="5 bytes instead of 2,400"):
        save_model(_model(), tmp_path / "m.onnx", external=True)
    assert _names(tmp_path) == []
