"""`onnxcomp compare` as a user meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from commands import Command
from graphs import graph

import onnxcomp as api
from onnxcomp.errors import ModelError, UsageError
from onnxcomp.model.save import save_model


def test_a_model_beside_its_quantised_self(onnxcomp: Command, model: Path, data: Path) -> None:
    small = model.with_name("small.onnx")
    assert onnxcomp("quantize", model, "--calibration", data, "-o", small).code == 0
    before = sorted(model.parent.iterdir())
    result = onnxcomp("compare", model, small, "--eval", data, "--min-seconds", "0.1")
    assert result.code == 0, result.err
    for words in ("parameters", "opset", "QLinearConv", "all kernels", "cosine", "‖a−b‖²/‖a‖²", "32 real feeds"):
        assert words in result.out, words
    assert max(map(len, result.out.splitlines())) <= 80
    assert result.err.splitlines()[-1].startswith("COMPARED  small.onnx beside model.onnx: ")
    assert "RANDOM" not in result.out + result.err
    assert sorted(model.parent.iterdir()) == before


def test_json_is_the_record_and_has_the_same_figures_as_python(
    onnxcomp: Command, model: Path, other: Path, data: Path
) -> None:
    from onnxcomp.report.comparison import ModelComparison

    result = onnxcomp("compare", model, other, "--calibration", data, "--format", "json", "--min-seconds", "0.1")
    found = ModelComparison.model_validate_json(result.out)
    same = api.compare(model, other, data.as_posix(), min_seconds=0.1)
    assert found.fidelity == same.fidelity
    assert found.layers == same.layers
    assert found.operators == same.operators
    assert {x.name for x in found.layers.layers} == {"a", "b", "c", "d", "e", "logits"}  # type: ignore[union-attr]
    assert all(x.error > 0.1 for x in found.layers.layers)  # type: ignore[union-attr]
    assert found.profile.total_ms[0] > 0


def test_random_feeds_are_said_aloud_everywhere(onnxcomp: Command, model: Path, other: Path, tmp_path: Path) -> None:
    report = tmp_path / "r.md"
    result = onnxcomp("compare", model, other, "--min-seconds", "0.1", "--report", report)
    assert result.code == 0, result.err
    assert "RANDOM" in result.out + result.err
    assert "RANDOM" in report.read_text()
    found = onnxcomp("compare", model, other, "--min-seconds", "0.1", "--format", "json")
    assert any(n["level"] == "warning" and "RANDOM" in n["sentence"] for n in json.loads(found.out)["notes"])
    assert "RANDOM" in found.err


def test_labels_give_the_metric_of_both(onnxcomp: Command, model: Path, other: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "l.npz", image=rng.standard_normal((8, 3, 16, 16), np.float32), y=rng.integers(0, 10, 8, np.int64)
    )
    result = onnxcomp("compare", model, other, "--eval", tmp_path / "l.npz", "--min-seconds", "0.1")
    assert re.search(r"top1 +0\.\d{4} +0\.\d{4}", result.out), result.out + result.err


def test_models_with_other_inputs_are_refused_as_by_verify(onnxcomp: Command, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "relu.onnx"
    save_model(graph("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"), other)
    for words in (["compare", model, other], ["verify", other, "--against", model]):
        result = onnxcomp(*words)
        assert result.code == 4, result.err
        assert "can't be compared with model.onnx: the inputs are x: float32, not image: float32" in result.err
    with pytest.raises(ModelError, match="can't be compared"):
        api.compare(model, other)


def test_feeds_under_both_names_are_wrong_usage(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("compare", model, model, "--eval", data, "--calibration", data)
    assert result.code == 2
    assert "give one of them" in result.err
    with pytest.raises(UsageError, match="unknown option 'evl'"):
        api.compare(model, model, evl=data)


def test_a_model_beside_itself_is_the_same_under_two_names(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("compare", model, model, "--eval", data, "--format", "json", "--min-seconds", "0.1")
    found = json.loads(result.out)
    assert found["names"] == ["model.onnx", "model.onnx'"]
    assert {x["error"] for x in found["layers"]["layers"]} == {0.0}
    assert found["fidelity"][0]["sqnr_db"] == "Infinity"
    table = onnxcomp("compare", model, model, "--eval", data, "--min-seconds", "0.1").out
    assert "they are equal" in " ".join(table.split())
    assert "‖a−b‖" not in table


def test_values_that_can_not_be_fetched_cost_the_layers_only(
    onnxcomp: Command, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxcomp.driver import inside

    def fails(*args: object) -> object:
        raise ModelError("no kernel for it")

    monkeypatch.setattr(inside, "compare_layers", fails)
    result = onnxcomp("compare", model, model, "--eval", data, "--min-seconds", "0.1")
    assert result.code == 0, result.err
    assert "values inside were not compared: no kernel for it" in " ".join(result.out.split())


def test_names_from_a_model_are_harmless_in_every_format(onnxcomp: Command, tmp_path: Path) -> None:
    hostile = "\x1b[2J|<b>[x](y)\x9b"
    model = graph("g (float[N,3] x) => (float[N,3] y) { a = Neg(x) y = Relu(a) }")
    for node in model.graph:
        node.name = hostile + node.op_type
    model.graph.outputs[0].name = hostile
    path = tmp_path / "m.onnx"
    save_model(model, path)
    for format_ in ("table", "json", "markdown"):
        result = onnxcomp("compare", path, path, "--format", format_, "-v", "--min-seconds", "0.1")
        assert result.code == 0, result.err
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", result.out), format_
        assert format_ != "markdown" or "<b>" not in result.out


def test_a_file_name_that_is_not_utf_8_is_shown_with_a_question_mark(onnxcomp: Command, model: Path) -> None:
    odd = model.with_name("m\udcff.onnx")
    try:
        odd.write_bytes(model.read_bytes())
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes UTF-8 names only")
    for format_ in ("json", "markdown", "table"):
        result = onnxcomp("compare", model, odd, "--format", format_, "--min-seconds", "0.1")
        assert result.code == 0, result.err
        assert "m?.onnx" in result.out


@pytest.mark.parametrize("suffix", [".txt", ".jsn", ""])
def test_a_report_of_unknown_suffix_is_refused_before_any_work(onnxcomp: Command, model: Path, suffix: str) -> None:
    result = onnxcomp("compare", model, "none.onnx", "--report", f"r{suffix}")
    assert result.code == 2
    assert ".json, .md" in result.err
    assert suffix != ".jsn" or "did you mean .json?" in result.err
