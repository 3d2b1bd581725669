"""MobileNetV2: INT8 by onnxcomp beside ONNX Runtime's own static recipe, on the same images, in one interleaved run.

    ONNXCOMP_ASSETS=... python benchmarks/mobilenet_int8.py

The peer is `onnxruntime.quantization.quantize_static` as its documentation recommends for CPUs: QDQ, u8 activations, s8
weights per channel, MinMax, after `quant_pre_process`; once as it is, and once with `reduce_range`, which it recommends
for CPUs without VNNI. All see the same 128 images for calibration and are scored on the other 372. One thread;
latencies are taken in turns, and compared by 10th percentiles.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import assets, write
from peers.quantize import ort_static
from PIL import Image

import onnxcomp
from onnxcomp.driver.jobs import bench
from onnxcomp.runtime.session import SessionConfig, open_session

CALIBRATION = 128
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
RESAMPLES = 2000


def images(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images [n, 3, 224, 224] float32 and their classes, in a fixed shuffled order."""
    files = sorted((folder / "imagenet224").glob("*.jpg"))
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    x = np.stack([np.asarray(Image.open(f).convert("RGB"), np.float32) / 255 for f in files])
    return ((x - MEAN) / STD).transpose(0, 3, 1, 2).copy(), np.array([int(f.name[:4]) for f in files])


class Feeds:
    """Re-iterable feeds, and ONNX Runtime's reader protocol over the same arrays."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x
        self.rewind()

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return ({"input": self.x[i : i + 1]} for i in range(len(self.x)))

    def __len__(self) -> int:
        return len(self.x)

    def rewind(self) -> None:
        self._next = iter(self)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._next, None)


def logits(model: Path, x: np.ndarray) -> np.ndarray:
    with open_session(model, SessionConfig(threads=2)) as session:
        return np.concatenate([session.run({"input": x[i : i + 4]})[0] for i in range(0, len(x), 4)])


def kl(reference: np.ndarray, other: np.ndarray) -> float:
    def log_softmax(v: np.ndarray) -> np.ndarray:
        v = v - v.max(axis=1, keepdims=True)
        return v - np.log(np.exp(v).sum(axis=1, keepdims=True))

    p, q = log_softmax(reference.astype(np.float64)), log_softmax(other.astype(np.float64))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def paired_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the difference of two hit rates on the same images, in points."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(a), (RESAMPLES, len(a)))
    differences = 100 * (a[picks].mean(axis=1) - b[picks].mean(axis=1))
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    folder = assets()
    source = folder / "models" / "mobilenet_v2.onnx"
    x, y = images(folder)
    learn, test, labels = Feeds(x[:CALIBRATION]), x[CALIBRATION:], y[CALIBRATION:]
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        names = ("ort-minmax", "ort-minmax-reduce-range", "onnxcomp")
        paths = {"float": source} | {name: Path(scratch) / f"{name}.onnx" for name in names}
        for name, reduce_range in (("ort-minmax", False), ("ort-minmax-reduce-range", True)):
            start = time.monotonic()
            learn.rewind()
            ort_static("MinMax", source, learn, paths[name], reduce_range=reduce_range)
            seconds[name] = time.monotonic() - start
        start = time.monotonic()
        result = onnxcomp.optimize(source, calibration=list(learn), threads=1)
        seconds["onnxcomp"] = (
            time.monotonic() - start
        )  # with proofs and latency measurements, which the peer does not do
        result.save(paths["onnxcomp"])
        answers = {name: logits(path, test) for name, path in paths.items()}
        timing = bench(list(paths.values()), threads=1, min_seconds=20.0)
        hits = {name: (a.argmax(axis=1) == labels).astype(float) for name, a in answers.items()}
        rows = {
            name: {
                "top1_percent": 100 * float(hits[name].mean()),
                "kl_to_float": kl(answers["float"], answers[name]),
                "bytes": paths[name].stat().st_size,
                "speedup_over_float": timing.speedup.get(paths[name].name, 1.0),
                "p10_ms": timing.latency[paths[name].name].p10,
                "seconds": round(seconds.get(name, 0.0), 1),
            }
            for name in paths
        }
    difference = {
        n: paired_interval(hits["onnxcomp"], hits[n]) for n in ("float", "ort-minmax", "ort-minmax-reduce-range")
    }
    for name, row in rows.items():
        print(f"{name:26}" + "  ".join(f"{k} {v:.4g}" for k, v in row.items()))
    write(
        "mobilenet_int8",
        {
            "rows": rows, "n": len(test), "calibration_images": CALIBRATION, "benchmark_verdict": timing.verdict,
            "top1_points_onnxcomp_minus_other_95_percent": difference, "onnxcomp_verdict": result.report.verdict.value,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
