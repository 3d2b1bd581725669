"""What the benchmark scripts share: the assets folder, facts of the machine, result files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The Python of a virtual environment with these packages, made on the first call."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        (folder / "ready").touch()
    return python


def spearman(given: np.ndarray, wanted: np.ndarray) -> float:
    """Rank correlation; equal values have their mean rank."""
    return float(np.corrcoef(_ranks(given), _ranks(wanted))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])


def sts_pairs() -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray], float]]:
    """The pairs of sentences of STS-B dev as feeds of MiniLM, with what people said of their similarity."""
    from tokenizers import Tokenizer

    folder = assets() / "sts"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()

    def feed(text: str) -> dict[str, np.ndarray]:
        ids = np.array([tokenizer.encode(text).ids[:128]], np.int64)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    lines = (line.split("\t") for line in (folder / "sts-dev.csv").read_text(encoding="utf-8").splitlines())
    return [(feed(p[5]), feed(p[6]), float(p[4])) for p in lines]
