"""Recipes: what is read, and what an error says."""

from __future__ import annotations

import pytest

from onnxcomp.errors import RecipeError
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.recipe import load_recipe, parse_recipe


def test_the_shipped_recipe_simplifies_and_then_quantises():
    assert [s.kind for s in load_recipe(None).step] == ["simplify", "quantize"]


def test_a_recipe_sets_configs_and_gates():
    recipe = parse_recipe('[[step]]\npass = "quantize"\nranges = "percentile"\n[gates]\nmin_cosine = 0.999', "r")
    assert recipe.step == (QuantizeConfig(ranges="percentile"),)
    assert recipe.gates.min_cosine == 0.999


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('[[step]]\npass = "quantize"\nrangess = "mse"', r"step\[0\].rangess", "'ranges'"),
        ('[[step]]\npass = "quantize"\nranges = "best"', r"step\[0\].ranges", None),
        ('[[step]]\npass = "sparsify"', "step", None),
        ('[[step]]\npass = "simplify"\n[gates]\nmin_cosin = 0.9', "gates.min_cosin", "'min_cosine'"),
        ("[[step", "not TOML", None),
        ('steps = 3\n[[step]]\npass = "simplify"', "steps", "'step'"),
    ],
)
def test_a_wrong_recipe_names_the_path_and_the_nearest_key(text, message, hint):
    with pytest.raises(RecipeError, match=message) as raised:
        parse_recipe(text, "r")
    assert raised.value.exit_code == 2
    if hint is not None:
        assert hint in (raised.value.hint or "")


def test_a_missing_recipe_is_an_error_of_usage(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.toml"):
        load_recipe(tmp_path / "none.toml")


def test_a_step_without_a_pass_and_a_recipe_of_another_version_are_refused():
    with pytest.raises(RecipeError, match="names no pass") as raised:
        parse_recipe('[[step]]\npas = "quantize"', "r")
    assert "'pas'" in (raised.value.hint or "")
    with pytest.raises(RecipeError, match="schema"):
        parse_recipe('schema = "onnxcomp-recipe/2"\n[[step]]\npass = "quantize"', "r")
