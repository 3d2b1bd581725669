"""The first load of a user's model: in a child process with limits, that can crash, hang or grow without harm to us."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from onnxcomp import errors
from onnxcomp.errors import DataError, InternalError, LimitError, ModelError, OnnxcompError
from onnxcomp.model.children import child_environment, how_it_ended
from onnxcomp.runtime import providers
from onnxcomp.runtime.host import detect_host
from onnxcomp.runtime.job import JOB_FILE, OUTCOME_FILE, STDERR_FILE, Job, Outcome, read_arrays, write_arrays
from onnxcomp.runtime.messages import clean
from onnxcomp.runtime.session import Feed, SessionConfig
from onnxcomp.runtime.source import TemporaryFolder, write_model

if TYPE_CHECKING:
    import onnx_ir as ir

_SHARE_OF_MEMORY = 0.9
_STDERR_TAIL = 16_000
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Cannot allocate")
_CHILD = "onnxcomp.runtime.child_main"


@dataclass(frozen=True)
class Limits:
    """What a child may use.

    Args:
        seconds: Wall-clock time, start-up included (about half a second).
        memory_bytes: Address space; on CUDA, which reserves that of the whole machine, private memory. Linux enforces
            it, other systems at best in part. Below about 4 GiB ONNX Runtime may not start. Default: 0.9 × the memory
            of the machine.
    """

    seconds: float = 300.0
    memory_bytes: int | None = None

    def resolved_memory(self) -> int | None:
        """The limit in bytes; None when there is none to set."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        return int(_SHARE_OF_MEMORY * detect_host().memory_bytes) or None


@dataclass(frozen=True)
class ProbeResult:
    """What the child found out.

    Args:
        outputs: In the order of the model's outputs; None without a feed, or when one of them is of a kind that no
            .npy file holds (strings, sequences, bfloat16).
        effective_providers: ONNX Runtime's names, in the order of their priority.
        load_seconds: From the file to an open session.
        run_seconds: The one run; 0 without a feed.
        peak_bytes: Largest resident memory of the child; 0 where the system does not tell.
    """

    outputs: list[np.ndarray] | None
    effective_providers: tuple[str, ...]
    load_seconds: float
    run_seconds: float
    peak_bytes: int


def probe(
    model: ir.Model | bytes | Path,
    *,
    config: SessionConfig | None = None,
    feed: Feed | None = None,
    limits: Limits | None = None,
) -> ProbeResult:
    """Loads a model in a child process, and runs it once when there is a feed.

    The child gets a clean environment (no secrets), no input, no way to outlive us and the limits given.

    Raises:
        ModelError: ONNX Runtime refuses the model, or crashes on it.
        DataError: The feed does not fit the inputs, or is of a kind that can't be handed over.
        LimitError: It took too long or too much memory.
        UnavailableError: The provider is not here.
        UsageError: A custom operator library does not load.
    """
    config, limits = config or SessionConfig(), limits or Limits()
    providers.require(config.provider)
    with TemporaryFolder() as name:
        folder = Path(name)
        job = Job(
            model=write_model(model, folder),
            config=config.absolute(),
            inputs=None if feed is None else tuple(feed),
            memory_bytes=limits.resolved_memory(),
            cpu_seconds=math.ceil(limits.seconds * max(1, config.threads)) + 1,
            parent=os.getpid(),
        )
        (folder / JOB_FILE).write_bytes(job.model_dump_json().encode())
        try:
            write_arrays(folder, "input", list((feed or {}).values()))
        except ValueError as error:
            raise DataError(f"the feed can't be handed to a child process: {error}") from error
        return _result(_run_child(folder, limits), folder)


def _result(outcome: Outcome, folder: Path) -> ProbeResult:
    if outcome.failure is not None:
        raise _error(outcome.failure.error)(outcome.failure.message, hint=outcome.failure.hint)
    try:
        outputs = None if outcome.outputs is None else read_arrays(folder, "output", outcome.outputs)
    except (ValueError, OSError, MemoryError) as error:  # the model's code may have written them: trust nothing
        raise InternalError(f"the child process left outputs that can't be read: {error}") from error
    return ProbeResult(
        outputs=outputs,
        effective_providers=outcome.effective_providers,
        load_seconds=outcome.load_seconds,
        run_seconds=outcome.run_seconds,
        peak_bytes=outcome.peak_bytes,
    )


def _error(name: str) -> type[OnnxcompError]:
    kind = getattr(errors, name, InternalError)
    return kind if isinstance(kind, type) and issubclass(kind, OnnxcompError) else InternalError


def _run_child(folder: Path, limits: Limits) -> Outcome:
    with (folder / STDERR_FILE).open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=folder,
            env=child_environment(os.environ),
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=limits.seconds)
        except subprocess.TimeoutExpired as error:
            raise LimitError(
                f"ONNX Runtime was stopped after {limits.seconds:g} s on the model",
                hint="give it more time (--time-limit), smaller shapes, or look for a loop that does not end",
            ) from error
        finally:
            _kill_group(process)
    try:
        return Outcome.model_validate_json((folder / OUTCOME_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):  # it died before, or while, writing
        raise _death(code, _tail(folder / STDERR_FILE), limits) from None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _death(code: int, stderr: str, limits: Limits) -> OnnxcompError:
    """Why a child that left no outcome died: its signal, or the last line it wrote."""
    name = how_it_ended(code)
    # SIGKILL comes from the kernel: out of memory, or past the hard limit of processor time.
    if name in ("SIGKILL", "SIGXCPU") or any(words in stderr for words in _OUT_OF_MEMORY):
        memory = limits.resolved_memory()
        allowed = f" and {memory / 2**30:.1f} GiB" if memory else ""
        return LimitError(
            f"ONNX Runtime used more than it may on the model ({limits.seconds:g} s{allowed}; {name})",
            hint="smaller shapes, a higher limit, or a larger machine; it needs about 4 GiB only to start",
        )
    last = clean(stderr.strip().rpartition("\n")[2])
    if code < 0:
        return ModelError(
            f"ONNX Runtime crashed on the model ({name}){': ' + last if last else ''}",
            hint="try another version of ONNX Runtime; without graph optimisation it may run",
        )
    return InternalError(f"the child process ended without a result ({name}): {last or 'it said nothing'}")


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _STDERR_TAIL))
        return file.read().decode(errors="replace")
