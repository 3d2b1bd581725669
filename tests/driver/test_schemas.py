"""The shipped JSON Schemas are those of the structures, and what is written validates against them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from graphs import graph

import onnxcomp as api
from onnxcomp.cli import names
from onnxcomp.driver import schemas
from onnxcomp.errors import OnnxcompError
from onnxcomp.model.save import save_model
from onnxcomp.recipe import shipped
from onnxcomp.runtime import benchmark

CNN = """g (float[N,3,16,16] image, float[16,3,3,3] w1, float[32,16,3,3] w2, float[32,256] w3, float[256,32] w4)
    => (float[N,32] logits) {
    a = Conv <pads = [1,1,1,1]> (image, w1) b = Relu (a) c = Conv <pads = [1,1,1,1]> (b, w2) d = Relu (c)
    e = GlobalAveragePool (d) f = Flatten (e) h = Gemm (f, w3) i = Relu (h) logits = MatMul (i, w4)
}"""


def validator(subject: str) -> jsonschema.Draft202012Validator:
    schema = json.loads(names.schema_text(subject))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schemas") / "model.onnx"
    save_model(graph(CNN), path)
    return path


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"image": rng.standard_normal((1, 3, 16, 16), dtype=np.float32)} for _ in range(16)]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = benchmark.measure_stable

    def short(*args: Any, **options: Any) -> Any:
        return measure(*args, **{**options, "attempts": 1, "min_seconds": 0.01, "max_seconds": 0.2})

    monkeypatch.setattr(benchmark, "measure_stable", short)


def test_the_files_are_the_schemas_of_the_structures() -> None:
    assert set(names.schemas()) == set(schemas.SUBJECTS)
    for subject in schemas.SUBJECTS:
        assert names.schema_text(subject) == schemas.text(subject), "python -m onnxcomp.driver.schemas writes them anew"


@pytest.mark.parametrize("name", names.recipes())
def test_shipped_recipes_validate(name: str) -> None:
    validator("recipe").validate(tomllib.loads(shipped()[name]))


@pytest.mark.parametrize(
    "text",
    [
        '[[step]]\npass = "quantise"',
        '[[step]]\npass = "quantize"\nrange = "mse"',
        "step = 3",
    ],
)
def test_what_a_recipe_must_not_say_does_not_validate(text: str) -> None:
    assert not validator("recipe").is_valid(tomllib.loads(text))


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("simplify", {}),
        ("prune", {"ratio": 0.4, "round_to": 1}),
        ("factorize", {"params": 0.8}),
        ("quantize", {}),
        ("quantize", {"mode": "dynamic"}),
        ("quantize", {"mode": "weight-only"}),
        ("quantize", {"mode": "fp16"}),
    ],
)
def test_plans_and_reports_of_every_pass_validate(model: Path, feeds: Any, verb: str, options: dict[str, Any]) -> None:
    result = getattr(api, verb)(model, feeds, **options, dry_run=True)
    plan = json.loads(result.plan.model_dump_json(indent=1))
    validator("plan").validate(plan)
    validator("report").validate(json.loads(result.report.model_dump_json(by_alias=True)))
    assert not validator("plan").is_valid({**plan, "surprise": 1})


def test_reports_of_whole_jobs_validate(model: Path, feeds: Any) -> None:
    for report in (
        api.optimize(model, feeds).report,
        api.prune(model, feeds, ratio=0.4, round_to=1).report,
        api.verify(model, model, feeds),
    ):
        written = json.loads(report.model_dump_json(by_alias=True))
        validator("report").validate(written)
        assert not validator("report").is_valid({**written, "verdict": "MAYBE"})


def test_a_comparison_and_a_sensitivity_file_validate(model: Path, feeds: Any, tmp_path: Path) -> None:
    found = api.compare(model, model, feeds, min_seconds=0.1)
    validator("comparison").validate(json.loads(found.model_dump_json(by_alias=True)))
    path = tmp_path / "units.json"
    try:
        api.quantize(model, feeds, sensitivity=path)
    except OnnxcompError as error:
        pytest.fail(str(error))
    validator("sensitivity").validate(json.loads(path.read_text()))
