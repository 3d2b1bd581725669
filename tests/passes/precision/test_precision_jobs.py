"""16-bit floats as a step of a recipe."""

from __future__ import annotations

import numpy as np
from graphs import cosine, feeds, graph, run

from onnxcomp import optimize
from onnxcomp.driver.options import Options
from onnxcomp.driver.registry import PASSES
from onnxcomp.driver.single import run_single
from onnxcomp.passes.precision.precision import Precision, PrecisionConfig
from onnxcomp.recipe import parse_recipe

TEXT = (
    "g (float[N,8] x, float[8,64] w1, float[64,64] w2, float[64,4] w3) => (float[N,4] y) "
    "{ a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) d = Relu(c) y = MatMul(d, w3) }"
)


def test_a_recipe_names_the_pass_and_its_options():
    recipe = parse_recipe('[[step]]\npass = "precision"\ndtype = "fp16"\nsafety = 0.25', "example")
    assert recipe.step == (PrecisionConfig(safety=0.25),)
    assert PASSES[PrecisionConfig] is Precision


def test_the_step_halves_a_model_behind_its_gates(tmp_path):
    model = graph(TEXT)
    path = tmp_path / "half.toml"
    path.write_text('[[step]]\npass = "precision"\n')
    result = optimize(model, feeds(model, 10), recipe=path, goal="size", threads=1, min_cosine=0.999)
    assert result.report.verdict.value == "PASSED", result.report.steps
    assert result.report.result.weight_bytes == result.report.source.weight_bytes / 2


def test_alone_it_does_what_it_was_asked_and_warns_that_a_cpu_gains_no_speed():
    model = graph(TEXT)
    items = feeds(model, 10)
    result = run_single(Precision(), model, Options(calibration=items, threads=1))
    assert result.report.steps[0].changed == 5
    assert any("rarely faster" in note.sentence for note in result.report.notes)
    (before,), (after,) = run(model, items[0]), run(result.model, items[0])
    assert cosine(before, after) > 0.999
    assert not np.array_equal(before, after)
