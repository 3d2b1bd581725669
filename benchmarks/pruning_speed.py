"""What a cut of the MACs is worth in milliseconds: aligned pruning of VGG-16 and MobileNetV2, budgets on ResNet-56.

    ONNXCOMP_ASSETS=... python benchmarks/pruning_speed.py DIR    # DIR: of models_fetch.py, for VGG-16

Original and pruned model in turns, one thread, ratio of the 10th percentiles. "realised" is the measured ratio over the
ratio of the MACs: 1 where every multiply-accumulate that is gone saves its share of time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import assets, write

import onnxcomp
from onnxcomp.driver.jobs import bench
from onnxcomp.errors import GateError

SECONDS = 6.0


def main() -> None:
    folder = assets()
    models = [
        (folder / "models" / "mobilenet_v2.onnx", (1, 3, 224, 224)),
        (folder / "models" / "resnet56_cifar10.onnx", (1, 3, 32, 32)),
    ]
    if len(sys.argv) > 1:
        models.insert(0, (Path(sys.argv[1]) / "vgg16_cifar10.onnx", (1, 3, 32, 32)))
    rows = []
    for path, shape in models:
        for budget in ({"macs": 0.5}, {"macs": 0.5, "round_to": 1}, {"latency": 0.75}, {"latency": 0.5}):
            row = measured(path, shape, budget)
            rows.append(row)
            print(row, flush=True)
    write("pruning_speed", {"rows": rows})


def measured(path: Path, shape: tuple[int, ...], budget: dict[str, float]) -> dict[str, object]:
    """One row: what was asked for, what came out."""
    row: dict[str, object] = {"model": path.stem, **budget}
    feeds = [{"input": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}]
    try:
        result = onnxcomp.prune(path, eval=feeds, threads=1, **budget)
    except GateError as error:
        return row | {"refused": error.message}
    times = bench([path, result.model], feeds, threads=1, min_seconds=SECONDS)
    name = next(iter(times.speedup))
    macs = (result.report.source.macs or 0) / (result.report.result.macs or 1)
    speed = times.speedup[name]
    return row | {
        "macs ratio": round(macs, 2),
        "latency ratio": round(speed, 2),
        "interval": [round(v, 2) for v in times.interval[name]],
        "realised": round(speed / macs, 2),
        "verdict": times.verdict,
        "plan": getattr(result.plan, "budget", ""),
    }


if __name__ == "__main__":
    main()
