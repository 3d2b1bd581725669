"""Every model of the zoo through `onnxcomp optimize`, as typed by a user; plain onnxruntime loads each result.

    python benchmarks/zoo_fetch.py ZOO
    python benchmarks/zoo_data.py ZOO ZOO/data
    python benchmarks/zoo.py ZOO [--only GLOB] [--jobs 2] [--time-limit 400] [--keep ROWS.jsonl]

Models with data of their own (see `zoo_data.py`) learn from it; the others get `random:16`, said aloud.
With `--keep` each row is written as soon as it is there, and a second run goes on with the models that have none.
With more than one job at a time latencies are noisy: a step whose latency is not proven is kept for its size only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock

from common import RESULTS, write

REAL = {
    "rapidocr-onnxruntime/*det*": "ppocr_det",
    "rapidocr-onnxruntime/*rec*": "ppocr_rec",
    "rapidocr-onnxruntime/*cls*": "ppocr_cls/data.npz",
    "magika/*": "magika/data.npz",
}


def calibration(name: str, zoo: Path) -> str:
    for pattern, data in REAL.items():
        if fnmatchcase(name, pattern) and (zoo / "data" / data).exists():
            return str(zoo / "data" / data)
    return "random:16"


def loads(path: Path) -> bool:
    """Whether plain onnxruntime, in a process of its own, opens the file."""
    code = "import sys, onnxruntime as o; o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, timeout=300).returncode == 0


def run(path: Path, zoo: Path, limit: float) -> dict[str, object]:
    name, start = str(path.relative_to(zoo)), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        output, report = Path(scratch) / "result.onnx", Path(scratch) / "report.json"
        spec = calibration(name, zoo)
        command = [sys.executable, "-m", "onnxcomp.cli.main", "optimize", str(path), "-o", str(output)]
        command += ["--calibration", spec, "--threads", "1", "--time-limit", str(limit)]
        command += ["--report", str(report), "--format", "json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit + 300)
        except subprocess.TimeoutExpired:
            return {"model": name, "verdict": "HANG"}
        row: dict[str, object] = {
            "model": name,
            "exit": done.returncode,
            "data": "random" if spec.startswith("random") else "real",
        }
        if report.exists():
            r = json.loads(report.read_text())
            row |= {
                "verdict": r["verdict"],
                "sentence": r["sentence"],
                "mb": round(r["source"]["bytes"] / 1e6, 2),
                "smaller": round(r["source"]["bytes"] / r["result"]["bytes"], 2),
                "faster": round(r["benchmark"]["speedup"]["after"], 2) if r["benchmark"] else None,
                "stable": r["benchmark"]["verdict"] if r["benchmark"] else None,
                "cosine": round(min((f["cosine"] for f in r["fidelity"]), default=1.0), 4),
                "int8": next((s["status"] for s in r["steps"] if s["name"] == "quantize"), "not reached"),
                "loads": loads(output),
                "size_is_true": output.stat().st_size == r["result"]["bytes"],
            }
        else:
            said = done.stderr.strip().splitlines() or [""]
            row |= {"verdict": f"exit {done.returncode}", "sentence": said[-1]}
        row["seconds"] = round(time.monotonic() - start, 1)
    figures = f"{row.get('smaller', '')!s:>6} {row.get('faster', '')!s:>6} {row['seconds']!s:>7} s"
    print(f"{row['verdict']:15} {figures}  {name}", flush=True)
    return row


class Kept:
    """Rows on disk, one JSON object a line."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, Lock()
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._rows = {row["model"]: row for row in map(json.loads, lines)}

    def row(self, path: Path, zoo: Path, limit: float) -> dict[str, object]:
        """The row of a model, from the disk if it is there."""
        known = self._rows.get(str(path.relative_to(zoo)))
        if known is not None:
            return dict(known)
        row = run(path, zoo, limit)
        if self._path is not None:
            with self._lock, self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        return row


def table(rows: list[dict[str, object]]) -> str:
    """All rows as Markdown, by model."""
    head = ["model", "MB", "data", "verdict", "smaller", "faster", "lowest cosine", "INT8 step"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---|---|---:|---:|---:|---|"]
    for row in rows:
        faster = (
            ""
            if row.get("faster") is None
            else f"{row['faster']}" + ("" if row["stable"] == "VALID" else " (not proven)")
        )
        cells = [row["model"], row.get("mb", ""), row.get("data", ""), row["verdict"], row.get("smaller", ""), faster]
        lines.append("| " + " | ".join(str(c) for c in [*cells, row.get("cosine", ""), row.get("int8", "")]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", action="append", metavar="GLOB", help="repeatable; default: all")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--time-limit", type=float, default=400.0)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="rows of a run that may be stopped")
    arguments = parser.parse_args()
    found = sorted(arguments.zoo.rglob("*.onnx"))
    only = arguments.only or ["*"]
    models = [p for p in found if any(fnmatchcase(str(p.relative_to(arguments.zoo)), glob) for glob in only)]
    kept = Kept(arguments.keep)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = list(pool.map(lambda p: kept.row(p, arguments.zoo, arguments.time_limit), models))
    counts = Counter(str(r["verdict"]) for r in rows)
    print(dict(counts))
    RESULTS.joinpath("zoo.md").write_text(table(rows))
    write("zoo", {"models": rows, "counts": dict(counts), "jobs": arguments.jobs})


if __name__ == "__main__":
    main()
