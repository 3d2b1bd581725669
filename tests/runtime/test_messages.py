from __future__ import annotations

import pytest

from onnxcomp.errors import DataError, LimitError, ModelError, OnnxcompError, UsageError
from onnxcomp.runtime.messages import clean, translate

# As ONNX Runtime 1.31.1 writes them.
IR_VERSION = (
    "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model("
    "onnx::ModelProto&&, const onnxruntime::PathString&, const onnxruntime::logging::Logger&, "
    "const onnxruntime::ModelOptions&) Unsupported model IR version: 99, max supported IR version: 13\n"
)
NO_MEMORY = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running ConstantOfShape node. Name:'' Status "
    "Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 9\n"
)


def test_source_positions_and_prefixes_of_the_runtime_are_taken_out() -> None:
    assert clean(IR_VERSION) == "Unsupported model IR version: 99, max supported IR version: 13"
    assert clean(NO_MEMORY).endswith("Status Message: Failed to allocate memory for requested buffer of size 9")
    assert clean("x Status Message: matmul_helper.h:59 Compute MatMul dimension mismatch").endswith(
        "Status Message: MatMul dimension mismatch"
    )


def test_our_temporary_folders_are_taken_out_and_other_paths_stay() -> None:
    assert clean("no file /tmp/onnxcomp-a1b2/model.onnx or '/data/m.onnx'") == "no file model.onnx or '/data/m.onnx'"


def test_a_node_name_can_not_move_the_cursor_or_fill_the_screen() -> None:
    assert clean("node \x1b[2J\x07evil") == "node ?[2J?evil"
    assert len(clean("long " * 10_000)) == 400


@pytest.mark.parametrize(
    ("message", "error", "hint"),
    [
        (IR_VERSION, ModelError, "newer than the installed ONNX Runtime"),
        (NO_MEMORY, LimitError, "memory"),
        ("Fatal error: foo:Bar(-1) is not a registered function/op", ModelError, "--custom-ops"),
        (
            "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Relu(14)",
            ModelError,
            "kernel",
        ),
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : protobuf parsing failed.", ModelError, "cut short"),
        ("Required inputs (['x']) are missing from input feed ([]).", DataError, "inputs"),
        ("Failed to load library a.so with error: a.so: cannot open shared object file", UsageError, "--custom-ops"),
    ],
)
def test_a_failure_becomes_the_error_that_says_what_to_do(message: str, error: type[OnnxcompError], hint: str) -> None:
    translated = translate(message, "it failed")
    assert type(translated) is error
    assert translated.message.startswith("it failed: ")
    assert hint in (translated.hint or "")


def test_a_memory_error_without_a_message_is_a_limit() -> None:
    assert isinstance(translate(MemoryError(), "it failed"), LimitError)
