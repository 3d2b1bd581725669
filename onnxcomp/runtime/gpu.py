"""NVIDIA GPUs, as their driver's own tool tells them."""

from __future__ import annotations

import shutil
import subprocess

SECONDS = 10.0
_QUERY = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")


def gpus() -> tuple[str, ...] | None:
    """`NVIDIA H100, 550.54, 81559 MiB` for each GPU; None where there is no nvidia-smi, or it finds no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        done = subprocess.run([tool, *_QUERY], capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = tuple(line.strip() for line in done.stdout.splitlines() if line.strip())
    return lines if done.returncode == 0 and lines else None
