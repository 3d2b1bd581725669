"""MobileNetV2: what watching its activations costs, beside plain inference and ONNX Runtime's own MinMax calibration.

    ONNXCOMP_ASSETS=... python benchmarks/calibration_speed.py

Each measurement is a process of its own, so that its peak of resident memory is its own; all see the same 256 feeds on
all cores, five times in turn, and the fastest of the five is shown. Ours: minimum, maximum and a histogram of each
tensor that the INT8 pass asks for. ONNX Runtime: `create_calibrator(MinMax)` as it comes (ranges only, of the tensors
that it chooses), over the same feeds. Session creation counts. CPU seconds are those of the whole
process, imports included; they say what a busy machine's clock can't.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from common import assets, write

from onnxcomp.calibration.readers import DataKind, Feed, Reader
from onnxcomp.calibration.stream import observe
from onnxcomp.model.normalize import normalize
from onnxcomp.passes.quantize.placement import quantized_values, settle, ties
from onnxcomp.passes.quantize.sites import find_sites
from onnxcomp.runtime.session import SessionConfig, open_session

FEEDS = 256
DISTINCT = 16
"""Arrays behind the feeds: so few that they weigh nothing in the peaks."""

ROUNDS = 5
CONFIG = SessionConfig(threads=len(os.sched_getaffinity(0)))


def feeds() -> Iterator[Feed]:
    """256 times normal values as an image; made before the clock starts."""
    arrays = [np.random.default_rng(i).standard_normal((1, 3, 224, 224), np.float32) for i in range(DISTINCT)]
    return ({"input": arrays[i % DISTINCT]} for i in range(FEEDS))


def plain(model: Path) -> dict[str, float]:
    """All feeds through the model, nothing watched."""
    items = feeds()
    start = time.perf_counter()
    with open_session(model, CONFIG) as session:
        for feed in items:
            session.run(feed)
    return {"seconds": time.perf_counter() - start}


def ours(model: Path) -> dict[str, float]:
    """`observe` on every tensor that the INT8 pass wants to know."""
    canonical = normalize(ir.load(model)).model
    sites = settle(find_sites(canonical, (), ())[0])
    tied = ties(sites)
    tensors = [name for name in quantized_values(sites)[0] if name not in tied]
    items = feeds()
    start = time.perf_counter()
    found = observe(canonical, tensors, Reader(lambda: items, DataKind.RANDOM, "random", FEEDS), CONFIG)
    seconds = time.perf_counter() - start
    values = sum(o.histogram.total for o in found.values())
    return {"seconds": seconds, "tensors": len(tensors), "values_in_histograms": values}


def onnxruntime_minmax(model: Path) -> dict[str, float]:
    """ONNX Runtime's MinMax calibrator, on the tensors that it chooses itself."""
    from onnxruntime.quantization import CalibrationDataReader
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    class Source(CalibrationDataReader):
        def __init__(self) -> None:
            self.items = feeds()

        def get_next(self) -> Feed | None:
            return next(self.items, None)

    source = Source()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(model, augmented_model_path=augmented, calibrate_method=CalibrationMethod.MinMax)
        calibrator.collect_data(source)
        ranges = calibrator.compute_data()
        return {"seconds": time.perf_counter() - start, "tensors": len(ranges.keys())}


MEASUREMENTS = {"plain inference": plain, "onnxcomp": ours, "onnxruntime MinMax": onnxruntime_minmax}


def peak_megabytes() -> float:
    """Largest resident memory of this process so far."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measured(name: str, model: Path) -> dict[str, float]:
    """One measurement in a child process."""
    child = subprocess.run([sys.executable, __file__, name, str(model)], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return result


def main() -> None:
    model = assets() / "models" / "mobilenet_v2.onnx"
    load = os.getloadavg()[0]
    rounds = [{name: measured(name, model) for name in MEASUREMENTS} for _ in range(ROUNDS)]
    best = {name: min((r[name] for r in rounds), key=lambda m: m["seconds"]) for name in MEASUREMENTS}
    print(f"{'':20} {'seconds':>8} {'CPU s':>8} {'peak MB':>8} {'tensors':>8}")
    for name, m in best.items():
        print(f"{name:20} {m['seconds']:8.1f} {m['cpu_seconds']:8.1f} {m['peak_mb']:8.0f} {m.get('tensors', 0):8.0f}")
    seconds = {name: [round(r[name]["seconds"], 2) for r in rounds] for name in MEASUREMENTS}
    write(
        "calibration_speed",
        {"feeds": FEEDS, "threads": CONFIG.threads, "load_before": load, "best": best, "seconds": seconds},
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        result = MEASUREMENTS[sys.argv[1]](Path(sys.argv[2]))
        result |= {"peak_mb": peak_megabytes(), "cpu_seconds": time.process_time()}
        print(json.dumps({k: round(v, 2) for k, v in result.items()}))
    else:
        main()
