"""The real command line in a process of its own, stopped at a place that the test chooses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

MAIN = """
import os, signal, sys, time
call, when, number, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
sys.argv[1:] = sys.argv[5:]
from onnxcomp.runtime import benchmark
measure = benchmark.measure_stable
benchmark.measure_stable = lambda *a, **o: measure(*a, **{**o, "attempts": 1, "min_seconds": 0.01, "max_seconds": 0.1})
if call != "none":
    from onnxcomp.model import save
    from onnxcomp.report import files
    original, seen = getattr(os, call), 0
    def stopping(*arguments, **options):
        global seen
        here = sys._getframe(1).f_code.co_filename
        mine = here.endswith(("model/staging.py", "model/save.py", "report/files.py"))
        mine = mine and "onnxcomp-" not in str(arguments[0])
        hit, seen = mine and seen == number, seen + mine
        if hit and when == "before":
            os.kill(os.getpid(), getattr(signal, how))
        result = original(*arguments, **options)
        if hit and when == "after":
            os.kill(os.getpid(), getattr(signal, how))
        return result
    setattr(os, call, stopping)
from onnxcomp.cli.main import main
main()
"""
"""`onnxcomp` with quick measurements, that gets a signal before or after its n-th `os.CALL` of writing a result."""

NOWHERE = ("none", "before", "0", "SIGINT")


def start(words: Sequence[object], folder: Path, at: Sequence[str] = NOWHERE) -> subprocess.Popen[str]:
    """Starts a command line in `folder`, in a group of its own, as a shell does."""
    temporary = folder.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *at, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it still wrote to stderr."""
    try:
        _, text = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode, text
