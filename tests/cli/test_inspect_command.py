"""`inspect` and `doctor` as typed: 80 columns, formats, reports, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import Command
from graphs import graph

from onnxcomp.driver import diagnosis
from onnxcomp.model.save import save_model


def test_the_table_fits_80_columns_and_says_why_not(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("inspect", model, "--nodes")
    assert result.code == 0, result.err
    assert max(map(len, result.out.splitlines())) <= 80
    for word in ("model.onnx", "opset 17", "Conv", "static INT8", "left alone: 2 Conv [kept-float]", "nothing was run"):
        assert word in result.out
    assert "\x1b" not in result.out


def test_nodes_with_long_names_and_large_figures_fit_and_keep_both_ends_of_their_names(
    onnxcomp: Command, tmp_path: Path
) -> None:
    long = "/encoder/layer.11/attention/self/query/MatMul"
    made = graph("g (float[N,1024] x, float[1024,4096] w) => (float[N,4096] y) { y = MatMul(x, w) }")
    made.graph[0].name = long
    save_model(made, tmp_path / "m.onnx")
    result = onnxcomp("inspect", tmp_path / "m.onnx", "--nodes", "--shape", "x=100000,1024")
    assert max(map(len, result.out.splitlines())) <= 80
    row = next(line for line in result.out.splitlines() if line.startswith(" /encoder"))
    assert re.search(r"MatMul +MatMul +100000×4096 +419 G +100\.0% +16\.78 MB +100\.0%", row), row
    everything = json.loads(onnxcomp("inspect", tmp_path / "m.onnx", "--format", "json").out)
    assert everything["nodes"][0]["name"] == long


def test_nodes_by_macs_or_as_in_the_graph(onnxcomp: Command, model: Path) -> None:
    def order(*words: str) -> list[str]:
        out = onnxcomp("inspect", model, "--nodes", *words).out
        table = out[out.index(" node ") : out.index(" pass ")]
        return re.findall(r"^ \S+ +([A-Z]\w+)", table, re.MULTILINE)

    assert order("--sort", "graph")[:4] == ["Conv", "Relu", "Conv", "Relu"]
    assert order()[:3] == ["Conv", "Conv", "Gemm"]


def test_json_is_all_that_stdout_holds_and_names_every_node(onnxcomp: Command, model: Path) -> None:
    found = json.loads(onnxcomp("inspect", model, "--format", "json", "-q").out)
    dynamic = next(p for p in found["prospects"] if p["name"] == "dynamic INT8")
    assert len(dynamic["nodes"]) + len(dynamic["skips"]) == 3
    assert all(skip["node"] for skip in dynamic["skips"])


def test_verbose_names_the_nodes_that_are_left_alone(onnxcomp: Command, model: Path) -> None:
    name = json.loads(onnxcomp("inspect", model, "--format", "json").out)["nodes"][0]["name"]
    assert f"{name} (Conv)" not in onnxcomp("inspect", model).out
    assert f"{name} (Conv)" in onnxcomp("inspect", model, "-v").out


def test_reports_are_written_and_other_suffixes_refused(onnxcomp: Command, model: Path, tmp_path: Path) -> None:
    paths = tmp_path / "r.json", tmp_path / "r.md"
    assert onnxcomp("inspect", model, "--report", paths[0], "--report", paths[1], "-q").out == ""
    assert json.loads(paths[0].read_text())["schema"] == "onnxcomp-inspection/1"
    assert paths[1].read_text().startswith("### onnxcomp inspect: model.onnx\n")
    assert onnxcomp("inspect", model, "--report", tmp_path / "r.pdf").code == 2
    assert onnxcomp("inspect", model, "--report", tmp_path / "nowhere" / "r.md").code == 5


def test_markdown_has_the_tables(onnxcomp: Command, model: Path) -> None:
    text = onnxcomp("inspect", model, "--format", "markdown", "--nodes").out
    for head in ("| operator | nodes | MACs |", "| node | operator | output |", "| pass | could change |"):
        assert head in text


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nowhere.onnx"], 4, "there is no file"),
        (["MODEL", "--only", "Cnov"], 2, "did you mean 'Conv'"),
        (["MODEL", "--shape", "imge=1,3,16,16"], 2, "did you mean 'image'"),
        (["MODEL", "--shape", "image=1,3,99,16"], 2, "doesn't fit input 'image'"),
        (["MODEL", "--target", "cpu-vni"], 2, "did you mean 'cpu-vnni'"),
        (["MODEL", "--ep", "cuda"], 3, "onnxcomp\\[gpu\\]"),
        (["MODEL", "--time-limit", "0.000001"], 6, "time limit"),
        (["MODEL", "--calibration", "nowhere.npz"], 4, "nowhere.npz"),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, list) else "",
)
def test_exit_codes(onnxcomp: Command, model: Path, words: list[str], code: int, told: str) -> None:
    result = onnxcomp("inspect", *(model if word == "MODEL" else word for word in words))
    assert result.code == code, result.err
    assert re.search(told, result.err)
    assert not result.out


def test_names_that_act_on_a_terminal_are_harmless(onnxcomp: Command, tmp_path: Path) -> None:
    made = graph("g (float[N,8] x, float[8,8] w) => (float[N,8] y) { a = MatMul(x, w) y = Relu(a) }")
    made.graph[0].name = "\x1b[2Jevil"
    save_model(made, tmp_path / "m.onnx")
    for words in (["--nodes"], ["-v"], ["--nodes", "--format", "markdown"], ["--format", "json"]):
        assert "\x1b" not in onnxcomp("inspect", tmp_path / "m.onnx", *words).out


def test_inspect_looks_at_calibration_feeds(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("inspect", model, "--calibration", data)
    assert result.code == 0, result.err
    assert "the model was run once" in result.out


def test_doctor_fits_80_columns_and_ends_with_a_verdict(onnxcomp: Command) -> None:
    result = onnxcomp("doctor")
    assert result.code == 0, result.out
    assert max(map(len, result.out.splitlines())) <= 80
    assert result.err.splitlines()[-1].startswith("READY")


def test_doctor_ends_with_3_if_something_is_missing(onnxcomp: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "runtime_wheels", dict)
    result = onnxcomp("doctor")
    assert result.code == 3
    assert "✗ problem" in result.out
    assert '→ pip install "onnxcomp[cpu]"' in result.out
    assert result.err.splitlines()[-1].startswith("NOT READY  1 problem")


def test_doctor_as_json_and_markdown(onnxcomp: Command, tmp_path: Path) -> None:
    found = json.loads(onnxcomp("doctor", "--format", "json", "--report", tmp_path / "m.md").out)
    assert {"name", "status", "found", "advice"} == set(found["checks"][0])
    assert (tmp_path / "m.md").read_text().startswith("### onnxcomp doctor\n")
