"""`onnxcomp recipe`, and shipped recipes by their names."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from commands import Command

from onnxcomp.cli import names
from onnxcomp.recipe import load_recipe, parse_recipe, shipped

EMBEDDED = Path(__file__).parents[2] / "calibration" / "fashion_mnist"


def spec(name: str, count: int) -> str:
    return f"npz:{EMBEDDED / name}?map=x:image&layout=nhwc&scale=255&n={count}"


def test_show_without_a_name_lists_all_with_what_they_are_for(onnxcomp: Command) -> None:
    result = onnxcomp("recipe", "show")
    assert result.code == 0
    words = [line.split()[0] for line in result.out.splitlines() if not line.startswith(" ")]
    assert words == list(shipped())
    assert words[0] == "default"
    assert set(words) == set(names.recipes())
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize("name", names.recipes())
def test_show_prints_toml_that_is_the_recipe(onnxcomp: Command, name: str) -> None:
    result = onnxcomp("recipe", "show", name)
    assert result.code == 0
    assert parse_recipe(result.out, name) == load_recipe(name)
    assert result.out.startswith("# ")


def test_a_name_that_is_not_there_suggests_the_nearest(onnxcomp: Command, model: Path) -> None:
    for words in (["recipe", "show", "smalest"], ["optimize", model, "--recipe", "smalest"]):
        result = onnxcomp(*words)
        assert result.code == 2
        assert "did you mean 'smallest'?" in result.err
    assert "did you mean" not in onnxcomp("recipe", "show", "xyz").err
    assert "static-int8" in onnxcomp("recipe", "show", "xyz").err
    assert "Did you mean 'show'" in onnxcomp("recipe", "shwo").err
    assert "Did you mean 'report'" in onnxcomp("recipe", "schema", "reprot").err


def test_a_file_with_the_name_of_a_shipped_recipe_is_meant_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smallest").write_text('[[step]]\npass = "dynamic"\n')
    assert load_recipe("smallest").step[0].kind == "simplify"
    assert load_recipe("./smallest").step[0].kind == "dynamic"


@pytest.mark.parametrize("name", names.recipes())
def test_every_shipped_recipe_runs_on_the_embedded_model(onnxcomp: Command, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out.onnx"
    words = ["optimize", EMBEDDED / "fashion_cnn.onnx", "-o", out, "--recipe", name, "--goal", "size"]
    words += ["--calibration", spec("calibration.npz", 48), "--eval", spec("test.npz", 64), "--max-drop", "0.05"]
    result = onnxcomp(*words, "--format", "json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    assert report["verdict"] == "PASSED", report["sentence"]
    assert out.stat().st_size < 0.5 * (EMBEDDED / "fashion_cnn.onnx").stat().st_size
    wanted = [step["pass"] for step in tomllib.loads(shipped()[name])["step"]]
    ran = [step["name"] for step in report["steps"]]
    # "auto" tries several ways to quantise, and says so of each.
    assert ran[: len(wanted) - 1] == wanted[:-1]
    assert any(step["status"] == "kept" for step in report["steps"] if step["name"] == "quantize")
    assert name != "prune-int8" or report["steps"][0]["status"] == "kept"


@pytest.mark.parametrize("subject", names.schemas())
def test_schema_prints_json_schema(onnxcomp: Command, subject: str) -> None:
    result = onnxcomp("recipe", "schema", subject)
    assert result.code == 0
    assert json.loads(result.out)["$schema"].startswith("https://json-schema.org/")
    assert json.loads(result.out)["title"] == f"onnxcomp {subject}"


def test_schema_alone_is_that_of_a_recipe(onnxcomp: Command) -> None:
    assert onnxcomp("recipe", "schema").out == onnxcomp("recipe", "schema", "recipe").out
