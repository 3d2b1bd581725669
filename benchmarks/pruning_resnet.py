"""ResNet-56, CIFAR-10, pruned without training and without labels: accuracy against multiply-accumulates.

    ONNXCOMP_ASSETS=... python benchmarks/pruning_resnet.py [--quick]

Ranking by L1 or OBS, with and without the least-squares refit, at 1/1.5, 1/2.08 and 1/2.6 of the MACs, kept channels
not rounded. At most 2,048 training images without their labels; scored on 5,000 test images. `--quick`: OBS with
refit at 1/2.08 only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from common import assets, write

import onnxcomp
from onnxcomp.runtime.session import SessionConfig, open_session

CUTS = (1.5, 2.08, 2.6)
METHODS = (
    ("l1", "none", "uniform"),
    ("obs", "none", "global"),
    ("l1", "least-squares", "uniform"),
    ("obs", "least-squares", "global"),
)
IMAGES = 2048
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def images(path: str, count: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Normalised images [n, 3, 32, 32] float32, and labels."""
    with np.load(path) as data:
        x, y = data["x"][:count].astype(np.float32) / 255, data["y"][:count]
    return np.ascontiguousarray(((x - MEAN) / STD).transpose(0, 3, 1, 2)), y


class Feeds:
    """Re-iterable single images."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return ({"input": self.x[i : i + 1]} for i in range(len(self.x)))

    def __len__(self) -> int:
        return len(self.x)


def accuracy(model: ir.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Percent."""
    with open_session(model, SessionConfig(threads=2)) as session:
        logits = [session.run({"input": x[i : i + 250]})[0] for i in range(0, len(x), 250)]
    return float(100 * (np.concatenate(logits).argmax(1) == y).mean())


def main() -> None:
    folder = assets()
    model = folder / "models" / "resnet56_cifar10.onnx"
    learn, _ = images(str(folder / "cifar10" / "train_10k.npz"), IMAGES)
    x, y = images(str(folder / "cifar10" / "test.npz"), None)
    rows: list[dict[str, object]] = [{"method": "float", "accuracy": accuracy(ir.load(model), x, y)}]
    quick = "--quick" in sys.argv
    for cut in CUTS[1:2] if quick else CUTS:
        for importance, refit, scope in METHODS[-1:] if quick else METHODS:
            start = time.monotonic()
            options = {"macs": 1 / cut, "importance": importance, "refit": refit, "scope": scope, "round_to": 1}
            # Judged here: the first image alone is left to the verb's own fidelity.
            result = onnxcomp.prune(model, Feeds(learn), [{"input": x[:1]}], **options)
            seconds = time.monotonic() - start
            before, after = result.report.source, result.report.result
            row = {
                "method": f"{importance}, {refit}, {scope}",
                "wanted": cut,
                "macs": round((before.macs or 0) / (after.macs or 1), 3),
                "accuracy": accuracy(result.model, x, y),
                "parameters": round(before.parameters / after.parameters, 3),
                "seconds": round(seconds, 1),
            }
            rows.append(row)
            print(row, flush=True)
    write("pruning_resnet_quick" if quick else "pruning_resnet", {"images": IMAGES, "rows": rows})


if __name__ == "__main__":
    main()
