"""The plan as data: written, read, edited, explained, refused, replayed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from graphs import context, feeds, graph, reader, run
from haste import hasten

from onnxcomp.driver.jobs import prune
from onnxcomp.driver.plans import check_origin, load_plan
from onnxcomp.errors import PlanError
from onnxcomp.model.cost import cost
from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import save_model
from onnxcomp.passes.base import Evidence
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.plan import PrunePlan
from onnxcomp.passes.prune.prune import Prune

NET = """g (float[N,3,8,8] x, float[12,3,3,3] w1, float[12] wb1, float[16,12,3,3] w2, float[12,16,1,1] w3,
    float[6,12,1,1] w4) => (float[N,6,8,8] y) {
    [stem] a = Conv<pads = [1,1,1,1]>(x, w1, wb1)
    b = Relu(a)
    [inner] c = Conv<pads = [1,1,1,1]>(b, w2)
    d = Relu(c)
    [outer] e = Conv(d, w3)
    [skip] s = Add(e, b)
    [head] y = Conv(s, w4)
}"""
UNKNOWN = """g (float[N,3,8,8] x, float[12,3,3,3] w1, float[12,12,3,3] w2, float[6,12,1,1] w4) => (float[N,6,8,8] y) {
    [stem] a = Conv<pads = [1,1,1,1]>(x, w1)
    [odd] b = LRN<size = 3>(a)
    [inner] c = Conv<pads = [1,1,1,1]>(b, w2)
    [folded] d = CumSum(c, axis)
    [head] y = Conv(d, w4)
}"""


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def net():
    return normalize(graph(NET)).model


@pytest.fixture(scope="module")
def items(net):
    return feeds(net, 24, batch=2)


def planned(model, items, **values):
    ctx = context(items)
    step = Prune(PruneConfig(**{"ratio": 0.5, "scope": "uniform", "round_to": 1, **values}))
    return step, step.plan(model, ctx), ctx


@pytest.fixture
def saved(tmp_path, net, items):
    """A model, its plan as a file, and the plan as JSON."""
    _, plan, _ = planned(net, items, importance="l1", refit="none")
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json(indent=1))
    return net, path, json.loads(path.read_text())


def test_a_plan_survives_json(net, items):
    _, plan, _ = planned(net, items)
    assert PrunePlan.model_validate_json(plan.model_dump_json()) == plan
    assert {c.name for c in plan.cells} == {"stem", "inner"}
    assert plan.changes() == {"stem", "inner", "outer", "head"}
    assert (plan.importance, plan.refit) == ("obs", "least-squares")


def test_explain_names_the_addition_that_couples_two_layers(net, items):
    _, plan, _ = planned(net, items)
    told = " ".join(plan.explain("stem"))
    assert "6 of 12 stay" in told
    assert "outer" in told
    assert "coupled by skip" in told
    assert any(s.startswith("inputs: ") for s in plan.explain("outer"))


def test_explain_says_that_a_graph_output_holds_the_last_layer(net, items):
    _, plan, _ = planned(net, items)
    assert any(s.startswith("outputs: ") and "output" in s and "can't be cut" in s for s in plan.explain("head"))


def test_explain_names_the_operator_that_has_no_rule(items):
    model = normalize(graph(_with_axis(UNKNOWN), w_axis=np.array(1, np.int64))).model
    _, plan, _ = planned(model, items, importance="l1", refit="none")
    told = " ".join(plan.explain("inner"))
    assert "CumSum" in told
    assert "folded" in told
    assert {s.node for s in plan.skips} >= {"inner", "head"}


def _with_axis(text):
    return text.replace("float[6,12,1,1] w4)", "float[6,12,1,1] w4, int64 w_axis)").replace("(c, axis)", "(c, w_axis)")


def test_explain_of_a_node_that_is_not_there_is_a_key_error(net, items):
    _, plan, _ = planned(net, items)
    with pytest.raises(KeyError, match="no_such"):
        plan.explain("no_such")


def test_an_edited_plan_is_obeyed(saved):
    net, path, data = saved
    data["cells"][0]["keep"] = [0, 3, 11]
    data["cells"][1]["keep"] = list(range(16))
    path.write_text(json.dumps(data))
    result = prune(net, plan=path)
    weights = result.model.graph.initializers
    original = net.graph.initializers["w1"].const_value.numpy()
    np.testing.assert_array_equal(weights["w1"].const_value.numpy(), original[[0, 3, 11]])
    assert tuple(weights["w2"].shape) == (16, 3, 3, 3)
    assert tuple(weights["w4"].shape) == (6, 3, 1, 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"keep": []}, "keeps nothing"),
        ({"keep": [0, 12]}, "from 0 to 11"),
        ({"keep": [-1, 3]}, "from 0 to 11"),
        ({"keep": [3, 1]}, "ascending"),
        ({"keep": [1, 1]}, "ascending"),
        ({"keep": "all"}, "keep"),
        ({"keep": [0.5]}, "keep"),
        ({"size": 0, "keep": [0]}, "keep must be"),
        ({"kept": [1]}, "kept"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused_with_its_place(saved, change, told):
    net, path, data = saved
    data["cells"][0] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError, match=r"cells\.0") as caught:
        prune(net, plan=path)
    assert told in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("change", "told"),
    [({"name": "stam"}, "'stam'"), ({"size": 16, "keep": [0]}, "'stem' of 16")],
)
def test_a_cell_that_the_model_does_not_have_is_refused(saved, change, told):
    net, path, data = saved
    data["cells"][0] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError, match=told):
        prune(net, plan=path)


def test_a_cell_that_is_named_twice_is_refused(saved):
    net, path, data = saved
    data["cells"].append(data["cells"][0] | {"keep": [0]})
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError, match=r"stem.*twice"):
        prune(net, plan=path)


def test_a_cell_that_the_plan_leaves_out_stays_whole(saved):
    net, path, data = saved
    del data["cells"][0]
    path.write_text(json.dumps(data))
    result = prune(net, plan=path)
    assert tuple(result.model.graph.initializers["w2"].shape) == (8, 12, 3, 3)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"cells": []}', '{"pass_name": "prune"}'])
def test_what_is_no_plan_is_refused(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"plan\.json"):
        load_plan(path, Prune())


def test_a_plan_of_another_model_is_refused(saved):
    _, path, _ = saved
    other = normalize(
        graph(NET.replace("float[12", "float[10").replace("12,3,3", "10,3,3").replace("6,12", "6,10"))
    ).model
    plan = load_plan(path, Prune())
    with pytest.raises(PlanError, match="another model"):
        check_origin(plan, Prune(), other)
    with pytest.raises(PlanError, match="another model"):
        prune(other, plan=path)


@pytest.mark.parametrize("values", [{}, {"importance": "l1", "refit": "none"}])
def test_the_same_plan_and_feeds_give_the_same_bytes(net, items, tmp_path, values):
    step, plan, ctx = planned(net, items, **values)
    again = PrunePlan.model_validate_json(plan.model_dump_json())
    files = []
    for number, (p, s, c) in enumerate([(plan, step, ctx), (plan, step, ctx), (again, Prune(), context(items))]):
        path = tmp_path / f"{number}.onnx"
        save_model(s.apply(net, p, c), path)
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2]


def test_planning_twice_gives_the_same_plan(net, items):
    assert planned(net, items)[1] == planned(net, items)[1]


def test_the_order_of_the_feeds_does_not_change_the_plan(net, items):
    assert {c.name: c.keep for c in planned(net, items)[1].cells} == {
        c.name: c.keep for c in planned(net, [items[0], *items[:0:-1]])[1].cells
    }


def test_relaxing_gives_back_the_most_costly_cell_first_and_ends_with_none(net, items):
    step, plan, _ = planned(net, items)
    costly = max(plan.cells, key=lambda c: c.loss)
    relaxed = step.relax(plan, Evidence("fidelity", error=0.1, allowed=0.05))
    assert relaxed is not None
    assert [c.name for c in plan.cells if c.cut and c not in relaxed.cells] == [costly.name]
    given_back = next(c for c in relaxed.cells if c.name == costly.name)
    assert given_back.keep == tuple(range(costly.size))
    assert "gate failed" in given_back.why
    assert relaxed.changes() < plan.changes()
    assert step.relax(relaxed, Evidence("fidelity", error=0.1, allowed=0.05)) is None


@pytest.mark.parametrize("failed", ["proof", "fusion"])
def test_nothing_is_given_back_for_what_that_would_not_mend(net, items, failed):
    step, plan, _ = planned(net, items)
    assert step.relax(plan, Evidence(failed)) is None


def test_what_a_relaxed_plan_predicts_is_what_comes_out(net, items):
    step, plan, ctx = planned(net, items)
    relaxed = step.relax(plan, Evidence("latency"))
    assert relaxed is not None
    summary = " ".join(step.prove(net, step.apply(net, relaxed, ctx), relaxed, ctx).sentences)
    share = cost(step.apply(net, relaxed, ctx), ctx.shapes).macs / cost(net, ctx.shapes).macs
    assert share > plan.macs
    assert f"{share:.1%} of the MACs" in summary


def test_a_replay_needs_no_data_and_says_that_nothing_was_refitted(net, items):
    _, plan, _ = planned(net, items)
    result = prune(net, plan=plan)
    assert any("RANDOM" in n.sentence for n in result.report.notes)
    assert any("not refitted" in s for s in result.report.steps[0].summary)
    plain = prune(net, plan=plan.model_copy(update={"refit": "none"}))
    for a, b in zip(run(result.model, items[0]), run(plain.model, items[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    fitted = prune(net, calibration=reader(items), plan=plan)
    assert any("refit" in s for s in fitted.report.steps[0].summary)
    assert not np.array_equal(run(fitted.model, items[0])[0], run(plain.model, items[0])[0])


def test_a_layer_with_one_output_is_not_said_to_lack_a_weight() -> None:
    text = """g (float[N,3,8,8] x, float[12,3,3,3] w1, float[1,12,1,1] w2) => (float[N,1,8,8] y) {
        [stem] a = Conv<pads = [1,1,1,1]>(x, w1)
        [score] y = Conv(a, w2)
    }"""
    model = normalize(graph(text)).model
    _, plan, _ = planned(model, feeds(model, 4, batch=2))
    found = next(s for s in plan.skips if s.node == "score")
    assert found.code == "locked"
    assert "single channel" in found.sentence
