"""INT8 by onnxcomp beside the quantisers that people use, on the same feeds: score, speed, seconds and memory.

    ONNXCOMP_ASSETS=... python benchmarks/quantization.py SCRATCH MODELS ZOO [--scores] [TASK ...]

MODELS: of models_fetch.py; ZOO: of zoo_fetch.py (rapidocr-onnxruntime, nudenet, silero-vad). Each peer runs in an
environment of its own in SCRATCH, made by this script, on a folder of `.npz` feeds; what it wrote is kept there and
used again. All files of a task are timed in one interleaved run (1 thread, batch 1, 10th percentiles), and scored on
the same samples; the intervals are those of paired differences (bootstrap, 95 %), to the float model and, of ours, to
the peer with the best score. Scores of a few hundred samples are coarse, so the error of the outputs to the float
model's stands beside them: Σ‖y − ŷ‖² / Σ‖y − mean‖². `--scores` takes scores again and leaves latencies as they were.
Writes `results/quantization.json` and `results/quantization.svg`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from common import RESULTS, environment, write
from quantization_tasks import TASKS, Feed, Sources, Task, answers, scores, write_feeds

from onnxcomp.driver.jobs import bench
from onnxcomp.errors import OnnxcompError
from onnxcomp.evaluate.sensitivity import relative_error
from onnxcomp.runtime.session import SessionConfig, open_session

HERE = Path(__file__).parent
RESAMPLES = 2000
ERROR_FEEDS = 200
TIMEOUT = 1200
PACKAGES = {
    "ort": ("onnxruntime==1.31.1", "onnx==1.23.2"),
    "nncf": ("nncf==3.4.0", "onnxruntime==1.32.0", "onnx==1.23.2"),
    "quark": ("torch==2.13.0", "amd-quark==0.13", "onnxruntime==1.32.0", "onnx==1.22.0"),
}
PEERS = {
    "ort_minmax": "ort",
    "ort_percentile": "ort",
    "ort_dynamic": "ort",
    "nncf": "nncf",
    "quark": "quark",
}
OURS = {
    "onnxcomp quantize": ("quantize",),
    "onnxcomp optimize": ("optimize",),
}

Row = dict[str, object]


def made(command: list[str], output: Path) -> Row:
    """Runs a tool, once; seconds and peak memory of its process are remembered beside its output."""
    note = output.with_suffix(".json")
    if note.exists():
        return dict(json.loads(note.read_text()))
    log = output.with_suffix(".log")
    measure = [sys.executable, str(HERE / "peers" / "measure.py"), str(note), str(log), str(TIMEOUT)]
    subprocess.run([*measure, *command], check=True)
    row: Row = dict(json.loads(note.read_text()))
    status = row.pop("status")
    if status or not output.exists():
        lines = log.read_text(errors="replace").strip().splitlines()
        row["failed"] = lines[-1][:160] if lines else f"status {status}"
    note.write_text(json.dumps(row))
    return row


def candidates(task: Task, model: Path, folder: Path, scratch: Path) -> dict[str, tuple[Path, Row]]:
    """Every tool's file with what it cost; those that can't be loaded say so."""
    found: dict[str, tuple[Path, Row]] = {}
    calibration = folder / "calibration"
    for name, verb in OURS.items():
        output = folder / f"{name.replace(' ', '_')}.onnx"
        command = [str(Path(sys.executable).with_name("onnxcomp")), *verb, str(model), "--calibration"]
        command += [str(calibration), "-o", str(output), "--force", "-q", "--threads", "2"]
        found[name] = (output, made(command, output))
    alone = folder / "onnxcomp_plan.onnx"
    script = [sys.executable, str(HERE / "peers" / "onnxcomp_plan.py"), str(model), str(calibration), str(alone)]
    found["onnxcomp quantize"][1]["without_proofs"] = made(script, alone)
    for name, peer in PEERS.items():
        output = folder / f"{name}.onnx"
        python = environment(scratch / "environments" / peer, PACKAGES[peer])
        script = [str(HERE / "peers" / "quantize.py"), name, str(model), str(calibration), str(output)]
        found[name] = (output, made([str(python), *script], output))
    for path, row in found.values():
        if "failed" not in row:
            try:
                open_session(path, SessionConfig(threads=1)).close()
            except OnnxcompError as error:
                row["failed"] = f"can't be loaded: {error.message[:120]}"
    return found


def interval(task: Task, a: np.ndarray, b: np.ndarray) -> list[float]:
    """95 % bootstrap interval of the difference of two scores on the same samples."""
    rng, differences = np.random.default_rng(0), []
    groups = np.arange(len(a)).reshape(-1, task.together)
    for _ in range(RESAMPLES):
        rows = groups[rng.integers(0, len(groups), len(groups))].ravel()
        differences.append(task.total(a[rows]) - task.total(b[rows]))
    return [round(float(v), 2) for v in np.percentile(differences, (2.5, 97.5))]


def latencies(task: Task, model: Path, working: dict[str, Path], typical: dict[str, np.ndarray]) -> dict[str, Row]:
    """Speed of every file over the float model's, in one interleaved run."""
    timing = bench([model, *working.values()], [typical], threads=1, min_seconds=8.0)
    stamps = list(timing.latency)
    found: dict[str, Row] = {"float": {"speedup": 1.0, "p10_ms": round(timing.latency[stamps[0]].p10, 3)}}
    for name, stamp in zip(working, stamps[1:], strict=True):
        found[name] = {"speedup": round(timing.speedup[stamp], 3)}
    return found


