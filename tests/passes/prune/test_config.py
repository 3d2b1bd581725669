"""The numbers a user may give, and what is said of those that make no sense."""

from __future__ import annotations

import pytest
from graphs import graph
from pydantic import ValidationError

from onnxcomp.driver.jobs import prune
from onnxcomp.errors import UsageError
from onnxcomp.passes.prune.config import PruneConfig, parse_latency

NET = """g (float[1,4] x, float[8,4] w1, float[3,8] w2) => (float[1,3] y) {
    a = Gemm<transB = 1>(x, w1)
    y = Gemm<transB = 1>(a, w2)
}"""


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"ratio": 1.0}, "--ratio"),
        ({"ratio": -0.1}, "--ratio"),
        ({"ratio": float("nan")}, "--ratio"),
        ({"macs": 0.0}, "--macs"),
        ({"macs": 1.5}, "--macs"),
        ({"macs": float("nan")}, "--macs"),
        ({"params": -1.0}, "--params"),
        ({"params": "half"}, "--params"),
        ({"latency": "fast"}, "--latency"),
        ({"latency": "0ms"}, "--latency"),
        ({"latency": "nan"}, "--latency"),
        ({"latency": "nanms"}, "--latency"),
        ({"latency": "infms"}, "--latency"),
        ({"latency": 1.2}, "--latency"),
        ({"latency": -3}, "--latency"),
        ({"ratio": 0.5, "round_to": 0}, "--round-to"),
        ({"ratio": 0.5, "round_to": "wide"}, "--round-to"),
        ({"ratio": 0.5, "max_ratio": 1.0}, "--max-ratio"),
        ({"ratio": 0.5, "max_ratio": float("nan")}, "--max-ratio"),
        ({"ratio": 0.5, "scope": "local"}, "--scope"),
        ({"ratio": 0.5, "importance": "taylor"}, "--importance"),
        ({"ratio": 0.5, "refit": "adam"}, "--refit"),
        ({"ratios": {"Gemm*": 1.0}}, "ratios.Gemm"),
        ({"ratios": {"Gemm*": float("nan")}}, "ratios.Gemm"),
        ({"ratio": 0.5, "macs": 0.5}, "ratio and macs"),
        ({"params": 0.5, "latency": "3ms"}, "params and latency"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_the_name_of_its_option(values, named):
    with pytest.raises(UsageError, match=named):
        prune(graph(NET), **values)


def test_an_unknown_option_suggests_the_nearest():
    with pytest.raises(UsageError, match="raito"):
        prune(graph(NET), raito=0.5)


@pytest.mark.parametrize(
    ("values", "kind", "limit"),
    [
        ({"ratio": 0.3}, "ratio", 0.3),
        ({"macs": 0.4}, "macs", 0.4),
        ({"params": 1.0}, "params", 1.0),
        ({"latency": "8 ms"}, "latency", 8.0),
        ({"latency": 0.5}, "latency", 0.5),
        ({}, "ratio", 0.5),
        ({"ratios": {"a": 0.2}}, "ratio", 0.0),
        ({"ratios": {"a": 0.2}, "ratio": 0.1}, "ratio", 0.1),
    ],
)
def test_the_budget_is_the_one_that_was_given(values, kind, limit):
    budget = PruneConfig(**values).budget()
    assert (budget.kind, budget.limit) == (kind, limit)


def test_milliseconds_are_absolute_and_shares_are_not():
    assert parse_latency("8ms") == (8.0, True)
    assert parse_latency("12.5 MS") == (12.5, True)
    assert parse_latency("1") == (1.0, False)
    with pytest.raises(ValueError, match="neither a share"):
        parse_latency("8")


def test_data_decides_the_defaults_of_importance_and_refit():
    config = PruneConfig(ratio=0.5)
    assert (config.ranking(True), config.refitting(True)) == ("obs", "least-squares")
    assert (config.ranking(False), config.refitting(False)) == ("l1", "none")
    assert not config.needs_data()
    assert PruneConfig(importance="wanda").needs_data()
    assert PruneConfig(refit="least-squares").needs_data()


@pytest.mark.parametrize("wanted", [{"importance": "wanda"}, {"importance": "obs"}, {"refit": "least-squares"}])
def test_what_needs_data_is_refused_without_it_and_only_what_was_asked_for_is_named(wanted):
    with pytest.raises(UsageError, match="calibration data") as caught:
        prune(graph(NET), ratio=0.5, **wanted)
    assert next(iter(wanted.values())) in caught.value.message
    assert "auto" not in caught.value.message


def test_a_recipe_that_spells_an_option_wrong_is_told_where():
    with pytest.raises(ValidationError, match="rounding"):
        PruneConfig.model_validate({"pass": "prune", "rounding": 4})
