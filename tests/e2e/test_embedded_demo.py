"""The whole way on the embedded default (a trained network and real images): command line and Python API."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader

import onnxcomp
from onnxcomp.errors import DataError, GateError, UsageError, WriteError
from onnxcomp.model.save import serialize
from onnxcomp.report.structures import Report, Verdict
from onnxcomp.runtime import benchmark

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "calibration" / "fashion_mnist"
MODEL = DEFAULT / "fashion_cnn.onnx"
RAW = "?map=x:image&layout=nhwc&scale=255"
Feed = dict[str, np.ndarray]


def spec(name: str) -> str:
    return f"npz:{DEFAULT / name}.npz{RAW}"


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnxcomp.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report, str]:
    """What `make demo` does: the file, its report, and the last line that the user read."""
    folder = tmp_path_factory.mktemp("demo")
    output, report = folder / "fashion_cnn.opt.onnx", folder / "report.json"
    done = command(
        "optimize",
        MODEL,
        "-o",
        output,
        "--calibration",
        spec("calibration"),
        "--eval",
        spec("test"),
        "--report",
        report,
    )
    assert done.returncode == 0, done.stderr
    return output, Report.model_validate_json(report.read_text()), done.stderr.splitlines()[-1]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements take no time; for tests that are not about them."""
    measure = benchmark.measure_stable

    def moment(*args: Any, **options: Any) -> Any:
        return measure(*args, **{**options, "attempts": 1, "min_seconds": 0.01, "max_seconds": 0.2})

    monkeypatch.setattr(benchmark, "measure_stable", moment)


def images(name: str, count: int) -> np.ndarray:
    """[count, 1, 28, 28] in 0..1, read without our readers."""
    with np.load(DEFAULT / f"{name}.npz", allow_pickle=False) as data:
        return (data["x"][:count].astype(np.float32) / 255).reshape(-1, 1, 28, 28)


def feeds(count: int = 24) -> list[Feed]:
    return [{"image": image[None]} for image in images("calibration", count)]


def accuracy(model: Path) -> float:
    """Top-1 on the 1,000 test images, by plain ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    with np.load(DEFAULT / "test.npz", allow_pickle=False) as data:
        labels = data["y"]
    logits = session.run(None, {"image": images("test", len(labels))})[0]
    return float((logits.argmax(1) == labels).mean())


def test_the_result_is_a_third_of_the_size_and_loses_less_than_a_point(demo: tuple[Path, Report, str]) -> None:
    output, report, _ = demo
    assert output.stat().st_size < MODEL.stat().st_size / 3
    before, after = accuracy(MODEL), accuracy(output)
    assert after >= before - 0.01
    assert report.metric is not None
    assert (report.metric.before, report.metric.after) == pytest.approx((before, after), abs=0.002)
    assert report.metric.samples == 1000


def test_the_report_tells_the_truth_about_both_files(demo: tuple[Path, Report, str]) -> None:
    output, report, last = demo
    for facts, path in ((report.source, MODEL), (report.result, output)):
        proto = onnx.load(path)
        assert facts.bytes == path.stat().st_size
        assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert facts.nodes == len(proto.graph.node)
        assert facts.name == path.name
        operators = [node.op_type for node in proto.graph.node]
        assert facts.operators == {name: operators.count(name) for name in operators}
    assert report.result_path == str(output)
    assert last.startswith(report.verdict.value)
    assert str(output) in last


def test_the_verdict_follows_from_the_reports_own_figures(demo: tuple[Path, Report, str]) -> None:
    _, report, _ = demo
    timing = report.benchmark
    assert report.verdict is Verdict.PASSED
    assert report.exit_code == 0
    assert report.gates
    assert all(gate.passed for gate in report.gates)
    assert report.metric is not None
    assert report.metric.drop == pytest.approx(report.metric.before - report.metric.after)
    assert report.metric.drop <= 0.01
    assert timing is not None
    first, last = timing.latency.values()
    (speedup,) = timing.speedup.values()
    assert speedup == pytest.approx(first.p10 / last.p10, rel=1e-6)
    assert timing.verdict == "UNSTABLE" or speedup >= 0.97
    if timing.verdict == "UNSTABLE":
        assert any("latency not proven" in note.sentence for note in report.notes)


def test_the_report_validates_against_its_own_json_schema(demo: tuple[Path, Report, str]) -> None:
    import jsonschema

    _, report, _ = demo
    data = json.loads(report.model_dump_json(by_alias=True))
    jsonschema.validate(data, Report.model_json_schema(by_alias=True, mode="serialization"))
    assert data["schema"] == "onnxcomp-report/1"


def test_the_result_says_where_it_comes_from_and_neither_when_nor_who(demo: tuple[Path, Report, str]) -> None:
    output, report, _ = demo
    found = {p.key: p.value for p in onnx.load(output).metadata_props}
    ours = {key.removeprefix("onnxcomp."): value for key, value in found.items() if key.startswith("onnxcomp.")}
    assert ours["version"] == onnxcomp.__version__
    assert ours["source_sha256"] == report.source.sha256
    assert ours["passes"] == "simplify,quantize"
    assert ours["calibration"].startswith("real:256:")
    content = output.read_bytes()
    host = socket.gethostname()
    # A name of two letters stands in any few hundred kilobytes of weights by chance.
    hosts = (host,) if len(host) > 4 else ()
    for private in (str(ROOT), str(output.parent), *hosts, f"/{getpass.getuser()}/"):
        assert private.encode() not in content


def test_verify_of_the_result_against_the_original_passes(demo: tuple[Path, Report, str]) -> None:
    words = ["verify", demo[0], "--against", MODEL, "--eval", spec("test"), "--max-drop", "0.01"]
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("PASSED")


def test_the_result_has_the_names_and_the_dynamic_batch_of_the_original(demo: tuple[Path, Report, str]) -> None:
    def signature(path: Path) -> list[tuple[str, list[Any], str]]:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return [(v.name, v.shape, v.type) for v in (*session.get_inputs(), *session.get_outputs())]

    assert signature(demo[0]) == signature(MODEL)


def test_the_python_api_reaches_the_same_from_arrays_in_memory(hasty: None) -> None:
    result = onnxcomp.optimize(MODEL, calibration=feeds(64), eval=spec("test"), goal="size")
    assert result.report.verdict is Verdict.PASSED
    assert result.report.result.bytes < MODEL.stat().st_size / 3
    assert isinstance(result.model, ir.Model)
    assert result.plan is not None


def of_path() -> object:
    return MODEL


def of_text() -> object:
    return str(MODEL)


def of_bytes() -> object:
    return MODEL.read_bytes()


def of_proto() -> object:
    return onnx.load(MODEL)


def of_ir() -> object:
    return ir.load(MODEL)


@pytest.mark.parametrize("kind", [of_path, of_text, of_bytes, of_proto, of_ir])
def test_a_model_of_any_kind_gives_the_same_bytes_and_is_not_changed(hasty: None, kind: Callable[[], Any]) -> None:
    model = kind()
    before = serialize(model) if isinstance(model, ir.Model) else None
    result = onnxcomp.quantize(model, calibration=feeds())
    expected = onnxcomp.quantize(MODEL, calibration=feeds())
    assert [t.const_value.numpy().tobytes() for t in result.model.graph.initializers.values() if t.const_value] == [
        t.const_value.numpy().tobytes() for t in expected.model.graph.initializers.values() if t.const_value
    ]
    if before is not None:
        assert serialize(model) == before
    elif isinstance(model, onnx.ModelProto):
        assert model == onnx.load(MODEL)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """As users of ONNX Runtime's quantiser have it."""

    def __init__(self) -> None:
        self.rewind()

    def get_next(self) -> Feed | None:
        return next(self.feeds, None)

    def rewind(self) -> None:
        self.feeds: Iterator[Feed] = iter(feeds())


