"""The pass as a whole: its plan, what it tells, and how it gives way."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from graphs import context, feeds, graph, run
from simplify_cases import kinds, simplified

from onnxcomp.model.normalize import normalize
from onnxcomp.passes.base import Evidence
from onnxcomp.passes.simplify import simplify
from onnxcomp.passes.simplify.simplify import RULES, Simplify, SimplifyConfig, SimplifyPlan
from onnxcomp.report.reasons import Reason

BLOCK = """g (float[N,3,6,6] x, float[4,3,3,3] w, float[4] w1, float[4] w2, float[4] w3, float[4] w4, int64[8] w_p)
    => (float[N,4,a,b] y) {
    p = Pad(x, w_p) a = Conv(p, w) b = BatchNormalization(a, w1, w2, w3, w4) c = Identity(b) d = Dropout(c)
    e = Neg(w4) f = Abs(e) h = Reshape(f, w_s) i = Relu(d) j = Relu(d) k = Add(i, j) y = Div(k, h) }"""

MORE = """g (float[N,3,6,6] x, float[4,3,3,3] w, float[4] w1, float[4] w2, float[4] w3, float[4] w4, int64[8] w_p,
    float[5,4,1,1] w5, float[5] w6, float[5] w7, float w_k, float[5,1,1] w_l)
    => (float[N,5] y) {
    p = Pad(x, w_p) a = Conv(p, w) b = BatchNormalization(a, w1, w2, w3, w4) c = Identity(b) d = Dropout(c)
    e = Neg(w4) f = Abs(e) h = Reshape(f, w_s) i = Relu(d) j = Relu(d) k = Add(i, j)
    three = Constant<value = float {3.0}>() zero = Constant<value = float {0.0}>() six = Constant<value = float {6.0}>()
    l = Add(k, three) m = Clip(l, zero, six) n = Mul(k, m) o = Div(n, six) q = Div(o, h)
    qk = Mul(q, w_k) l0 = Conv(qk, w5) r = PRelu(l0, w_l) s = ReduceMean<axes = [2, 3], keepdims = 0>(r) t = Add(s, s)
    u = Mul(s, s) v = Add(t, u) y = LayerNormalization(v, w6, w7) }"""
"""A block in which every rule finds something."""


def _block(text: str = BLOCK):
    text = text.replace("int64[8] w_p", "int64[8] w_p, int64[3] w_s")
    even = {"w_l": np.full((5, 1, 1), 0.25, np.float32)}
    return graph(
        text, **even, w4=np.ones(4, np.float32), w_p=np.asarray([0, 0, 1, 1, 0, 0, 1, 1]), w_s=np.asarray([4, 1, 1])
    )


def _plan(model, **config) -> tuple[Simplify, SimplifyPlan]:
    step = Simplify(SimplifyConfig(**config))
    return step, step.plan(model, context(feeds(model, 1)))


def test_all_rules_together_reach_what_none_reaches_alone():
    plan, after = simplified(_block(MORE))
    wanted = ["Conv", "Relu", "Add", "HardSigmoid", "Mul", "Conv", "LeakyRelu", "GlobalAveragePool", "Flatten"]
    assert kinds(after) == [*wanted, "Add", "Mul", "Sum", "LayerNormalization"]
    assert {e.action for e in plan.edits} == {action for _, action in RULES.values()}


def test_simplifying_twice_changes_nothing_more():
    _, after = simplified(_block())
    plan, _ = simplified(after)
    assert plan.changes() == frozenset()


def test_each_action_has_one_line_that_counts_operators():
    model = normalize(_block()).model
    step, plan = _plan(model)
    ctx = context(feeds(model, 1))
    proof = step.prove(model, step.apply(model, plan, ctx), plan, ctx)
    assert proof.passed
    assert proof.sentences == (
        "computed ahead of time: 1 Neg, 1 Abs, 1 Reshape",
        "removed: 1 Identity, 1 Dropout",
        "folded into padding: 1 Pad",
        "folded into weights: 1 BatchNormalization",
        "merged: 1 Relu",
    )


def test_a_line_that_would_be_long_names_the_commonest_and_the_total():
    edits = [
        simplify.Edit(node=str(i), op_type=f"Op{min(i, 5)}", action="computed ahead of time", sentence="")
        for i in range(20)
    ]
    assert simplify.summary(edits) == ["computed ahead of time: 15 Op5, 1 Op0, 1 Op1, 1 Op2, … (20 nodes)"]


def test_the_plan_survives_json_and_replays_to_the_same_bytes():
    from onnxcomp.model.save import serialize

    model = normalize(_block()).model
    step, plan = _plan(model)
    again = SimplifyPlan.model_validate_json(plan.model_dump_json())
    ctx = context(feeds(model, 1))
    assert serialize(step.apply(model, again, ctx)) == serialize(step.apply(model, plan, ctx))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_alone_is_exact(rule):
    plan, _ = simplified(_block(MORE), rules=(rule,))
    assert {e.action for e in plan.edits} == {RULES[rule][1]}


def test_relaxing_gives_up_new_weights_first_and_the_list_of_edits_follows():
    model = normalize(_block(MORE)).model
    step, plan = _plan(model)
    given_up = []
    while (relaxed := step.relax(plan, Evidence("fidelity"))) is not None:
        (gone,) = set(plan.rules) - set(relaxed.rules)
        assert {e.action for e in plan.edits} - {e.action for e in relaxed.edits} == {RULES[gone][1]}
        given_up.append(gone)
        plan = relaxed
    assert given_up == list(simplify.BOLDEST_FIRST[:-1])
    assert plan.rules == ("remove-idle",)


def test_a_node_that_is_excluded_in_an_edited_plan_stays():
    model = normalize(_block()).model
    step, plan = _plan(model)
    edited = plan.model_copy(update={"excluded": ("BatchNormalization_b",)})
    assert "BatchNormalization" in kinds(step.apply(model, edited, context(feeds(model, 1))))


def test_many_small_constants_do_not_add_up_to_a_larger_file():
    nodes = " ".join(
        f"s{i} = Constant<value = int64[1] {{100}}>() k{i} = Constant<value = float {{{i}}}>() e{i} = "
        f"Expand(k{i}, s{i}) "
        f"x{i + 1} = Add(x{i}, e{i})"
        for i in range(20)
    )
    model = graph(f"g (float[N,100] x0) => (float[N,100] x20) {{ {nodes} }}")
    plan, after = simplified(model)
    assert kinds(after).count("Expand") == 20
    assert {s.code for s in plan.skips} == {Reason.TOO_LARGE}


def test_an_opset_with_other_broadcasting_rules_is_left_alone_and_the_reason_is_said():
    model = normalize(graph("g (float[2] x) => (float[2] y) { a = Identity(x) y = Relu(a) }", opset=6)).model
    step, plan = _plan(model)
    assert plan.changes() == frozenset()
    assert [s.code for s in plan.skips] == [Reason.OPSET]
    assert kinds(step.apply(model, plan, context(feeds(model, 1)))) == ["Identity", "Relu"]


def test_a_model_that_could_not_be_lifted_is_simplified_at_its_own_opset():
    model = graph(
        """g (float[1,2,4,4] x, float[4] s, float[2] w1, float[2] w2, float[2,2,1,1] w) =>
        (float[1,2,a,b] y) {
        c = Slice<starts=[0], ends=[1]>(w1) d, e = Split<split=[1,1]>(w2) f = Unsqueeze<axes=[0]>(c)
        g1 = Squeeze<axes=[0]>(f) i = Concat<axis=0>(g1, e) j = ReduceSum<axes=[0]>(i) k = Clip<min=0.0>(x) l =
        Identity(k)
        m = Mul(l, j) o = Dropout(m) q = Conv(o, w) y = Upsample(q, s) }""",
        opset=9,
    )
    feed = {"x": np.ones((1, 2, 4, 4), np.float32), "s": np.asarray([1, 1, 2, 2], np.float32)}
    _, after = simplified(model, feed=feed)
    assert after.opset_imports[""] == 9
    assert kinds(after)[-3:] == ["Mul", "Conv", "Upsample"]


def test_zero_dimensional_tensors_stay_zero_dimensional():
    model = graph("g (float x, float w1, float w2) => (float y) { a = Add(w1, w2) b = Identity(a) y = Mul(x, b) }")
    _, after = simplified(model)
    assert kinds(after) == ["Mul"]
    assert run(after, {"x": np.asarray(2, np.float32)})[0].shape == ()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_constants_are_folded_in_their_own_type(dtype):
    model = graph(
        f"g (float[4] x, {dtype}[4] w) "
        f"=> (float[4] y) {{ a = Transpose(w) b = Unsqueeze(a, w_a) c = Squeeze(b, w_a) "
        "d = Cast<to=1>(c) y = Add(x, d) }".replace("w_a", "k")
    )
    import onnx_ir as ir

    axes = ir.val("k", const_value=ir.tensor(np.asarray([0]), name="k"))
    model.graph.register_initializer(axes)
    for node in model.graph:
        if len(node.inputs) == 2 and node.op_type != "Add":
            node.replace_input_with(1, axes)
    assert kinds(simplified(model)[1]) == ["Add"]


def test_the_docstring_examples_hold():
    assert doctest.testmod(simplify).failed == 0
