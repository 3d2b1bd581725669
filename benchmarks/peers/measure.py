"""Runs a command and writes what it cost: `python measure.py NOTE.json LOG SECONDS COMMAND...`

A process of its own, because Linux counts the memory of the parent at the time of the fork as the child's.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

if __name__ == "__main__":
    note, log, limit, *command = sys.argv[1:]
    start = time.monotonic()
    with open(log, "w") as stream:
        try:
            status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, timeout=float(limit)).returncode
        except subprocess.TimeoutExpired:
            status = -1
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    row = {"seconds": round(time.monotonic() - start, 1), "peak_mb": peak, "status": status}
    with open(note, "w") as file:
        json.dump(row, file)
