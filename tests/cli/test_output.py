"""What goes where: stdout holds data only, stderr the rest; formats, colours, quiet and verbose."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from commands import Command

from onnxcomp.model.save import save_model
from onnxcomp.report.structures import Benchmark, Report

ROOT = Path(__file__).parents[2]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
HOSTILE = "a\x1b[2J\x9b[red]x[/red]<script>alert(1)</script>|`b`"


def test_json_on_stdout_is_the_report_and_nothing_else(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("quantize", model, "--calibration", data, "--format", "json")
    report = Report.model_validate_json(result.out)
    written = Path(report.result_path or "")
    assert report.result.bytes == written.stat().st_size
    assert report.result.sha256 == hashlib.sha256(written.read_bytes()).hexdigest()
    assert report.source.sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert report.exit_code == result.code == 0
    assert result.err.splitlines()[-1].startswith("DONE")


def test_markdown_on_stdout_is_the_report_and_nothing_else(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("quantize", model, "--calibration", data, "--format", "markdown")
    assert result.out.startswith("### onnxcomp quantize: DONE\n")
    tables = [line for line in result.out.splitlines() if line.startswith("|")]
    assert len(tables) > 10
    assert all(line.endswith("|") for line in tables)


def test_report_files_hold_the_same_as_stdout(onnxcomp: Command, model: Path, tmp_path: Path) -> None:
    files = tmp_path / "r.json", tmp_path / "r.md"
    words = ["simplify", model, "--report", files[0], "--report", files[1], "--format", "json"]
    result = onnxcomp(*words)
    assert files[0].read_text() == result.out
    assert files[1].read_text().startswith("### onnxcomp simplify")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.opt.onnx", "r.json", "r.md"]


def test_the_table_goes_to_stdout_and_progress_warnings_and_verdict_to_stderr(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("optimize", model)
    assert "before" in result.out
    assert "! RANDOM" in result.out
    assert "· loading" in result.err.splitlines()
    assert result.err.splitlines()[-1].startswith("NOTHING GAINED")
    assert "! RANDOM" in result.err  # as stdout is no terminal here, and may be a file that nobody reads


def test_quiet_is_silent_and_keeps_the_data_that_was_asked_for(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("simplify", model, "-q")
    assert (result.code, result.out, result.err) == (0, "", "")
    result = onnxcomp("simplify", model, "-q", "--force", "--format", "json")
    assert json.loads(result.out)["command"] == "simplify"
    assert result.err == ""
    assert onnxcomp("simplify", model, "-q").err.startswith("onnxcomp: ")  # errors are still said


def test_verbose_names_every_node_that_was_left_alone(onnxcomp: Command, model: Path, data: Path) -> None:
    words = ["quantize", model, "--calibration", data, "--exclude", "Gemm", "--force"]
    report = Report.model_validate_json(onnxcomp(*words, "--format", "json").out)
    skipped = {skip.node for step in report.steps for skip in step.skips}
    assert skipped
    text = onnxcomp(*words, "-v").out
    for node in skipped:
        assert f"{node} (" in " ".join(text.split())
    grouped = onnxcomp(*words).out
    assert "left alone: 1 Gemm [excluded]" in grouped
    assert "-v and the JSON report name every node" in grouped


def test_80_columns_hold_every_line(onnxcomp: Command, model: Path, data: Path) -> None:
    for words in (["quantize", model, "--calibration", data], ["bench", model, model, "--threads", 1]):
        out = onnxcomp(*words).out
        assert max(map(len, out.splitlines())) <= 80
        assert not CONTROL.search(out)


def test_no_color_and_a_dumb_terminal_get_no_control_codes_even_where_colour_is_forced(
    onnxcomp: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in onnxcomp("simplify", model, "--force").err
    assert "\x1b[" not in onnxcomp("simplify", model, "--force", "--no-color").err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in onnxcomp("simplify", model, "--force").err
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" not in onnxcomp("simplify", model, "--force").err


@pytest.mark.parametrize(("extra", "moves"), [({}, True), ({"CI": "true"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_moving_bars_but_not_under_ci(model: Path, extra: dict[str, str], moves: bool) -> None:
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR", "GITHUB_ACTIONS")}
    environment = {**inherited, "TERM": "xterm", "PYTHONPATH": str(ROOT), **extra}
    words = [sys.executable, "-m", "onnxcomp.cli.main", "optimize", model, "--only", "Nothing"]
    process = subprocess.Popen(words, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # how Linux reports the end of a pseudo-terminal
        pass
    assert process.wait() == 2
    assert (b"\x1b[2K" in seen or b"\x1b[?25l" in seen) is moves, seen


def test_a_reader_that_goes_away_is_no_error(model: Path) -> None:
    script = f'set -o pipefail; "{sys.executable}" -m onnxcomp.cli.main verify --help | true'
    result = subprocess.run(["bash", "-c", script], capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (result.returncode, result.stderr) == (0, b"")


def hostile_model(path: Path, cnn: ir.Model) -> None:
    copy = cnn.clone()
    for index, node in enumerate(copy.graph):
        node.name = f"{HOSTILE}{index}"
    copy.graph.outputs[0].name = HOSTILE
    copy.graph.inputs[0].name = "image"
    save_model(copy, path)


def test_names_from_a_model_are_harmless_in_every_format(
    onnxcomp: Command, cnn: ir.Model, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # so that no name is cut by the end of a line
    path = tmp_path / "[bold]model.onnx"
    hostile_model(path, cnn)
    words = ["quantize", path, "--calibration", data, "--exclude", "Gemm", "--force"]
    report = tmp_path / "r.md"
    for format_ in ("table", "json", "markdown"):
        result = onnxcomp(*words, "-v", "--format", format_, "--report", report)
        assert result.code == 0, result.err
        assert not CONTROL.search(result.out), format_
        assert not CONTROL.search(result.err), format_
        if format_ == "table":
            assert "[red]x[/red]" in result.out
            assert "[bold]model" in result.err
        elif format_ == "json":
            nodes = {skip["node"] for step in json.loads(result.out)["steps"] for skip in step["skips"]}
            assert any(node.startswith(HOSTILE) for node in nodes)
    text = report.read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "\\|\\`b\\`" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (4, 5, 6), line


def test_a_file_name_that_is_not_utf8_is_shown_and_reported(onnxcomp: Command, cnn: ir.Model, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff.onnx"))
    save_model(cnn, path)
    for format_ in ("table", "json", "markdown"):
        result = onnxcomp("simplify", path, "--format", format_, "--force", "--report", tmp_path / "r.json")
        assert result.code == 0, result.err
    assert json.loads((tmp_path / "r.json").read_text())["result"]["name"] == "m?.opt.onnx"


def test_bench_names_both_models_and_says_whether_the_figures_can_be_trusted(
    onnxcomp: Command, model: Path, other: Path
) -> None:
    words = ["bench", model, other, "--threads", 1, "--min-seconds", 0.1]
    result = onnxcomp(*words)
    assert result.code == 0, result.err
    assert "model.onnx" in result.out
    assert "other.onnx" in result.out
    assert result.err.splitlines()[-1].split()[0] in ("VALID", "UNSTABLE")
    found = Benchmark.model_validate_json(onnxcomp(*words, "--format", "json").out)
    assert list(found.latency) == ["model.onnx", "other.onnx"]
    ratio = found.latency["model.onnx"].p10 / found.latency["other.onnx"].p10
    assert found.speedup["other.onnx"] == pytest.approx(ratio, rel=1e-6)
    assert np.percentile(found.latency["model.onnx"].samples_ms, 10) == pytest.approx(
        found.latency["model.onnx"].p10, rel=0.05
    )
    assert onnxcomp(*words, "--format", "markdown").out.startswith("| model | p10 |")
