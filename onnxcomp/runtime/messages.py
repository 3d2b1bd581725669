"""What ONNX Runtime's errors mean: its long messages made one line, the exception that fits, and what to do next."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnxcomp.errors import DataError, LimitError, ModelError, OnnxcompError, UsageError
from onnxcomp.report.text import printable

_LONGEST_IN, _LONGEST_OUT = 8000, 400

_NOISE = (
    r"\[ONNXRuntimeError\] : \d+ : \w+ : ",
    r"Load model from .{0,4000}? failed: ?",
    # "file.cc:149 void ns::f(int) const [with T = …]" or "file.h:59 f": the line of the runtime that threw
    r"\S+\.(?:cc|cpp|h|hpp|cu|cuh):\d+ "
    r"(?:[^()]{0,300}::[^()]{0,300}\([^()]{0,900}\)(?: const)?(?: \[with [^\]]{0,600}\])? ?|\w+ )?",
    r"[^\s'\"]*onnxcomp-\w+[/\\]",  # our temporary folders
)


@dataclass(frozen=True)
class Meaning:
    """One kind of failure.

    Args:
        pattern: Regular expression, searched in ONNX Runtime's message.
        error: The class to raise.
        hint: What it usually means, and what to do.
    """

    pattern: str
    error: type[OnnxcompError]
    hint: str | None


MEANINGS = (
    Meaning(
        r"bad_alloc|bad allocation|[Ff]ailed to allocate|out of memory|MemoryError",
        LimitError,
        "it needs more memory than it may use: a smaller batch or shape, a higher limit, or a larger machine",
    ),
    Meaning(
        r"Invalid input name|Required inputs \(|Got invalid dimensions|Invalid rank for input"
        r"|Unexpected input data type",
        DataError,
        "the names, dtypes and shapes of the data must be those of the model's inputs",
    ),
    Meaning(
        r"custom op.{0,40}librar|[Ff]ailed to load library|RegisterCustomOps|cannot open shared object",
        UsageError,
        "build the library of --custom-ops for this machine and this version of ONNX Runtime",
    ),
    Meaning(
        r"opset .{0,80}(?:under development|till opset)|Unsupported model IR version",
        ModelError,
        "the model is newer than the installed ONNX Runtime: upgrade it, or export with a lower opset",
    ),
    Meaning(
        r"No Op registered",
        ModelError,
        "no operator of this name in this opset: it is newer than the installed ONNX Runtime, or from a custom library "
        "(--custom-ops), or misspelt",
    ),
    Meaning(
        r"is not a registered function/op",
        ModelError,
        "an operator from a custom library: give the library with --custom-ops",
    ),
    Meaning(
        r"Could not find an implementation|NOT_IMPLEMENTED",
        ModelError,
        "the provider has no kernel for this operator with these types: another dtype, opset or provider may have one",
    ),
    Meaning(
        r"INVALID_PROTOBUF|No graph was found in the protobuf",
        ModelError,
        "not an ONNX file, or cut short: compare its size with the source",
    ),
    Meaning(
        r"[Ee]xternal data|external initializer",
        ModelError,
        "the weights beside the model are missing, moved or cut short: keep both files in one folder",
    ),
    Meaning(r"INVALID_GRAPH", ModelError, "the graph is invalid as it was exported: the message names the node"),
)


def translate(error: BaseException | str, what: str) -> OnnxcompError:
    """ONNX Runtime's failure as one of ours.

    Args:
        error: What was raised, or its message.
        what: What was being done, as in "ONNX Runtime can't load the model".
    """
    # A MemoryError from pybind has an empty or odd message: its class is what tells.
    raw = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    meaning = next((m for m in MEANINGS if re.search(m.pattern, raw)), Meaning("", ModelError, None))
    detail = clean(error if isinstance(error, str) else str(error)) or "no message"
    return meaning.error(f"{what}: {detail}", hint=meaning.hint)


def clean(message: str) -> str:
    """One printable line: no error prefix, no source position of the runtime, no temporary path.

    >>> clean("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from /tmp/m.onnx failed:Protobuf parsing failed.")
    'Protobuf parsing failed.'
    """
    line = " ".join(message[:_LONGEST_IN].split())
    for noise in _NOISE:
        line = re.sub(noise, "", line)
    return printable(line.strip(), _LONGEST_OUT)
