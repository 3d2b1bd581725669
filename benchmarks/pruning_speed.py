"""What a cut of the MACs is worth in milliseconds: aligned pruning of VGG-16 and MobileNetV2, budgets on ResNet-56.

    ONNXCOMP_ASSETS=... python benchmarks/pruning_speed.py DIR    # DIR: of models_fetch.py, for VGG-16

Ranked by the weights alone, or by OBS and refitted on images. Original and pruned model in turns, one thread, ratio of
the 10th percentiles. "realised" is the measured ratio over the ratio of the MACs: 1 where every multiply-accumulate
that is gone saves its share of time.
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


CALIBRATION = 256
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def cifar(folder: Path, normalised: bool) -> list[dict[str, np.ndarray]]:
    """Training images, one a feed."""
    with np.load(folder / "cifar10" / "train_10k.npz") as data:
        x = data["x"][:CALIBRATION].astype(np.float32) / 255
    x = (x - MEAN) / STD if normalised else x
    return [{"input": image[None]} for image in np.ascontiguousarray(x.transpose(0, 3, 1, 2))]


def imagenet(folder: Path) -> list[dict[str, np.ndarray]]:
    """Every second image, one a feed."""
    from PIL import Image

    files = sorted((folder / "imagenet224").glob("*.jpg"))[: 2 * CALIBRATION : 2]
    arrays = [np.asarray(Image.open(f).convert("RGB"), np.float32) / 255 for f in files]
    return [{"input": np.ascontiguousarray(((a - MEAN) / STD).transpose(2, 0, 1)[None])} for a in arrays]


def main() -> None:
    folder = assets()
    models = [
        (folder / "models" / "mobilenet_v2.onnx", imagenet(folder)),
        (folder / "models" / "resnet56_cifar10.onnx", cifar(folder, True)),
    ]
    if len(sys.argv) > 1:
        models.insert(0, (Path(sys.argv[1]) / "vgg16_cifar10.onnx", cifar(folder, False)))
    rows = []
    for path, feeds in models:
        for budget in ({"macs": 0.5}, {"macs": 0.5, "round_to": 1}, {"latency": 0.75}, {"latency": 0.5}):
            rows.append(measured(path, feeds[:1], budget, learn=False))
        if path.stem != "resnet56_cifar10":  # its accuracy is in pruning_resnet.py
            rows += [measured(path, feeds, budget, learn=True) for budget in ({"macs": 0.5}, {"latency": 0.5})]
    write("pruning_speed", {"rows": rows})


def measured(
    path: Path, feeds: list[dict[str, np.ndarray]], budget: dict[str, float], *, learn: bool
) -> dict[str, object]:
    """One row: what was asked for, what came out. `learn`: rank and refit on the feeds, else by the weights alone."""
    row: dict[str, object] = {"model": path.stem, **budget, "images": len(feeds) if learn else 0}
    try:
        result = onnxcomp.prune(path, feeds if learn else None, None if learn else feeds, threads=1, **budget)
    except GateError as error:
        print(row | {"refused": error.message}, flush=True)
        return row | {"refused": error.message}
    times = bench([path, result.model], feeds[:1], threads=1, min_seconds=SECONDS)
    name = next(iter(times.speedup))
    macs = (result.report.source.macs or 0) / (result.report.result.macs or 1)
    speed = times.speedup[name]
    row |= {
        "macs ratio": round(macs, 2),
        "latency ratio": round(speed, 2),
        "interval": [round(v, 2) for v in times.interval[name]],
        "realised": round(speed / macs, 2),
        "verdict": times.verdict,
        "cosine": round(min(f.cosine for f in result.report.fidelity), 4),
        "plan": result.plan.aim() if result.plan is not None else "",
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
