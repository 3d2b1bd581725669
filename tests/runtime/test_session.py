from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxcomp.errors import DataError, ModelError, UsageError
from onnxcomp.model import save
from onnxcomp.runtime.session import SessionConfig, open_session

X = np.array([[-1.0, 0.0, 2.0]], dtype=np.float32)
HEADER = '<ir_version: 8, opset_import: ["": 17]>'
TWO_OUTPUTS = "g (float[N,3] x) => (float[N,3] y, float[N,3] z) { y = Relu(x) z = Neg(x) }"


def test_outputs_come_in_the_order_asked_for(serialized: Callable[[str], bytes]) -> None:
    with open_session(serialized(TWO_OUTPUTS)) as session:
        assert (session.input_names, session.output_names) == (("x",), ("y", "z"))
        assert session.effective_providers == ("CPUExecutionProvider",)
        z, y = session.run({"x": X}, outputs=["z", "y"])
        assert [a.tolist() for a in session.run({"x": X})] == [y.tolist(), z.tolist()]
    np.testing.assert_array_equal(y, np.maximum(X, 0))
    np.testing.assert_array_equal(z, -X)


def test_a_file_loads_like_its_bytes(relu: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(relu)
    with open_session(tmp_path / "m.onnx") as session:
        np.testing.assert_array_equal(session.run({"x": X})[0], np.maximum(X, 0))


def test_a_model_in_memory_loads_inline_and_with_its_weights_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ir.from_onnx_text(f"{HEADER} g (float[N,1] x) => (float[N,512] y) <float[1] w = {{0}}> {{ y = Add(x, w) }}")
    weight = np.arange(512, dtype=np.float32)
    model.graph.initializers["w"].shape = ir.Shape([512])
    model.graph.initializers["w"].const_value = ir.tensor(weight, name="w")
    for limit in (save.INLINE_LIMIT, 0):
        monkeypatch.setattr(save, "INLINE_LIMIT", limit)
        with open_session(model) as session:
            np.testing.assert_array_equal(session.run({"x": X.T})[0], X.T + weight)


def test_a_feed_that_does_not_fit_is_an_error_of_the_data(relu: bytes) -> None:
    with open_session(relu) as session:
        for feed in ({}, {"z": X}, {"x": X.T.copy()}, {"x": X[0]}, {"x": X.astype(np.float64)}, {"x": X, "z": X}):
            with pytest.raises(DataError) as caught:
                session.run(feed)
            assert "\n" not in caught.value.message


def test_a_node_that_fails_is_an_error_of_the_model_and_is_named(serialized: Callable[[str], bytes]) -> None:
    model = serialized("g (float[A,B] x, float[C,D] z) => (float[A,D] y) { [product] y = MatMul(x, z) }")
    with open_session(model) as session, pytest.raises(ModelError, match=r"product.*dimension mismatch"):
        session.run({"x": X, "z": X})


def test_a_runner_computes_the_same_work_without_arguments(serialized: Callable[[str], bytes], tmp_path: Path) -> None:
    # The profile counts what ran: one Relu for each call.
    model = serialized("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    with open_session(model, SessionConfig(profile_prefix=tmp_path / "p", optimization="none")) as session:
        runner = session.runner({"x": X})
        for _ in range(3):
            runner()
        events = json.loads(session.end_profiling().read_text())
    assert sum(event["name"].endswith("_kernel_time") for event in events) == 5  # two to try the binding


def test_a_runner_takes_strings_bfloat16_and_sequences(serialized: Callable[[str], bytes]) -> None:
    models = {
        "g (string[N] x) => (string[N] y) { y = Identity(x) }": np.array(["a", "b"]),
        "g (float[N,3] x) => (bfloat16[N,3] y) { y = Cast<to=16>(x) }": X,
        "g (float[N,3] x) => (seq(float[N,3]) y) { y = SequenceConstruct(x) }": X,
    }
    for text, array in models.items():
        with open_session(serialized(text)) as session:
            session.runner({"x": array})()


def test_a_runner_keeps_its_inputs_alive(relu: bytes) -> None:
    feed = {"x": X.copy()}
    array = weakref.ref(feed["x"])
    with open_session(relu) as session:
        runner = session.runner(feed)
        del feed
        gc.collect()
        assert array() is not None  # ONNX Runtime reads its memory
        runner()


def test_a_runner_with_a_feed_that_does_not_fit_is_an_error_of_the_data(relu: bytes) -> None:
    with open_session(relu) as session, pytest.raises(DataError):
        session.runner({"x": X.astype(np.float64)})()


def test_a_model_that_is_missing_or_garbage_is_refused(tmp_path: Path) -> None:
    for model in (tmp_path / "none.onnx", b"garbage", b""):
        with pytest.raises(ModelError):
            open_session(model)


def test_a_custom_operator_library_that_does_not_load_is_named(relu: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.so").write_bytes(b"not a library")
    for library in ("missing.so", "bad.so"):
        with pytest.raises(UsageError, match=library):
            open_session(relu, SessionConfig(custom_ops=(tmp_path / library,)))


def test_no_failure_writes_to_the_terminal(
    relu: bytes, serialized: Callable[[str], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    reshape = serialized("g (float[N,3] x) => (float[A,B] y) { s = Constant<value_ints=[5,7]>() y = Reshape(x, s) }")
    with open_session(reshape) as session, pytest.raises(ModelError):
        session.run({"x": X})
    assert capfd.readouterr() == ("", "")


def test_closing_twice_is_harmless(relu: bytes) -> None:
    session = open_session(relu)
    session.close()
    session.close()


def test_a_model_that_declares_a_wrong_rank_is_timed_without_a_binding() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2,N] x) => (float[N] y) { s = Shape(x) y = Reshape(x, s) }'
    model = ir.from_onnx_text(text)
    with open_session(ir.to_proto(model).SerializeToString()) as session:
        feed = {"x": np.ones((2, 3), np.float32)}
        assert session.run(feed)[0].shape == (2, 3)
        runner = session.runner(feed)
        runner()
        runner()
