"""Same plan, same model, same feeds: same bytes, whatever order Python's sets have in the process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import graph

from onnxcomp.model.save import save_model

ROOT = Path(__file__).parents[2]

MODEL = """g (float[N,3,16,16] image, float[16,3,3,3] w1, float[16,16,3,3] w2, float[16,16,3,3] w3, float[32,64] w4,
        float[64,64] w6, float[10,64] w5, float[16] ws, float[16] wv) => (float[N,10] logits, float[N,64] hidden) {
    a = Conv <pads = [1,1,1,1]> (image, w1)
    n = BatchNormalization (a, ws, ws, ws, wv)
    b = Relu (n)
    c = Conv <pads = [1,1,1,1]> (b, w2)
    d = Sigmoid (c)
    e = Conv <pads = [1,1,1,1]> (b, w3)
    s = Add (d, e)
    cat = Concat <axis = 1> (s, b)
    p = GlobalAveragePool (cat)
    f = Flatten (p)
    h = MatMul (f, w4)
    i = Relu (h)
    j = MatMul (i, w6)
    hidden = Relu (j)
    logits = Gemm <transB = 1> (hidden, w5)
}"""

PASSES = {
    "simplify": ["simplify"],
    "static": ["quantize", "--exclude", "MatMul"],
    "dynamic": ["quantize", "--mode", "dynamic"],
    "weight-only": ["quantize", "--mode", "weight-only", "--bits", "8", "--min-cosine", "0.5"],
    "fp16": ["quantize", "--mode", "fp16"],
    "prune": ["prune", "--ratio", "0.25"],
    "factorize": ["factorize", "--energy", "0.9", "--allow-slower"],
}
"""Command lines of which the plan needs no clock."""

PROCESS = """
import json, sys
from pathlib import Path
from onnxcomp.cli.main import run
from onnxcomp.runtime import benchmark
measure = benchmark.measure_stable
benchmark.measure_stable = lambda *a, **o: measure(*a, **{**o, "attempts": 1, "min_seconds": 0.01, "max_seconds": 0.1})
folder, passes = Path(sys.argv[1]), json.loads(sys.argv[2])
for name, (verb, *options) in passes.items():
    words = [verb, "model.onnx", *options] + ["--eval" if verb == "simplify" else "--calibration", "data.npz", "-q"]
    for more in (["--dry-run", "-o", str(folder / f"{name}.json")],
                 ["--plan", f"plans/{name}.json", "-o", str(folder / f"{name}.onnx")]):
        if "--plan" in more and verb in ("prune", "factorize"):
            words = [w for w in words if w not in ("--ratio", "0.25", "--energy", "0.9", "--allow-slower")]
        code = run([*words, *more])
        if code:
            sys.exit(f"{name} {more}: exit code {code}")
        if folder.name == "plans":
            break
"""


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plans, and what two processes with other hash seeds, in other folders, made of them."""
    root = tmp_path_factory.mktemp("determinism")
    save_model(graph(MODEL, wv=np.linspace(0.5, 2, 16, dtype=np.float32)), root / "model.onnx")
    np.savez(root / "data.npz", image=np.random.default_rng(0).standard_normal((24, 3, 16, 16), dtype=np.float32))
    for name, seed in (("plans", "0"), ("one", "1"), ("another", "4242")):
        (root / name).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, name, json.dumps(PASSES)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return root


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", PASSES)
def test_a_plan_is_replayed_to_the_same_bytes_in_every_process(twice: Path, name: str) -> None:
    made = [twice / process / f"{name}.onnx" for process in ("one", "another")]
    assert digest(made[0]) == digest(made[1])
    assert digest(made[0]) != digest(twice / "model.onnx"), "the pass changed the model"


@pytest.mark.parametrize("name", PASSES)
def test_what_is_planned_without_a_clock_is_the_same_in_every_process(twice: Path, name: str) -> None:
    plans = {(twice / process / f"{name}.json").read_bytes() for process in ("plans", "one", "another")}
    assert len(plans) == 1
