"""What our child processes inherit of the environment."""

from __future__ import annotations

import os
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
