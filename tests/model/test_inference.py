"""Shape inference in a process of its own: the same answers as in ours, and no harm to us."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import shape_inference

from onnxcomp.errors import InternalError, LimitError, ModelError
from onnxcomp.model import inference, shapes
from onnxcomp.model.inference import Refused, infer

HEAD = '<ir_version: 9, opset_import: ["": 17]> '
SMALL = onnx.parser.parse_model(
    HEAD + "g (float[N,3] x) => (float[M,K] y) { s = Shape (x) z = ConstantOfShape (s) y = Add (x, z) }"
)
UNLIKE = onnx.parser.parse_model(HEAD + "g (float[2] x, float[3] z) => (float[2] y) { y = Add (x, z) }")
posix_only = pytest.mark.skipif(not hasattr(signal, "alarm"), reason="limits need POSIX")


def doubled(times: int) -> onnx.ModelProto:
    steps = "".join(f"c{i} = Concat <axis = 0> (c{i - 1}, c{i - 1}) " for i in range(1, times + 1))
    return onnx.parser.parse_model(f"{HEAD} g (float[2] c0) => (float[M] c{times}) {{ {steps} }}")


def process_id() -> int:
    inference.start()
    process = inference._worker._process
    assert process is not None
    return process.pid


def test_it_infers_what_onnx_infers_and_says_so_once_for_many_models() -> None:
    assert not SMALL.graph.value_info
    first = process_id()
    for _ in range(3):
        assert infer(SMALL) == shape_inference.infer_shapes(SMALL, data_prop=True)
        assert infer(SMALL).graph.value_info
    assert process_id() == first


def test_what_onnx_refuses_is_told_in_its_words_and_the_next_model_is_served() -> None:
    assert infer(UNLIKE).graph.output
    with pytest.raises(Refused, match=r"[Ii]ncompatible dimensions"):
        infer(UNLIKE, strict=True)
    assert infer(SMALL).graph.value_info


@posix_only
def test_a_vector_that_doubles_forty_times_hits_the_limit_and_the_next_model_is_served() -> None:
    assert len(infer(doubled(5)).graph.value_info) == 4
    with pytest.raises(LimitError, match="shape inference") as caught:
        infer(doubled(40))
    assert caught.value.exit_code == 6
    assert infer(SMALL).graph.value_info


@posix_only
@pytest.mark.parametrize(("sign", "error"), [(signal.SIGSEGV, ModelError), (signal.SIGALRM, LimitError)])
def test_a_process_that_dies_at_work_is_an_error_and_the_next_model_is_served(
    sign: signal.Signals, error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dies.py").write_text(f"import os, sys; sys.stdin.buffer.read(9); os.kill(os.getpid(), {int(sign)})")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.setattr(inference, "_MAIN", "dies")
        patch.setattr(inference, "_worker", inference._Worker())
        with pytest.raises(error):
            infer(SMALL)
    assert infer(SMALL).graph.value_info


def test_a_process_that_does_not_start_is_our_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "_MAIN", "onnxcomp.no_such_module")
    monkeypatch.setattr(inference, "_worker", inference._Worker())
    with pytest.raises(InternalError, match=r"python -m onnxcomp\.no_such_module"):
        infer(SMALL)


def test_an_interrupted_question_leaves_no_answer_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    first = process_id()
    exchange = inference._exchange

    def interrupted(*given: object) -> object:
        exchange(*given)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(inference, "_exchange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            infer(UNLIKE)
    assert infer(SMALL) == shape_inference.infer_shapes(SMALL, data_prop=True)
    assert process_id() != first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_of_us_asks_a_process_of_its_own() -> None:
    ours = process_id()
    child = os.fork()
    if child == 0:
        good = infer(SMALL).graph.value_info and process_id() != ours
        inference._worker.close()
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert infer(SMALL).graph.value_info
    assert process_id() == ours


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_process_ends_when_its_input_does() -> None:
    worker = inference._Worker()
    worker.start()
    process = worker._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=20) == 0


def test_where_onnx_gives_up_values_stay_without_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ir.from_proto(SMALL)
    shapes.refresh(model)
    assert model.graph.node(1).outputs[0].shape is not None

    def refuses(*_: object, **__: object) -> None:
        raise Refused("no")

    monkeypatch.setattr(shapes, "infer", refuses)
    shapes.refresh(model)
    assert model.graph.node(1).outputs[0].shape is None
