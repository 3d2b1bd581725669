"""16-bit floats: what becomes half, what stays float32 and why, and that the result computes the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from graphs import context, cosine, feeds, graph, run
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.errors import PlanError, UnavailableError
from onnxcomp.evaluate.proof import check_structure
from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import weight_bytes
from onnxcomp.model.shapes import type_complaint
from onnxcomp.passes.base import Evidence
from onnxcomp.passes.precision.plan import NodePrecision, PrecisionPlan
from onnxcomp.passes.precision.precision import Precision, PrecisionConfig
from onnxcomp.report.reasons import Reason

MLP = "g (float[N,8] x, float[8,16] w1, float[16,4] w2) => (float[N,4] y) "


class Halved:
    """A model, its plan and its half form."""

    def __init__(self, text, opset=17, feed=None, config=None, changed=(), calibrated=True, **weights):
        self.before = normalize(graph(text, opset=opset, **weights)).model
        self.feeds = [feed] if feed is not None else feeds(self.before, batch=2)
        ctx = context(self.feeds)
        self.context = replace(ctx, **dict(changed), **({} if calibrated else {"calibration": None}))
        self.step = Precision(config)
        self.plan = self.step.plan(self.before, self.context)
        self.after = self.step.apply(self.before, self.plan, self.context)
        assert check_structure(self.before, self.after, same_shapes=True) is None
        assert type_complaint(self.after) is None

    def why(self, node):
        return self.plan.nodes[node].code

    def outputs(self):
        return run(self.before, self.feeds[0]), run(self.after, self.feeds[0])

    def agree(self, least=0.999):
        return all(cosine(y, z) > least for y, z in zip(*self.outputs(), strict=True))

    def casts(self):
        return [(n.inputs[0].name, ir.DataType(n.attributes["to"].as_int()).name) for n in casts(self.after)]


def casts(model):
    return [n for n in model.graph if n.op_type == "Cast"]


def assert_no_pairs(model):
    for node in casts(model):
        producer = node.inputs[0].producer()
        assert producer is None or producer.op_type != "Cast"
        assert len(
            {u.node.attributes["to"].as_int() for u in node.inputs[0].uses() if u.node.op_type == "Cast"}
        ) == sum(u.node.op_type == "Cast" for u in node.inputs[0].uses()), "two casts of one value to one type"


def test_weights_and_activations_become_float16_and_inputs_and_outputs_stay_float32():
    made = Halved(MLP + "{ a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }")
    assert made.plan.changes() == {"MatMul_a", "Relu_b", "MatMul_y"}
    assert made.casts() == [("x", "FLOAT16"), ("y.float16", "FLOAT")]
    assert weight_bytes(made.after) == weight_bytes(made.before) / 2
    assert {v.dtype for v in made.after.graph.initializers.values()} == {ir.DataType.FLOAT16}
    assert made.agree()
    assert made.before.graph.initializers["w1"].dtype == ir.DataType.FLOAT, "the original is not changed"
    proof = made.step.prove(made.before, made.after, made.plan, made.context)
    assert proof.passed
    assert "3 operators in float16" in proof.sentences[0]


def test_a_value_beyond_the_range_in_the_middle_stays_float32_and_the_result_is_right():
    body = "{ a = MatMul(x, w1) b = Mul(a, big) c = Mul(b, small) d = Relu(c) y = MatMul(d, w2) }"
    made = Halved(
        MLP.replace("x,", "x, float wbig, float wsmall,") + body.replace("big", "wbig").replace("small", "wsmall"),
        wbig=np.float32(1e5),
        wsmall=np.float32(1e-5),
    )
    assert made.why("Mul_b") is Reason.OUT_OF_RANGE
    assert made.why("Mul_c") is Reason.OUT_OF_RANGE
    assert made.plan.changes() == {"MatMul_a", "Relu_d", "MatMul_y"}
    assert_no_pairs(made.after)
    assert made.agree()
    forced = made.plan.model_copy(
        update={"nodes": {n: NodePrecision(precision="half", op_type=p.op_type) for n, p in made.plan.nodes.items()}}
    )
    wrong = run(made.step.apply(made.before, forced, made.context), made.feeds[0])[0]
    assert not np.isfinite(wrong).all(), "or the test has no teeth"


def test_without_feeds_only_weights_are_checked_and_a_warning_says_so():
    made = Halved(
        MLP + "{ a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }",
        calibrated=False,
        w2=np.full((16, 4), 1e5, np.float32),
    )
    assert made.why("MatMul_y") is Reason.OUT_OF_RANGE
    assert made.plan.changes() == {"MatMul_a", "Relu_b"}
    assert any(sentence.startswith("RANGES UNKNOWN") for sentence in made.plan.warnings())
    assert any("rarely faster" in sentence for sentence in made.plan.warnings())


def test_a_weight_that_vanishes_in_float16_keeps_its_node_float32():
    made = Halved(
        MLP + "{ a = MatMul(x, w1) s = Relu(a) y = MatMul(s, w2) }",
        w1=np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32) * 1e-9,
    )
    assert made.why("MatMul_a") is Reason.OUT_OF_RANGE
    assert made.agree()


def test_what_divides_by_a_number_kept_from_zero_by_a_lost_constant_stays_float32():
    text = (
        "g (float[N,8] x, float[8,16] w1, float weps) => (float[N,16] y) "
        "{ a = MatMul(x, w1) n = ReduceL2<axes = [1]>(a) m = Max(n, weps) q = Div(a, m) y = MatMul(q, w2) }"
    ).replace("float weps)", "float weps, float[16,16] w2)")
    zero = {"x": np.zeros((2, 8), np.float32)}
    made = Halved(text, weps=np.float32(1e-12), feed=zero)
    assert made.why("Max_m") is Reason.OUT_OF_RANGE
    assert made.why("Div_q") is Reason.NEEDS_FLOAT32
    assert np.isfinite(made.outputs()[1][0]).all()


def test_the_sum_of_squares_behind_a_norm_must_fit_too():
    text = (
        "g (float[N,8] x, float[8,16] w) => (float[N,1] n, float[N,16] a) "
        "{ a = MatMul(x, w) n = ReduceL2<axes = [1]>(a) }"
    )
    made = Halved(text, feed={"x": np.full((2, 8), 1000, np.float32)})
    assert made.why("ReduceL2_n") is Reason.OUT_OF_RANGE
    assert "MatMul_a" in made.plan.changes()


MASKED = (
    "g (float[N,4] x, int64[N,4] mask, float[4,4] wq, float wlow) => (float[N,4] y) "
    "{ s = MatMul(x, wq) m = Cast<to = 1>(mask) one = Constant<value = float {1}>() i = Sub(one, m) "
    "b = Mul(i, wlow) t = Add(s, b) p = Softmax<axis = -1>(t) y = MatMul(p, wq) }"
)


def test_a_mask_of_the_lowest_float32_is_clamped_and_a_row_masked_everywhere_is_no_nan():
    feed = {
        "x": np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32),
        "mask": np.array([[1, 1, 0, 0], [0, 0, 0, 0]], np.int64),
    }
    made = Halved(MASKED, feed=feed, wlow=np.float32(np.finfo(np.float32).min))
    assert made.plan.clamped == ("wlow",)
    assert {"MatMul_s", "Add_t", "Softmax_p"} <= made.plan.changes()
    wanted, given_back = made.outputs()
    assert np.isfinite(given_back[0]).all()
    assert cosine(wanted[0][0], given_back[0][0]) > 0.999, "the row that says something"


def test_an_infinite_mask_stays_infinite_and_its_softmax_float16():
    text = (
        "g (float[N,4] x, bool[N,4] mask, float[4,4] wq, float winf) => (float[N,4] y) "
        "{ s = MatMul(x, wq) t = Where(mask, s, winf) p = Softmax<axis = -1>(t) y = MatMul(p, wq) }"
    )
    feed = {"x": np.eye(4, dtype=np.float32)[:2], "mask": np.array([[1, 1, 0, 0], [1, 0, 0, 1]], bool)}
    made = Halved(text, feed=feed, winf=np.float32(-np.inf))
    assert made.plan.changes() == {"MatMul_s", "Where_t", "Softmax_p", "MatMul_y"}
    assert made.agree()


def test_a_low_constant_that_does_more_than_mask_is_not_clamped():
    text = "g (float[N,4] x, float[4,4] w, float wlow) => (float[N,4] y) { s = MatMul(x, w) y = Max(s, wlow) }"
    made = Halved(text, wlow=np.float32(-1e9))
    assert made.plan.clamped == ()
    assert made.why("Max_y") is Reason.OUT_OF_RANGE


def test_tied_weights_stay_shared():
    made = Halved("g (float[N,8] x, float[8,8] w) => (float[N,8] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }")
    assert list(made.after.graph.initializers) == ["w"]
    assert made.agree()


def test_a_large_weight_that_float32_reads_too_is_stored_once():
    made = Halved(
        "g (float[N,64] x, float[64,64] w) => (float[N,64] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }",
        changed={"exclude": ("MatMul_y",)},
    )
    assert made.why("MatMul_y") is Reason.EXCLUDED
    assert [v.dtype for v in made.after.graph.initializers.values()] == [ir.DataType.FLOAT]
    assert made.agree()


def test_an_output_that_is_also_read_inside_is_cast_for_the_caller_alone():
    made = Halved(
        "g (float[N,8] x, float[8,8] w) => (float[N,8] a, float[N,8] y) { a = MatMul(x, w) y = MatMul(a, w) }"
    )
    assert made.casts() == [("x", "FLOAT16"), ("a.float16", "FLOAT"), ("y.float16", "FLOAT")]
    assert [v.name for v in made.after.graph.outputs] == ["a", "y"]
    assert made.agree()


def test_bodies_stay_float32_and_what_they_capture_is_cast():
    text = (
        "g (float[N,8] x, bool c, float[8,8] w) => (float[N,8] y) { a = MatMul(x, w) "
        "b = If (c) <then_branch = t () => (float[N,8] u) { u = MatMul(a, w) }, "
        "else_branch = e () => (float[N,8] v) { v = Neg(a) }> y = MatMul(b, w) }"
    )
    for flag in (True, False):
        feed = {"x": np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32), "c": np.asarray(flag)}
        made = Halved(text, feed=feed)
        assert made.plan.changes() == {"MatMul_a", "MatMul_y"}
        assert Reason.INSIDE_SUBGRAPH in {s.code for s in made.plan.left_alone()}
        assert made.agree()


def test_positions_that_are_computed_from_integers_stay_float32():
    text = (
        "g (float[N,4] x, int64[N,4] at, float[4] wf, float[4,4] w) => (float[N,4] y) "
        "{ p = Cast<to = 1>(at) f = Mul(p, wf) s = Sin(f) a = MatMul(x, w) b = Mul(a, s) y = MatMul(b, w) }"
    )
    feed = {"x": np.ones((1, 4), np.float32), "at": np.array([[4097, 4099, 8193, 8195]])}
    made = Halved(text, feed=feed)
    assert made.why("Mul_f") is made.why("Sin_s") is Reason.NEEDS_FLOAT32
    assert made.agree()
    assert_no_pairs(made.after)


def test_a_cast_of_the_model_is_aimed_anew_and_never_doubled():
    text = (
        "g (uint8[N,8] x, float[8,8] w) => (float[N,8] y, int64[N,8] k) "
        "{ f = Cast<to = 1>(x) a = MatMul(f, w) k = Cast<to = 7>(a) y = MatMul(a, w) }"
    )
    made = Halved(text, feed={"x": np.arange(16, dtype=np.uint8).reshape(2, 8)})
    assert [(n, t) for n, t in made.casts() if n == "x"] == [("x", "FLOAT16")]
    assert_no_pairs(made.after)


def test_an_operand_that_onnx_defines_for_float32_alone_stays_and_the_node_does_not():
    text = (
        "g (float[1,2,4,4] x, float[2,2,1,1] w, float[4] wscales) => (float[1,2,8,8] y) "
        '{ a = Conv(x, w) r = Resize<mode = "linear">(a, , wscales) y = Conv(r, w) }'
    )
    made = Halved(text, wscales=np.array([1, 1, 2, 2], np.float32))
    assert "Resize_r" in made.plan.changes()
    assert made.after.graph.initializers["wscales"].dtype == ir.DataType.FLOAT
    assert made.agree()


@pytest.mark.parametrize(
    ("node", "name", "reason"),
    [
        ("c = Celu(a)", "Celu_c", Reason.NO_HALF),
        ("k = Constant<value = int64 {1}>() c = CumSum(a, k)", "CumSum_c", Reason.NEEDS_FLOAT32),
    ],
)
def test_operators_that_stay_float32_stand_between_two_casts_with_their_reason(node, name, reason):
    made = Halved(MLP.replace("16", "8") + f"{{ a = MatMul(x, w1) {node} y = MatMul(c, w2) }}")
    assert made.why(name) is reason
    assert made.plan.changes() == {"MatMul_a", "MatMul_y"}
    assert made.agree()


def test_a_foreign_operator_and_what_reads_its_result_of_unknown_type_stay_float32():
    made = Halved(MLP.replace("16", "8") + "{ a = MatMul(x, w1) c = com.microsoft.QuickGelu(a) y = MatMul(c, w2) }")
    assert made.why("QuickGelu_c") is Reason.UNKNOWN_OPERATOR
    assert made.why("MatMul_y") is Reason.UNSUPPORTED_FORM
    assert made.plan.changes() == {"MatMul_a"}
    assert made.agree()


def test_a_zero_state_takes_its_type_from_an_attribute_and_is_cast():
    text = (
        "g (float[N,8] x, float[8,8] w) => (float[N,8] y) { n = Shape(x) z = ConstantOfShape(n) a = MatMul(x, w) "
        "b = Add(a, z) y = MatMul(b, w) }"
    )
    made = Halved(text)
    assert made.why("ConstantOfShape_z") is Reason.NO_HALF
    assert made.agree()


def test_an_epsilon_that_float16_loses_keeps_a_norm_float32_unless_it_is_added_in_float32():
    text = "g (float[N,2,4] x, float[2] ws, float[2,2,1] w) => (float[N,2,4] y) { a = Conv(x, w) y = Norm }"
    instance = text.replace("Norm", "InstanceNormalization<epsilon = 1e-12>(a, ws, ws)")
    assert Halved(instance).why("InstanceNormalization_y") is Reason.OUT_OF_RANGE
    layer = text.replace("float[2] ws", "float[4] ws").replace("Norm", "LayerNormalization<epsilon = 1e-12>(a, ws)")
    assert "LayerNormalization_y" in Halved(layer).plan.changes()


def test_light_regions_between_float32_are_not_converted():
    made = Halved("g (float[N,8] x) => (float[N,8] y) { a = Relu(x) y = Neg(a) }")
    assert made.plan.changes() == frozenset()
    assert made.why("Relu_a") is Reason.BORDER_COST
    assert made.casts() == []


def test_only_and_exclude_are_obeyed():
    body = MLP + "{ a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }"
    assert Halved(body, changed={"only": ("MatMul_a",)}).plan.changes() == {"MatMul_a"}
    assert Halved(body, changed={"exclude": ("Relu",)}).why("Relu_b") is Reason.EXCLUDED


def test_relaxing_gives_back_the_group_whose_own_error_is_largest():
    made = Halved(MLP + "{ a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }")
    asked = []

    def error_of(plan):
        asked.append(plan.changes())
        return 0.1 if "MatMul_y" in plan.changes() else 0.001

    relaxed = made.step.relax(made.plan, Evidence("fidelity", error=0.1, allowed=0.01, error_of=error_of))
    assert relaxed is not None
    assert relaxed.changes() == {"MatMul_a", "Relu_b"}
    assert all(len(one) == 1 for one in asked)
    assert relaxed.nodes["MatMul_y"].code is Reason.RELAXED
    assert made.step.relax(made.plan, Evidence("latency")) is None


def test_a_plan_is_replayed_from_json_to_the_same_bytes():
    made = Halved(MLP + "{ a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }")
    again = PrecisionPlan.model_validate_json(made.plan.model_dump_json())
    twice = made.step.apply(made.before, again, replace(made.context, calibration=None))
    assert ir.to_proto(twice).SerializeToString() == ir.to_proto(made.after).SerializeToString()


def test_a_plan_edited_to_the_impossible_is_refused():
    made = Halved(MLP.replace("16", "8") + "{ a = MatMul(x, w1) c = Celu(a) y = MatMul(c, w2) }")
    half = NodePrecision(precision="half", op_type="Celu")
    edited = made.plan.model_copy(update={"nodes": {**made.plan.nodes, "Celu_c": half}})
    with pytest.raises(PlanError, match="Celu_c"):
        made.step.apply(made.before, edited, made.context)


def test_bfloat16_is_valid_and_nothing_is_claimed_of_it_where_no_kernel_runs_it():
    made = Halved(MLP + "{ a = MatMul(x, w1) b = Relu(a) y = MatMul(b, w2) }", config=PrecisionConfig(dtype="bf16"))
    assert len(made.plan.changes()) == 3
    assert {v.dtype for v in made.after.graph.initializers.values()} == {ir.DataType.BFLOAT16}
    with pytest.raises(UnavailableError, match="bfloat16"):
        made.step.prove(made.before, made.after, made.plan, made.context)


def test_bfloat16_holds_what_float16_does_not():
    text = "g (float[N,8] x, float[8,8] w) => (float[N,8] y) { y = MatMul(x, w) }"
    large = {"w": np.full((8, 8), 1e5, np.float32)}
    assert Halved(text, **large).why("MatMul_y") is Reason.OUT_OF_RANGE
    assert Halved(text, config=PrecisionConfig(dtype="bf16"), **large).plan.changes() == {"MatMul_y"}


def test_bfloat16_leaves_what_onnx_gained_it_for_later():
    text = "g (float[1,2,4,4] x, float[2,2,1,1] w) => (float[1,2,4,4] y) { y = Conv(x, w) }"
    assert Halved(text, opset=17, config=PrecisionConfig(dtype="bf16")).why("Conv_y") is Reason.NO_HALF


def test_what_is_quantised_already_keeps_its_form_and_the_rest_becomes_float16():
    text = (
        "g (float[N,8] x, uint8 wz, float ws, float[8,8] w, float[8,8] w2) => (float[N,8] y) "
        "{ q = QuantizeLinear(x, ws, wz) d = DequantizeLinear(q, ws, wz) a = MatMul(d, w) b = Relu(a) "
        "e = QuantizeLinear(b, ws, wz) f = DequantizeLinear(e, ws, wz) g = Identity(f) y = MatMul(g, w2) }"
    )
    for opset in (17, 21):
        made = Halved(text, opset=opset, ws=np.float32(0.02), wz=np.uint8(128))
        assert made.plan.changes() == {"MatMul_y"}
        assert made.why("MatMul_a") is made.why("Relu_b") is Reason.ALREADY_QUANTIZED
        assert made.agree()


LAYERS = {
    "MatMul": "{o} = MatMul({i}, w)",
    "Relu": "{o} = Relu({i})",
    "Softmax": "{o} = Softmax<axis = -1>({i})",
    "Celu": "{o} = Celu({i})",
    "CumSum": "{o} = CumSum({i}, waxis)",
    "Add": "{o} = Add({i}, {j})",
    "Mul": "{o} = Mul({i}, {j})",
    "Exp": "{o} = Exp({i})",
    "Large": "{o} = Mul({i}, wlarge)",
    "Transpose": "{o} = Transpose<perm = [0, 2, 1]>({i})",
    "Double": "{o}d = Cast<to = 11>({i}) {o} = Cast<to = 1>({o}d)",
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(LAYERS)), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8),
    st.sampled_from([13, 17, 18, 21]),
    st.data(),
)
def test_any_graph_gives_the_same_answers_with_one_cast_a_value_and_no_pairs(layers, opset, data):
    values, body = ["x"], []
    for n, (kind, i, j) in enumerate(layers):
        i, j = values[i % len(values)], values[j % len(values)]
        values.append(f"v{n}")
        body.append(LAYERS[kind].format(i=i, j=j, o=f"v{n}"))
    more = data.draw(st.sets(st.sampled_from(values[1:]), max_size=2))
    outputs = sorted(more | {values[-1]})
    text = (
        "g (float[2,4,4] x, float[4,4] w, float wlarge, int64 waxis) => "
        f"({', '.join(f'float[2,4,4] {o}' for o in outputs)}) {{ {' '.join(body)} }}"
    )
    made = Halved(text, opset=opset, wlarge=np.float32(3e4), waxis=np.int64(1))
    originals = sum(kind == "Double" for kind, _, _ in layers)
    if not originals:
        assert_no_pairs(made.after)
    for y, z in zip(*made.outputs(), strict=True):
        if np.isfinite(y).all() and np.abs(y).max() < 1e30:
            assert np.isfinite(z).all()
            assert np.linalg.norm(y - z) <= 0.05 * np.linalg.norm(y) + 1e-6
