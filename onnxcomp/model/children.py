"""What our child processes have in common: what they inherit, how they are limited, how they ended."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

_INHERITED = ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")


def child_environment(parent: Mapping[str, str]) -> dict[str, str]:
    """What loading libraries needs, the same packages as here, and nothing else: no secrets."""
    kept = {key: value for key, value in parent.items() if key in _INHERITED or key.startswith("CUDA_")}
    return kept | {
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",  # numpy's threads would reserve address space and compute nothing
    }


def set_limits(wanted: Mapping[str, int | None]) -> None:
    """Limits this process, where the system can.

    Args:
        wanted: Name in the module `resource` → soft and hard limit; None: as it is.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, value in wanted.items():
        if value is not None:
            with contextlib.suppress(ValueError, OSError):  # a stricter limit is there already, or the system has none
                resource.setrlimit(getattr(resource, name), (value, value))


def how_it_ended(code: int) -> str:
    """The return code of a process in words: SIGSEGV, exit code 3.

    >>> how_it_ended(3)
    'exit code 3'
    """
    return signal.Signals(-code).name if -code in signal.valid_signals() else f"exit code {code}"