@pytest.mark.parametrize("source", [feeds, Reader, lambda: (f for f in feeds())], ids=["list", "ort", "generator"])
def test_feeds_of_any_kind_give_the_same_bytes(hasty: None, source: Callable[[], Any]) -> None:
    expected = onnxcomp.quantize(MODEL, calibration=feeds())
    assert serialize(onnxcomp.quantize(MODEL, calibration=source()).model) == serialize(expected.model)


def test_a_plan_replayed_on_the_same_feeds_gives_the_same_bytes(hasty: None) -> None:
    first = onnxcomp.quantize(MODEL, calibration=feeds())
    again = onnxcomp.quantize(MODEL, calibration=feeds(), plan=first.plan)
    assert serialize(again.model) == serialize(first.model)


def test_mistakes_in_the_api_are_exceptions_that_carry_the_exit_code(hasty: None, tmp_path: Path) -> None:
    with pytest.raises(DataError) as data:
        onnxcomp.quantize(MODEL, calibration=images("calibration", 8))
    assert data.value.exit_code == 4
    with pytest.raises(DataError):
        onnxcomp.quantize(MODEL, calibration=[(1, 2, 3)])
    with pytest.raises(UsageError, match="min_cosin") as usage:
        onnxcomp.optimize(MODEL, min_cosin=0.9)
    assert usage.value.exit_code == 2
    assert "min_cosine" in (usage.value.hint or "")
    with pytest.raises(GateError) as gate:
        onnxcomp.quantize(MODEL, calibration=feeds(), min_cosine=1.0)
    assert gate.value.exit_code == 1


def test_save_writes_what_the_report_says_and_refuses_the_input(hasty: None, tmp_path: Path) -> None:
    result = onnxcomp.simplify(MODEL)
    saved = result.save(tmp_path / "small.onnx")
    assert saved.sha256 == result.report.result.sha256
    assert saved.bytes == result.report.result.bytes == (tmp_path / "small.onnx").stat().st_size
    with pytest.raises(WriteError):
        result.save(MODEL, overwrite=True)


def test_the_library_prints_nothing_and_reports_progress(hasty: None, capfd: pytest.CaptureFixture[str]) -> None:
    stages: list[str] = []
    onnxcomp.quantize(MODEL, calibration=feeds(), progress=lambda stage, done, total: stages.append(stage))
    assert {"calibrating", "comparing outputs", "measuring latency"} <= set(stages)
    assert capfd.readouterr() == ("", "")
