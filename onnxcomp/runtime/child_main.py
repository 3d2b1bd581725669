"""The child of `child.probe`: limits itself, loads the model, runs it once, writes down what happened.

Run as `python -m onnxcomp.runtime.child_main FOLDER`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from onnxcomp.errors import OnnxcompError
from onnxcomp.model.children import set_limits
from onnxcomp.runtime.job import JOB_FILE, OUTCOME_FILE, Failure, Job, Outcome, read_arrays, write_arrays
from onnxcomp.runtime.library import onnxruntime
from onnxcomp.runtime.messages import translate
from onnxcomp.runtime.session import open_session

_PR_SET_PDEATHSIG = 1


def main(folder: Path) -> None:
    """Does the job in `folder`; every failure that leaves us alive becomes an outcome."""
    job = Job.model_validate_json((folder / JOB_FILE).read_bytes())
    die_with(job.parent)
    try:
        onnxruntime()  # the library is trusted and needs room to load; the limits are for the model
        limit(job)
        outcome = work(job, folder)
    except OnnxcompError as error:
        outcome = _failed(error)
    except MemoryError as error:
        outcome = _failed(translate(error, "ONNX Runtime can't run the model"))
    # Whole or not at all: the parent takes a missing outcome for a crash.
    part = folder / f"{OUTCOME_FILE}.part"
    part.write_bytes(outcome.model_dump_json().encode())
    part.replace(folder / OUTCOME_FILE)


def work(job: Job, folder: Path) -> Outcome:
    """Loads, and runs when there are inputs."""
    start = time.perf_counter()
    with open_session(job.model, job.config) as session:
        load_seconds = time.perf_counter() - start
        found = Outcome(effective_providers=session.effective_providers, load_seconds=load_seconds)
        if job.inputs is None:
            return found.model_copy(update={"peak_bytes": peak_bytes()})
        feed = dict(zip(job.inputs, read_arrays(folder, "input", len(job.inputs)), strict=True))
        start = time.perf_counter()
        outputs = session.run(feed)
        run_seconds = time.perf_counter() - start
    count: int | None = len(outputs)
    try:
        write_arrays(folder, "output", outputs)
    except ValueError:
        count = None
    return found.model_copy(update={"outputs": count, "run_seconds": run_seconds, "peak_bytes": peak_bytes()})


def die_with(parent: int) -> None:
    """Asks Linux to kill us when the parent ends; elsewhere the time limit has to do."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)


def limit(job: Job) -> None:
    """Sets the limits of the job, where the system has them."""
    # CUDA reserves the address space of host and device together: there, count what is private and written.
    memory = "RLIMIT_DATA" if job.config.provider == "cuda" else "RLIMIT_AS"
    set_limits({"RLIMIT_CPU": job.cpu_seconds, "RLIMIT_CORE": 0, memory: job.memory_bytes})


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    # Not getrusage: its ru_maxrss survives exec, and begins with the parent's.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), "0")
    return int(kilobytes) * 1024


def _failed(error: OnnxcompError) -> Outcome:
    return Outcome(failure=Failure(error=type(error).__name__, message=error.message, hint=error.hint))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
