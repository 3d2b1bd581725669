"""The ways to quantise beside each other: static, dynamic, weights alone (4 and 8 bits, three ways to round), fp16.

    ONNXCOMP_ASSETS=... python benchmarks/precisions.py SCRATCH MODELS ZOO [TASK ...]

Folders as for `quantization.py`, whose tasks and scores these are. All files of a task are timed in one interleaved run
(1 thread, batch 1, 10th percentiles). Writes `results/precisions.json`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import write
from quantization import Row, interval, made
from quantization_tasks import TASKS, Sources, Task, scores, write_feeds

from onnxcomp.driver.jobs import bench

CHOSEN = ("minilm", "mobilenet_v2", "silero_vad", "resnet56")
WAYS = {
    "static": ("--mode", "static"),
    "dynamic": ("--mode", "dynamic"),
    "8 bits": ("--mode", "weight-only", "--bits", "8"),
    "4 bits, rtn": ("--mode", "weight-only", "--bits", "4", "--method", "rtn"),
    "4 bits, mse": ("--mode", "weight-only", "--bits", "4", "--method", "mse"),
    "4 bits, gptq": ("--mode", "weight-only", "--bits", "4", "--method", "gptq"),
    "fp16": ("--mode", "fp16"),
    "auto": ("--mode", "auto"),
}


def compared(task: Task, sources: Sources, scratch: Path) -> dict[str, Row]:
    """One row for each way."""
    model, folder = task.model(sources).absolute(), scratch / task.name
    learn, scored = task.feeds(sources)
    if not (folder / "calibration").exists():
        write_feeds(folder / "calibration", learn)
    files: dict[str, Path] = {}
    rows: dict[str, Row] = {"float": {"mb": round(model.stat().st_size / 1e6, 2)}}
    for name, options in WAYS.items():
        files[name] = folder / f"way_{name.replace(', ', '_').replace(' ', '_')}.onnx"
        command = [str(Path(sys.executable).with_name("onnxcomp")), "quantize", str(model), *options]
        command += ["--calibration", str(folder / "calibration"), "-o", str(files[name]), "--force", "-q"]
        rows[name] = made([*command, "--threads", "1"], files[name])
    working = {name: path for name, path in files.items() if "failed" not in rows[name]}
    timing = bench([model, *working.values()], [task.typical(learn)], threads=1, min_seconds=8.0)
    stamps = list(timing.latency)
    right = scores(task, model, scored, model)
    rows["float"] |= {"score": round(task.total(right), 2), "speedup": 1.0}
    for (name, path), stamp in zip(working.items(), stamps[1:], strict=True):
        samples = scores(task, path, scored, model)
        rows[name] |= {
            "score": round(task.total(samples), 2),
            "minus_float": interval(task, samples, right),
            "speedup": round(timing.speedup[stamp], 3),
            "mb": round(path.stat().st_size / 1e6, 2),
        }
    for name, row in rows.items():
        print(f"{task.name:13} {name:14} {row}", flush=True)
    return rows


def main() -> None:
    if len(sys.argv) < 4:
        sys.exit("usage: precisions.py SCRATCH MODELS ZOO [TASK ...]")
    scratch, sources = Path(sys.argv[1]).absolute(), Sources(Path(sys.argv[2]), Path(sys.argv[3]))
    results: dict[str, dict[str, Row]] = {}
    for name in sys.argv[4:] or CHOSEN:
        (scratch / name).mkdir(parents=True, exist_ok=True)
        results[name] = compared(TASKS[name], sources, scratch)
        write("precisions", {"tasks": results, "metrics": {n: TASKS[n].metric for n in results}, "threads": 1})


if __name__ == "__main__":
    main()
