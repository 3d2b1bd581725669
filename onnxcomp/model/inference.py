"""onnx's shape inference, in a process of its own with limits: it is C++, and a small model can make it grow forever.

Forty `Concat(c, c)` in a row make a vector of 2⁴¹ elements, each of which onnx would write down as a dimension. The
process is started once, answers one model after the other, and ends with us.
"""

from __future__ import annotations

import atexit
import os
import struct
import subprocess
import sys
import threading

import onnx

from onnxcomp.errors import InternalError, LimitError, ModelError
from onnxcomp.model.children import child_environment, how_it_ended

SECONDS = 60
"""For one model; a graph of 100,000 nodes takes about one."""

MEMORY_BYTES = 2 << 30
"""Private memory, where the system can limit it; a graph of 100,000 nodes takes about 0.5 GiB."""

REQUEST = struct.Struct("<?Q")
"""Whether types and shapes must fit together, and the bytes of the model that follows."""

REPLY = struct.Struct("<BQ")
"""One of the kinds below, and the bytes that follow: of the model, or of a message in UTF-8."""

DONE, REFUSED, OUT_OF_MEMORY = range(3)
_MAIN = "onnxcomp.model.inference_main"


class Refused(Exception):
    """What onnx said of a model on which it gave up."""


def infer(model: onnx.ModelProto, *, strict: bool = False) -> onnx.ModelProto:
    """The model with the types and shapes that onnx infers, values of shape arithmetic included.

    Args:
        strict: Whether everything that the model declares must fit; else what does not is passed over.

    Raises:
        Refused: onnx gave up on the model.
        LimitError: It took too much time or memory.
        ModelError: onnx crashed on it.
    """
    try:
        content = model.SerializeToString()
    except Exception as error:  # protobuf's own kinds: over 2 GiB, text that is none
        raise Refused(str(error)) from error
    kind, answer = _worker.ask(strict, content)
    if kind == OUT_OF_MEMORY:
        raise _over()
    if kind == REFUSED:
        raise Refused(answer.decode(errors="replace"))
    return onnx.load_from_string(answer)


def start() -> None:
    """Starts the process, if it does not run yet, and does not wait for it."""
    _worker.start()


class _Worker:
    """The process; one question at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        with self._lock:
            self._running()

    def ask(self, strict: bool, content: bytes) -> tuple[int, bytes]:
        with self._lock:
            process = self._running()
            try:
                return _exchange(process, strict, content)
            except (EOFError, BrokenPipeError):
                raise _death(process.wait()) from None
            except BaseException:  # an answer that nobody has read would be taken for that of the next question
                self._stop()
                raise

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MAIN],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=os.path.abspath(os.sep),
                env=child_environment(os.environ),
                start_new_session=True,  # Ctrl-C is ours
            )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _exchange(process: subprocess.Popen[bytes], strict: bool, content: bytes) -> tuple[int, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(REQUEST.pack(strict, len(content)))
    process.stdin.write(content)
    process.stdin.flush()
    head = process.stdout.read(REPLY.size)
    kind, length = REPLY.unpack(head) if len(head) == REPLY.size else (None, 0)
    answer = process.stdout.read(length)
    if kind is None or len(answer) < length:
        raise EOFError
    return kind, answer


def _death(code: int) -> Exception:
    """Why the process ended before it answered."""
    name = how_it_ended(code)
    if name in ("SIGALRM", "SIGKILL", "SIGABRT"):  # its own clock; the kernel, out of memory; C++, out of memory
        return _over()
    if code < 0:
        return ModelError(f"onnx's shape inference crashed on the model ({name})", hint="Export the model again.")
    return InternalError(f"the process for shape inference did not start or broke ({name}): run python -m {_MAIN}")


def _over() -> LimitError:
    return LimitError(
        f"onnx's shape inference used more than it may on the model ({SECONDS} s and {MEMORY_BYTES >> 30} GiB)",
        hint="look for vectors that grow without end, as by Concat of a value with itself",
    )


def _fresh() -> None:
    """A process that was forked from us must not speak into our pipe."""
    global _worker
    _worker = _Worker()


_worker = _Worker()
atexit.register(lambda: _worker.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh)
