"""The process of `inference`: infers the shapes of one model after the other until its input ends.

Run as `python -m onnxcomp.model.inference_main`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import BinaryIO

import onnx.shape_inference

from onnxcomp.model.children import set_limits
from onnxcomp.model.inference import DONE, MEMORY_BYTES, OUT_OF_MEMORY, REFUSED, REPLY, REQUEST, SECONDS


def main() -> None:
    """Answers on what was standard output; what anybody prints goes to standard error."""
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)
        set_limits({"RLIMIT_DATA": MEMORY_BYTES, "RLIMIT_CORE": 0})
        serve(sys.stdin.buffer, replies)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """One reply for each request, until there are no more."""
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        strict, length = REQUEST.unpack(head)
        content = requests.read(length)
        if len(content) < length:
            return
        _alarm(SECONDS)  # nobody handles it: it ends the process, in the middle of C++ as well
        kind, answer = inferred(content, strict)
        _alarm(0)
        replies.write(REPLY.pack(kind, len(answer)))
        replies.write(answer)
        replies.flush()


def inferred(content: bytes, strict: bool) -> tuple[int, bytes]:
    """The kind of the answer, and what it says."""
    try:
        model = onnx.shape_inference.infer_shapes(content, check_type=strict, strict_mode=strict, data_prop=True)
        return DONE, model.SerializeToString()
    except MemoryError:
        return OUT_OF_MEMORY, b""
    # onnx raises its own errors and those of protobuf, whatever is wrong with one operator of the model.
    except Exception as error:
        return REFUSED, str(error).encode(errors="replace")


def _alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


if __name__ == "__main__":
    main()
