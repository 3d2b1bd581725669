"""A small model with data, the command line in this process, and measurements that take no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from commands import Command, Outcome
from graphs import graph

from onnxcomp.cli.main import run
from onnxcomp.model.save import save_model
from onnxcomp.runtime import benchmark

CNN = """g (float[N,3,16,16] image, float[16,3,3,3] w1, float[32,16,3,3] w2, float[10,32] w3) => (float[N,10] logits) {
    a = Conv <pads = [1,1,1,1]> (image, w1)
    b = Relu (a)
    c = Conv <pads = [1,1,1,1]> (b, w2)
    d = Relu (c)
    e = GlobalAveragePool (d)
    f = Flatten (e)
    logits = Gemm <transB = 1> (f, w3)
}"""


@pytest.fixture
def onnxcomp(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command line in this process; measurements are cut to a moment."""
    measure = benchmark.measure_stable

    def hasty(*args: object, **options: object) -> object:
        return measure(*args, **{**options, "attempts": 1, "min_seconds": 0.01, "max_seconds": 0.2})  # type: ignore[arg-type]

    monkeypatch.setattr(benchmark, "measure_stable", hasty)
    for variable in ("NO_COLOR", "FORCE_COLOR", "CI", "COLUMNS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(variable, raising=False)

    def command(*words: object) -> Outcome:
        capfd.readouterr()
        code = run([str(word) for word in words])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="session")
def cnn() -> ir.Model:
    return graph(CNN)


@pytest.fixture
def model(tmp_path: Path, cnn: ir.Model) -> Path:
    """A convolutional network of 6 kB, N × 3 × 16 × 16 → N × 10."""
    path = tmp_path / "model.onnx"
    save_model(cnn, path)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The same architecture with other weights."""
    path = tmp_path / "other.onnx"
    save_model(graph(CNN, seed=7), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Thirty-two images."""
    path = tmp_path / "data.npz"
    np.savez(path, image=np.random.default_rng(0).standard_normal((32, 3, 16, 16), dtype=np.float32))
    return path
