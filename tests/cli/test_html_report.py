"""`--report page.html`, for every verb that reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from commands import Command
from graphs import graph

from onnxcomp.model.save import save_model

MLP = """g (float[N,96] image, float[96,128] w1, float[128,6] w3) => (float[N,6] logits) {
    a = MatMul(image, w1) b = Relu(a) logits = MatMul(b, w3)
}"""


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """A product of rank 4, so that two factors are smaller."""
    path = tmp_path / "dense.onnx"
    rng = np.random.default_rng(0)
    low = (rng.standard_normal((96, 4)) @ rng.standard_normal((4, 128))).astype(np.float32)
    save_model(graph(MLP, w1=low), path)
    return path


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["optimize", "M", "--calibration", "D"], '<h3 id="step-1">simplify'),
        (["simplify", "M"], "What was done"),
        (["quantize", "M", "--calibration", "D"], "What runs in integers"),
        (["quantize", "M", "--calibration", "D"], "Ranges of activations on their histograms"),
        (["prune", "M", "--macs", "0.6", "--round-to", "1"], "Channels of each cell"),
        (["factorize", "L", "--macs", "0.7", "--round-to", "1"], "Energy lost by rank"),
        (["compare", "M", "M", "--min-seconds", "0.1"], "Where the values part"),
        (["inspect", "M"], "What each pass could do"),
        (["verify", "M", "--against", "M"], "Against"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_each_verb_writes_the_page(
    onnxcomp: Command, model: Path, dense: Path, data: Path, tmp_path: Path, words: list[str], shown: str
) -> None:
    paths = {"M": model, "D": data, "L": dense}
    page = tmp_path / "page.html"
    result = onnxcomp(*(paths.get(word, word) for word in words), "--report", page, "-q")
    assert result.code == 0, result.err
    text = page.read_text(encoding="utf-8")
    assert text.lstrip().startswith("<!doctype html>")
    assert shown in text
    assert text.rstrip().endswith("</html>")


def test_a_plan_has_a_page_too(onnxcomp: Command, model: Path, data: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert onnxcomp("quantize", model, "--calibration", data, "--dry-run", "--report", page).code == 0
    assert "What would be done" in page.read_text(encoding="utf-8")


def test_a_node_that_is_called_like_a_script_is_text(
    onnxcomp: Command, cnn: ir.Model, data: Path, tmp_path: Path
) -> None:
    copy = cnn.clone()
    for index, node in enumerate(copy.graph):
        node.name = f"<script>alert({index})</script>\x1b[2J"
    path, page = tmp_path / "<b>model.onnx", tmp_path / "page.html"
    save_model(copy, path)
    words = ["quantize", path, "--calibration", data, "--exclude", "Gemm", "--report", page]
    assert onnxcomp(*words).code == 0
    text = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(" in text
    assert "<script>alert(" not in text
    assert "<b>" not in text
    assert "\x1b" not in text
