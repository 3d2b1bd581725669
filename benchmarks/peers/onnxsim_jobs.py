"""Runs onnxsim's pruning functions on ONNX files. Started by ../pruning_peers.py in the peer's own environment.

    python onnxsim_jobs.py JOBS.json CALIBRATION.npz OUTCOMES.json

Each job runs in a process of its own, so that a crash costs one result. A job is an object with `model` and `output`
(paths), `calls` (list of [function of onnxsim, its keyword arguments]) and, for calls that calibrate, `images`: how
many of `x` in CALIBRATION.npz they see (not opened otherwise). The outcome of a job is "" or what went wrong.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxsim

BATCH = 64
TIME_LIMIT = 300.0
CALIBRATED = ("apply_structured_wanda_pruning", "apply_pruning_finetune")


def apply(job: dict[str, Any], archive: str) -> None:
    """Pruned model to `output`; "simplify" and "apply_pruning_finetune" have signatures of their own."""
    model = original = onnx.load(job["model"])
    for name, options in job["calls"]:
        if name in CALIBRATED:
            with np.load(archive) as data:
                x = data["x"][: job["images"]]
            options = options | {"calibration_data": [{"input": x[i : i + BATCH]} for i in range(0, len(x), BATCH)]}
        if name == "simplify":
            model, _ = onnxsim.simplify(model)
            original = model
        elif name == "apply_pruning_finetune":
            model = onnxsim.apply_pruning_finetune(original, model, **options)
        else:
            model = getattr(onnxsim, name)(model, **options)
    onnx.save(model, job["output"])


def child(job: dict[str, Any], archive: str, sender: Any) -> None:
    try:
        apply(job, archive)
        sender.send("")
    except BaseException as error:
        text = str(error).strip()
        sender.send(f"{type(error).__name__}: {text.splitlines()[0][:160] if text else ''}")


def outcome(job: dict[str, Any], archive: str) -> str:
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=child, args=(job, archive, sender))
    process.start()
    sender.close()
    try:
        answer = str(receiver.recv()) if receiver.poll(TIME_LIMIT) else f"still running after {TIME_LIMIT:.0f} s"
    except EOFError:
        process.join()
        answer = f"crashed with exit code {process.exitcode}"
    process.kill()
    process.join()
    return answer


if __name__ == "__main__":
    jobs = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[3]).write_text(json.dumps([outcome(job, sys.argv[2]) for job in jobs]))
