"""`onnxcomp quantize` as a user meets it: smoothing, portable files, plans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import Command
from graphs import graph

import onnxcomp as api
from onnxcomp.errors import UsageError
from onnxcomp.model.save import save_model

LAYER = "n{i} = Mul(t{i}, w_c) m{i} = MatMul(n{i}, w{i}) a{i} = Add(m{i}, w{i}b) t{i1} = Neg(a{i})"
OUTLIERS = np.where(np.arange(16) % 8 == 3, 40.0, 1.0).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Four products with a matrix, behind channels of very different sizes."""
    layers = " ".join(LAYER.format(i=i, i1=i + 1) for i in range(4))
    inputs = ", ".join(f"float[16,16] w{i}, float[16] w{i}b" for i in range(4))
    rng = np.random.default_rng(3)
    weights = {f"w{i}": (rng.normal(0, 0.25, (16, 16)) / OUTLIERS[:, None]).astype(np.float32) for i in range(4)}
    head = f"g (float[N,16] x, float[16] w_c, {inputs}) => (float[N,16] y)"
    path = tmp_path / "model.onnx"
    # Two readers keep the factors out of the weights: they are what smoothing is for.
    body = f"t0 = Neg(x) {layers} u0 = Add(n0, n1) u1 = Add(n2, n3) u2 = Add(u0, u1) u = Mul(u2, w_z) y = Sub(t4, u)"
    head = head.replace("float[16] w_c", "float[16] w_c, float w_z")
    save_model(graph(f"{head} {{ {body} }}", w_c=OUTLIERS, w_z=np.zeros((), np.float32), **weights), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).standard_normal((60, 16), dtype=np.float32))
    return path


def operators(path: Path) -> set[str]:
    return {f"{n.domain}:{n.op_type}" for n in onnx.load(path).graph.node}


def test_operators_of_onnx_runtime_are_named_and_absent_with_portable(onnxcomp: Command, data: Path, tmp_path: Path):
    model = tmp_path / "one.onnx"
    text = "g (float[N,16] x, float[16,64] w, float[64] w_b) => (float[N,64] y) { m = MatMul(x, w) y = Add(m, w_b) }"
    save_model(graph(text), model)
    for flags, wanted in (((), True), (("--portable",), False)):
        out = tmp_path / f"out{wanted}.onnx"
        result = onnxcomp("quantize", model, "--calibration", data, "-o", out, *flags)
        assert result.code == 0
        assert ("com.microsoft:MatMulIntegerToFloat" in operators(out)) is wanted
        assert ("operators of ONNX Runtime's own" in result.out) is wanted


def test_smoothing_is_in_the_plan_and_can_be_switched_off(onnxcomp: Command, model: Path, data: Path):
    def plan(*flags: str) -> dict[str, object]:
        result = onnxcomp("quantize", model, "--calibration", data, "--dry-run", "--format", "json", *flags)
        assert result.code == 0
        return dict(json.loads(result.out))

    assert len(plan()["smoothing"]) == len(plan("--smooth", "0.5")["smoothing"]) == 4  # type: ignore[arg-type]
    assert plan("--smooth", "none")["smoothing"] == {}
    assert plan("--smooth", "0.5")["smoothing"] != plan("--smooth", "0.8")["smoothing"]


@pytest.mark.parametrize("value", ["3", "-0.1", "some"])
def test_an_alpha_out_of_range_is_wrong_usage(onnxcomp: Command, model: Path, data: Path, value: str):
    result = onnxcomp("quantize", model, "--calibration", data, f"--smooth={value}")
    assert result.code == 2
    assert "--smooth" in result.err


def test_from_python_an_alpha_out_of_range_names_the_option(model: Path):
    with pytest.raises(UsageError, match="--smooth"):
        api.quantize(model, [{"x": np.zeros((1, 16), np.float32)}], smooth=1.5)
