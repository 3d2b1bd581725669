"""Mixed precision: units, their measurements, the cheapest ones in float, and the file that people edit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from graphs import cosine, graph, run
from hypothesis import given, settings
from hypothesis import strategies as st
from quantize_cases import TWO, quantized

from onnxcomp.errors import PlanError
from onnxcomp.passes.base import Evidence
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.mixed import MARGIN, mixed
from onnxcomp.passes.quantize.plan import NodeDecision, QuantPlan, Unit
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.passes.quantize.sensitivity_file import decided, read_units, write_units
from onnxcomp.passes.quantize.units import MAX_UNITS, groups, measure
from onnxcomp.report.reasons import Reason


def a_plan(*op_types: str) -> QuantPlan:
    nodes = {f"n{i}": NodeDecision(precision="int8", op_type=op, macs=100) for i, op in enumerate(op_types)}
    return QuantPlan(
        pass_name="quantize", version="0", source_sha256="0" * 64, target="cpu-vnni", nodes=nodes, tensors={}
    )


def additive(errors: dict[str, float], slowdowns: dict[str, float] | None = None) -> Evidence[QuantPlan]:
    """Evidence of a model whose errors are those of its INT8 nodes, summed, and whose float nodes cost time each."""

    def error_of(plan: QuantPlan) -> float:
        return sum(errors.get(name, 0.0) for name in plan.quantized())

    def latencies_of(plans):
        assert slowdowns is not None
        return [1 + sum(slowdowns[n] for n in plan.nodes if n not in plan.quantized()) for plan in plans]

    return Evidence(
        "fidelity",
        error=sum(errors.values()),
        allowed=0.0,
        error_of=error_of,
        latencies_of=None if slowdowns is None else latencies_of,
    )


def held_to(evidence: Evidence[QuantPlan], allowed: float) -> Evidence[QuantPlan]:
    return Evidence(
        "fidelity",
        error=evidence.error,
        allowed=allowed,
        error_of=evidence.error_of,
        latencies_of=evidence.latencies_of,
    )


def test_a_unit_is_a_weighted_node_with_what_follows_it():
    plan = a_plan("Add", "Conv", "HardSigmoid", "Mul", "Conv", "MatMul", "Add")
    assert groups(plan) == [("n0", "n1", "n2", "n3"), ("n4",), ("n5", "n6")]


def test_many_units_are_measured_with_their_neighbours():
    plan = a_plan(*["Conv"] * (MAX_UNITS * 2 + 1))
    found = groups(plan)
    assert len(found) <= MAX_UNITS
    assert [n for group in found for n in group] == list(plan.nodes)


def test_the_error_is_that_of_the_unit_alone_and_the_latency_that_of_everything_without_it():
    evidence = additive({"n0": 0.25, "n1": 0.5}, {"n0": 0.125, "n1": 0.0})
    assert measure(a_plan("Conv", "Gemm"), evidence) == (
        Unit(nodes=("n0",), error=0.25, slowdown=1.125),
        Unit(nodes=("n1",), error=0.5, slowdown=1.0),
    )


def test_a_measurement_that_was_interrupted_goes_on_where_it_was():
    plan, calls, kept = a_plan(*["Conv"] * 20), [], []

    def error_of(other: QuantPlan) -> float:
        calls.append(other)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return float(len(other.quantized()))

    evidence = Evidence("fidelity", error_of=error_of)
    with pytest.raises(KeyboardInterrupt):
        measure(plan, evidence, keep=kept.append)
    assert len(kept[-1]) == 8
    measure(plan, evidence, kept[-1])
    assert len(calls) == 12 + 12


@given(st.lists(st.tuples(st.floats(1e-4, 1.0), st.floats(1e-3, 1.0)), min_size=2, max_size=7), st.floats(0.05, 0.95))
@settings(max_examples=60, deadline=None)
def test_the_units_in_float_are_the_cheapest_with_which_the_error_is_as_allowed(units, share):
    errors = {f"n{i}": error for i, (error, _) in enumerate(units)}
    costs = {f"n{i}": cost for i, (_, cost) in enumerate(units)}
    plan, evidence = a_plan(*["Conv"] * len(units)), additive(errors, costs)
    allowed = share * evidence.error
    found = mixed(plan, held_to(evidence, allowed))

    def cost(chosen) -> float:
        return sum(costs[n] for n in chosen)

    subsets = [[f"n{i}" for i in range(len(units)) if mask >> i & 1] for mask in range(2 ** len(units) - 1)]
    fits = [s for s in subsets if sum(errors[n] for n in errors if n not in s) <= MARGIN * allowed]
    if found is None:
        return
    chosen = [n for n in plan.nodes if n not in found.quantized()]
    if not fits:
        assert sum(errors[n] for n in found.quantized()) > 0  # as far as it goes: the driver judges it
        return
    assert sum(errors[n] for n in found.quantized()) <= MARGIN * allowed * (1 + 1e-9)
    # The bisection ends with a budget that is within 2⁻⁵ of the right one, and rounding of the knapsack's grid.
    tighter = [s for s in subsets if sum(errors[n] for n in errors if n not in s) <= 0.9 * MARGIN * allowed]
    if tighter:
        assert cost(chosen) <= min(map(cost, tighter)) + 1e-9


def test_without_latencies_the_multiply_accumulates_are_the_cost():
    plan = a_plan("Conv", "Conv", "Conv")
    nodes = {
        n: d.model_copy(update={"macs": macs}) for (n, d), macs in zip(plan.nodes.items(), (900, 50, 50), strict=True)
    }
    plan = plan.model_copy(update={"nodes": nodes})
    found = mixed(plan, held_to(additive({"n0": 1.0, "n1": 1.0, "n2": 0.1}), 1.3))
    assert found is not None
    assert found.quantized() == {"n0", "n2"}


def test_a_unit_that_was_set_to_int8_by_hand_stays_whatever_it_loses():
    plan = a_plan("Conv", "Conv", "Conv")
    errors = {"n0": 1.0, "n1": 0.1, "n2": 0.3}
    units = tuple(Unit(nodes=(n,), error=e, precision="int8" if n == "n0" else "auto") for n, e in errors.items())
    found = mixed(plan.model_copy(update={"units": units}), held_to(additive(errors), 1.3))
    assert found is not None
    assert found.quantized() == {"n0", "n1"}


def test_relaxing_for_fidelity_leaves_the_node_in_float_that_onnx_runtime_shows_to_be_the_worst():
    found = quantized(graph(TWO))
    step = Quantize()

    def error_of(plan: QuantPlan) -> float:
        return {frozenset({"Conv_a"}): 0.001, frozenset({"Conv_y"}): 0.5}.get(plan.changes(), 0.501)

    plan = found.plan.model_copy(update={"alternatives": {}})
    relaxed = step.relax(plan, Evidence("fidelity", error=0.5, allowed=0.01, error_of=error_of))
    assert relaxed is not None
    assert relaxed.changes() == {"Conv_a"}
    assert {u.nodes: u.error for u in relaxed.units} == {("Conv_a",): 0.001, ("Conv_y",): 0.5}
    assert next(s for s in relaxed.left_alone() if s.node == "Conv_y").code is Reason.RELAXED
    before, after = (
        run(found.before, found.items[0])[0],
        run(step.apply(found.before, relaxed, found.ctx), found.items[0])[0],
    )
    assert cosine(before, after) > 0.99
    assert not np.array_equal(before, after)


def test_a_sensitivity_file_is_made_read_and_obeyed(tmp_path):
    path = tmp_path / "units.json"
    found = quantized(graph(TWO))
    step = Quantize(QuantizeConfig(sensitivity=str(path)))
    plan = step.plan(found.before, found.ctx)
    assert plan.quantized() == {"Conv_a", "Conv_y"}
    written = json.loads(path.read_text())
    assert written["schema"] == "onnxcomp-sensitivity/1"
    assert [u["nodes"] for u in written["units"]] == [["Conv_a"], ["Conv_y"]]
    assert all(u["error"] > 0 for u in written["units"])
    written["units"][0]["precision"] = "float"
    written["units"][1]["error"] = 123.0  # what is in the file is not measured again
    path.write_text(json.dumps(written))
    plan = step.plan(found.before, found.ctx)
    assert plan.quantized() == {"Conv_y"}
    assert plan.units[1].error == 123.0
    skip = next(s for s in plan.left_alone() if s.node == "Conv_a")
    assert (skip.code, "sensitivity file" in skip.sentence) == (Reason.EXCLUDED, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "sensitivity file"),
        ('{"schema": "x"}', "source_sha256"),
        ('{"source_sha256": "1", "target": "cpu-vnni", "units": []}', "another model"),
        (f'{{"source_sha256": "{"0" * 64}", "target": "arm64"}}', "another target, arm64"),
        (f'{{"source_sha256": "{"0" * 64}", "target": "cpu-vnni", "unit": []}}', "unit"),
    ],
)
def test_a_file_that_is_none_or_of_another_model_is_refused_by_name(tmp_path, text, told):
    path = tmp_path / "units.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"units\.json") as error:
        read_units(path, a_plan("Conv"))
    assert told in error.value.message


def test_what_was_written_is_what_is_read(tmp_path):
    plan, units = a_plan("Conv", "Gemm"), (Unit(nodes=("n0",), error=0.1, slowdown=1.5, precision="float"),)
    assert read_units(tmp_path / "units.json", plan) == ()
    write_units(tmp_path / "units.json", plan, units)
    assert read_units(tmp_path / "units.json", plan) == units
    assert decided(plan, units).quantized() == {"n1"}


def test_a_table_of_an_embedding_is_a_unit_that_can_be_given_back():
    plan = a_plan("MatMul", "Gemm").model_copy(update={"tables": ("words",)})
    assert groups(plan) == [("n0",), ("n1",), ("words",)]

    def error_of(other: QuantPlan) -> float:
        return 0.1 * len(other.quantized()) + 0.5 * len(other.tables)

    found = mixed(plan, Evidence("fidelity", error=0.7, allowed=0.3, error_of=error_of))
    assert found is not None
    assert (found.tables, found.quantized()) == ((), {"n0", "n1"})
    assert next(s for s in found.left_alone() if s.node == "words").code is Reason.RELAXED
