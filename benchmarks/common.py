"""What the benchmark scripts share: the assets folder, facts of the machine, result files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def assets() -> Path:
    """The folder named by ONNXCOMP_ASSETS, or exit with the reason (see README.md of this folder)."""
    folder = os.environ.get("ONNXCOMP_ASSETS")
    if not folder or not Path(folder).is_dir():
        print("skipped: set ONNXCOMP_ASSETS to the folder with models and data; README.md beside this script says more")
        sys.exit(0)
    return Path(folder)


def facts() -> dict[str, object]:
    """Versions and machine, as they belong into every result file."""
    from onnxcomp.driver.facts import host_line, versions
    from onnxcomp.runtime.host import detect_host, detect_target

    return {"machine": host_line(), "target": detect_target(detect_host()), "versions": versions()}


def write(name: str, result: dict[str, object]) -> Path:
    """Writes results/NAME.json with the facts, and says where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(facts() | result, indent=1, sort_keys=True) + "\n")
    print(f"written: {path}")
    return path
