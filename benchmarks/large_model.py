"""A model of 3 GB with external data through `inspect` and `simplify`, each in a process: peak memory and seconds.

    python benchmarks/large_model.py

The data file is sparse (made by truncate), so the weights are zeros but for one number each, and the disk holds little
of them. `simplify` is `plan` and `apply` of the pass and `save_model`, without the proof, which runs the model twice
and needs its weights in memory each time. Resident memory of the memory-mapped file is given back by the system when
it is wanted, and is counted apart: `anonymous` is what the process holds itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import onnx
from common import write

LAYERS, WIDTH = 48, 4096
"""Weights of 4096 × 4096 floats: 64 MiB each, 3 GiB together."""


def make(folder: Path) -> Path:
    """The model: products one after the other, each with an Identity that `simplify` removes."""
    graph = onnx.GraphProto(name="large")
    graph.input.append(onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, ["N", WIDTH]))
    size = 4 * WIDTH * WIDTH
    for i in range(LAYERS):
        tensor = graph.initializer.add(name=f"w{i}", data_type=onnx.TensorProto.FLOAT, dims=[WIDTH, WIDTH])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "large.data"), ("offset", i * size), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        graph.node.append(onnx.helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"p{i}"]))
        graph.node.append(onnx.helper.make_node("Identity", [f"p{i}"], [f"x{i + 1}"]))
    graph.output.append(onnx.helper.make_tensor_value_info(f"x{LAYERS}", onnx.TensorProto.FLOAT, ["N", WIDTH]))
    with (folder / "large.data").open("wb") as file:
        for i in range(LAYERS):  # one number that differs, or simplify would make one weight of them
            file.seek(i * size)
            file.write(bytes([0, 0, 128 + i % 2, 60 + i // 2]))
        file.truncate(LAYERS * size)
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)])
    (folder / "large.onnx").write_bytes(model.SerializeToString())
    return folder / "large.onnx"


def simplify(path: Path) -> dict[str, object]:
    """Runs in the measured process."""
    from onnxcomp.model.load import load
    from onnxcomp.model.normalize import normalize
    from onnxcomp.model.save import save_model
    from onnxcomp.ops.targets import TARGETS
    from onnxcomp.passes.base import Context
    from onnxcomp.passes.simplify.simplify import Simplify
    from onnxcomp.runtime.session import SessionConfig

    seconds: dict[str, float] = {}
    peak = [0]
    threading.Thread(target=_watch, args=(peak,), daemon=True).start()
    start = time.perf_counter()
    model = load(path).model
    seconds["load"] = time.perf_counter() - start
    start = time.perf_counter()
    canonical = normalize(model).model
    step, context = Simplify(), Context(None, TARGETS["cpu-vnni"], SessionConfig(threads=1), shapes={}, feed={})
    result = step.apply(canonical, step.plan(canonical, context), context)
    seconds["simplify"] = time.perf_counter() - start
    start = time.perf_counter()
    saved = save_model(result, path.with_name("small.onnx"))
    seconds["save"] = time.perf_counter() - start
    return {
        "bytes": saved.bytes,
        "nodes": [sum(1 for _ in model.graph), sum(1 for _ in result.graph)],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "peak_anonymous_mb": round(peak[0] / 1e6),
        "peak_resident_mb": round(_status("VmHWM") / 1e6),
    }


def inspect(path: Path) -> dict[str, object]:
    """Runs in the measured process."""
    import onnxcomp

    peak = [0]
    threading.Thread(target=_watch, args=(peak,), daemon=True).start()
    found = onnxcomp.inspect(path)
    return {
        "findings": len(found.findings),
        "peak_anonymous_mb": round(peak[0] / 1e6),
        "peak_resident_mb": round(_status("VmHWM") / 1e6),
    }


MEASURED = {"inspect": inspect, "simplify": simplify}


def _watch(peak: list[int]) -> None:
    while True:
        peak[0] = max(peak[0], _status("RssAnon"))
        time.sleep(0.01)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(MEASURED[sys.argv[1]](Path(sys.argv[2]))))
        return
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        path = make(Path(name))
        for verb in MEASURED:
            start = time.perf_counter()
            done = subprocess.run([sys.executable, __file__, verb, path], capture_output=True, text=True, check=True)
            results[verb] = json.loads(done.stdout) | {"whole_process_s": round(time.perf_counter() - start, 1)}
    print(results)
    write("large_model", results)


if __name__ == "__main__":
    main()