def error(model: Path, float_model: Path, scored: list[tuple[Feed, object]]) -> float:
    """Of the outputs to the float model's, on the first of the scored feeds."""
    feeds = [feed for feed, _ in scored[:ERROR_FEEDS]]
    return relative_error(list(answers(float_model, feeds)), list(answers(model, feeds)))


def compared(task: Task, sources: Sources, scratch: Path, known: dict[str, Row] | None) -> dict[str, Row]:
    """One row for each tool.

    Args:
        known: Rows of an earlier run, whose latencies are taken over; None measures them.
    """
    model, folder = task.model(sources).absolute(), scratch / task.name
    learn, scored = task.feeds(sources)
    if not (folder / "calibration").exists():
        write_feeds(folder / "calibration", learn)
    files = candidates(task, model, folder, scratch)
    working = {name: path for name, (path, row) in files.items() if "failed" not in row}
    timed = known or latencies(task, model, working, task.typical(learn))
    samples = {"float": scores(task, model, scored, model)}
    samples |= {name: scores(task, path, scored, model) for name, path in working.items()}
    best = max((name for name in working if name in PEERS), key=lambda name: task.total(samples[name]))
    rows: dict[str, Row] = {"float": {}, **{name: row for name, (_, row) in files.items()}}
    for name in samples:
        path = model if name == "float" else working[name]
        rows[name] |= {"score": round(task.total(samples[name]), 2), "mb": round(path.stat().st_size / 1e6, 2)}
        rows[name] |= {key: timed[name][key] for key in ("speedup", "p10_ms") if key in timed[name]}
        if name != "float":
            rows[name]["minus_float"] = interval(task, samples[name], samples["float"])
            rows[name]["error"] = round(error(path, model, scored), 5)
        if name in OURS:
            rows[name][f"minus_{best}"] = interval(task, samples[name], samples[best])
    for name, row in rows.items():
        print(f"{task.name:13} {name:18} {row}", flush=True)
    return rows


def picture(results: dict[str, dict[str, Row]]) -> str:
    """Speed to the right, what the score loses downwards, one panel a model; ours are the filled dots."""
    width, height, columns = 250, 190, 4
    names = list(results)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * columns} {height * -(-len(names) // columns)}" '
        'font-family="sans-serif" font-size="10">',
        "<style>text{fill:#222}.a{stroke:#888}@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>",
    ]
    for index, name in enumerate(names):
        rows = {n: r for n, r in results[name].items() if "speedup" in r}
        x0, y0 = width * (index % columns) + 34, height * (index // columns) + 24
        inner, tall, fastest = width - 54, height - 60, max(float(str(r["speedup"])) for r in rows.values())
        lost = {n: max(0.0, float(str(rows["float"]["score"])) - float(str(r["score"]))) for n, r in rows.items()}
        worst = 6.0
        parts.append(f'<text x="{x0}" y="{y0 - 8}" font-weight="bold">{name}</text>')
        parts.append(f'<path class="a" fill="none" d="M{x0} {y0}V{y0 + tall}H{x0 + inner}"/>')
        for value in range(int(fastest * 1.1) + 1):
            x = x0 + inner * value / (fastest * 1.1)
            parts.append(f'<text x="{x:.0f}" y="{y0 + tall + 12}" text-anchor="middle">{value} ×</text>')
        for value in (0, 2, 4, 6):
            y = y0 + tall * value / worst
            label = f"−{value}" if value else "0"
            parts.append(f'<text x="{x0 - 4}" y="{y + 3:.0f}" text-anchor="end">{label}{"+" * (value == 6)}</text>')
        for tool, row in rows.items():
            x = x0 + inner * float(str(row["speedup"])) / (fastest * 1.1)
            y = y0 + tall * min(lost[tool], worst) / worst
            mine = tool.startswith("onnxcomp")
            fill = "#0a7d4b" if mine else "none"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{"#0a7d4b" if mine else "#c2410c"}"/>'
            )
            parts.append(
                f'<text x="{x:.1f}" y="{y - 6:.1f}" font-size="8" text-anchor="middle">{tool.split(" ")[-1]}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    if len(sys.argv) < 4:
        sys.exit("usage: quantization.py SCRATCH MODELS ZOO [--scores] [TASK ...]")
    scratch, sources = Path(sys.argv[1]).absolute(), Sources(Path(sys.argv[2]), Path(sys.argv[3]))
    again = "--scores" in sys.argv
    chosen = [name for name in sys.argv[4:] if name in TASKS] or list(TASKS)
    path = RESULTS / "quantization.json"
    results: dict[str, dict[str, Row]] = dict(json.loads(path.read_text())["tasks"]) if path.exists() else {}
    for name in chosen:
        (scratch / name).mkdir(parents=True, exist_ok=True)
        results[name] = compared(TASKS[name], sources, scratch, results.get(name) if again else None)
        metrics = {n: TASKS[n].metric for n in results}
        write("quantization", {"tasks": results, "metrics": metrics, "peers": PACKAGES, "threads": 1})
        ordered = {n: results[n] for n in TASKS if n in results}
        (RESULTS / "quantization.svg").write_text(picture(ordered), encoding="utf-8")


if __name__ == "__main__":
    main()
