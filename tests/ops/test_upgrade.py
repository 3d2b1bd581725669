"""Lifting is held against ONNX Runtime, which runs the old model at its old opset."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import feeds, run
from graphs import graph as parsed

from onnxcomp.model.normalize import normalize
from onnxcomp.ops.upgrade import NEWEST_OPSET, OLDEST_OPSET, RULES, TARGET_OPSET, CannotLift, lift


def graph(text: str, **options: object) -> ir.Model:
    """Attributes may stand in single quotes."""
    return parsed(text.replace("'", '"'), **options)


def _lifted_computes_the_same(model: ir.Model, *, batch: int = 2) -> ir.Model:
    feed = feeds(model, 1, batch=batch)[0]
    expected = run(model, feed)
    result = normalize(model)
    assert result.notes == ()
    assert result.model.opset_imports[""] == TARGET_OPSET
    for name, a, b in zip([v.name for v in model.graph.outputs], expected, run(result.model, feed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6, err_msg=name)
        assert a.dtype == b.dtype
    return result.model


def _op_types(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph.all_nodes()]


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("declared", ["known rank", "unknown rank"])
@pytest.mark.parametrize(
    ("rank", "axis"),
    [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 1), (4, 2), (4, 3), (4, -1), (4, -2), (3, -3)],
)
def test_softmax_over_flattened_axes_means_the_same_at_every_rank_and_axis(op_type, declared, rank, axis):
    shape = ",".join(map(str, [2, 3, 4, 5][:rank]))
    # A reshape to a shape that the model reads at run time leaves inference without a rank.
    hide = f"s = Shape(x) h = Reshape(x, s) y = {op_type}<axis={axis}>(h)"
    body = hide if declared == "unknown rank" else f"y = {op_type}<axis={axis}>(x)"
    _lifted_computes_the_same(graph(f"g (float[{shape}] x) => (float[{shape}] y) {{ {body} }}", opset=11))


def test_softmax_before_axes_of_length_one_needs_no_flatten():
    model = graph("g (float[N,8,1,1] x) => (float[N,8,1,1] y) { y = Softmax<axis=1>(x) }", opset=11)
    assert _op_types(_lifted_computes_the_same(model)) == ["Softmax"]


def test_softmax_whose_result_is_read_twice_and_is_an_output_keeps_its_name():
    text = "g (float[2,3,4] x) => (float[2,3,4] y, float[2,3,4] z) { y = Softmax(x) z = Neg(y) }"
    assert [v.name for v in _lifted_computes_the_same(graph(text, opset=9)).graph.outputs] == ["y", "z"]


def test_softmax_inside_a_body_is_lifted_too():
    text = """g (float[2,3,4] x) => (float[2,3,4] y) {
        c = Constant<value = bool {1}>()
        y = If(c) <then_branch = a () => (float[2,3,4] r) { r = Softmax<axis=1>(x) },
                   else_branch = b () => (float[2,3,4] r) { r = Softmax<axis=2>(x) }> }"""
    assert _op_types(_lifted_computes_the_same(graph(text, opset=11))).count("Flatten") == 1


@pytest.mark.parametrize(
    ("opset", "text"),
    [
        (7, "g (float[N,3,4,4] x) => (float[N,3,8,8] y) { y = Upsample<scales=[1.0,1.0,2.0,2.0], mode='nearest'>(x) }"),
        (7, "g (float[N,3,4,4] x) => (float[N,3,8,8] y) { y = Upsample<scales=[1.0,1.0,2.0,2.0], mode='linear'>(x) }"),
        (9, "g (float[1,2,4,4] x, float[4] w) => (float[1,2,6,10] y) { y = Upsample(x, w) }"),
        (10, "g (float[1,2,4,4] x, float[4] w) => (float[1,2,6,10] y) { y = Resize(x, w) }"),
        (10, "g (float[1,2,4,4] x, float[4] w) => (float[1,2,6,10] y) { y = Resize<mode='linear'>(x, w) }"),
    ],
)
def test_upsample_and_resize_that_enlarge_give_the_same_pixels(opset, text):
    scales = np.asarray([1, 1, 1.5, 2.5], np.float32)
    model = graph(text, opset=opset, w=scales)
    assert "Resize" in _op_types(_lifted_computes_the_same(model))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_that_shrinks_gives_the_same_pixels(mode):
    text = f"g (float[1,2,9,7] x, float[4] w) => (float[1,2,h,v] y) {{ y = Resize<mode='{mode}'>(x, w) }}"
    _lifted_computes_the_same(graph(text, opset=10, w=np.asarray([1, 1, 0.6, 0.5], np.float32)))


def test_nearest_resize_that_shrinks_one_axis_and_enlarges_another_is_refused():
    text = "g (float[1,2,4,4] x, float[4] w) => (float[1,2,2,8] y) { y = Resize(x, w) }"
    result = normalize(graph(text, opset=10, w=np.asarray([1, 1, 0.5, 2], np.float32)))
    assert result.model.opset_imports[""] == 10
    assert "mixed" in result.notes[0]


def test_scales_that_are_listed_among_the_inputs_of_an_old_file_count_as_constant():
    text = "g (float[1,2,4,4] x, float[4] w) => (float[1,2,8,8] y) { y = Upsample(x, w) }"
    model = graph(text, opset=9, ir_version=3, w=np.asarray([1, 1, 2, 2], np.float32))
    model.graph.inputs.append(model.graph.initializers["w"])
    assert normalize(model).model.opset_imports[""] == TARGET_OPSET


@pytest.mark.parametrize(
    ("opset", "text"),
    [
        (7, "g (float[5,6] x) => (float[a,b] y) { y = Slice<starts=[1,-4], ends=[1000,-1], axes=[0,1]>(x) }"),
        (9, "g (float[5,6] x) => (float[a,b] y) { y = Slice<starts=[1], ends=[3]>(x) }"),
        (9, "g (float[5,6] x) => (float[a,b] y, int64[c,d] i) { y, i = TopK<k=3, axis=0>(x) }"),
        (7, "g (float[5,6] x) => (float[5,6] y) { y = Clip<min=-0.5, max=0.5>(x) }"),
        (7, "g (float[5,6] x) => (float[5,6] y) { y = Clip<max=0.5>(x) }"),
        (10, "g (float[5,6] x) => (float[5,6] y) { y = Clip(x) }"),
        (7, "g (float16[5,6] x) => (float16[5,6] y) { y = Clip<min=0.0, max=3.0e38>(x) }"),
        (10, "g (float[5,6] x) => (float[a,b] y) { y = Pad<pads=[1,2,0,1], value=3.5>(x) }"),
        (7, "g (float[5,6] x) => (float[a,b] y) { y = Pad<pads=[1,-2,-1,0]>(x) }"),
        (7, "g (float[5,6] x) => (float[a,b] y) { y = Pad<pads=[1,2,1,2], mode='reflect'>(x) }"),
        (7, "g (float[1,5,6] x) => (float[a,b] y) { y = Squeeze<axes=[0]>(x) }"),
        (7, "g (float[1,5,1] x) => (float[a] y) { y = Squeeze(x) }"),
        (11, "g (float[5,6] x) => (float[a,b,c,d] y) { y = Unsqueeze<axes=[-1,0]>(x) }"),
        (7, "g (float[5,6] x) => (float[a,b] y) { y = ReduceSum<axes=[0]>(x) }"),
        (11, "g (float[5,6] x) => (float y) { y = ReduceSum<keepdims=0>(x) }"),
        (7, "g (float[5,6] x) => (float[a,b] y, float[c,d] z) { y, z = Split<axis=1, split=[2,4]>(x) }"),
        (7, "g (float[4,6] x) => (float[a,b] y, float[c,d] z) { y, z = Split(x) }"),
        (7, "g (float[5,6] x) => (float[5,6] y) { y = Dropout<ratio=0.7>(x) }"),
        (10, "g (float[5,6] x) => (float[5,6] y) { y, m = Dropout<ratio=0.7>(x) }"),
        (9, "g (float[2,3] x) => (float[2,3] y) { i = Constant<value = int64[1,2] {0,2}>() "
            "v = Constant<value = float[1,2] {7,8}>() y = Scatter<axis=1>(x,i,v) }"),
        (7, "g (float[2,3,4,4] x, float[3] w1, float[3] w2, float[3] w3) => (float[2,3,4,4] y) "
            "{ v = Mul(w3, w3) y = BatchNormalization<spatial=1>(x, w1, w2, w3, v) }"),
        (11, "g (float[1,2,3,3] x) => (float[1,2,a,b] y) { e = Constant<value = float[0] {}>() "
             "s = Constant<value = int64[4] {1,2,5,4}>() y = Resize<mode='linear'>(x, e, e, s) }"),
    ],
)  # fmt: skip
def test_attributes_that_became_inputs_mean_the_same(opset, text):
    _lifted_computes_the_same(graph(text, opset=opset))


@pytest.mark.parametrize(
    ("opset", "text", "why"),
    [
        (6, "g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }", "older than 7"),
        (7, "g (float[2,3] x, float[2,3] w) => (float[2,3] y) { y = BatchNormalization<spatial=0>(x,w,w,w,w) }",
         "spatial"),
        (9, "g (float[2,3] x) => (float[2,3] y, float[2,3] m) { y, m = Dropout(x) }", "mask"),
        (9, "g (float[1,2,4,4] x, float[4] s) => (float[1,2,a,b] y) { y = Upsample(x, s) }", "computed"),
        (11, "g (float[1,1,4,4] x, float[4] s) => (float[1,1,a,b] y) "
             "{ y = Resize<coordinate_transformation_mode='tf_half_pixel_for_nn'>(x, s, s) }", "tf_half_pixel"),
        (8, "g (float[2,3] x) => (float[2,3] y) { y = Scan<num_scan_inputs=1, body = b (float[3] i) => (float[3] o) "
            "{ o = Relu(i) }>(, x) }", "batch axis"),
        (9, "g (float[2,3] x) => (float[2,3] y) { z = Foo(x) y = Clip<min=0.0>(z) }", "unknown type"),
    ],
)  # fmt: skip
def test_what_has_no_successor_is_refused_with_the_reason_and_the_model_stays(opset, text, why):
    model = graph(text, opset=opset)
    result = normalize(model)
    assert why in result.notes[0]
    assert result.model.opset_imports[""] == opset
    assert _op_types(result.model) == _op_types(model)


def test_new_constants_never_take_a_name_that_is_in_use():
    model = graph("g (float[5,6] x) => (float[5,6] y, float[5,6] z) { y = Clip<min=-0.5>(x) z = Neg(x) }", opset=7)
    model.graph.outputs[1].name = "y.min"
    assert [v.name for v in _lifted_computes_the_same(model).graph.outputs] == ["y", "y.min"]


def test_a_model_of_opset_13_or_later_is_left_alone():
    assert not lift(graph("g (float[2,3] x) => (float[2,3] y) { y = Softmax<axis=0>(x) }", opset=13))


def test_every_change_of_form_between_the_opsets_has_a_rule():
    """An attribute that went away, or an input that is new and required, can't be carried over as it is."""
    history: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= NEWEST_OPSET:
            history.setdefault(schema.name, []).append(schema)
    needed = set()
    for name, schemas in history.items():
        schemas.sort(key=lambda s: s.since_version)
        for old, new in itertools.pairwise(schemas):
            if new.since_version <= OLDEST_OPSET:
                continue
            gone = set(old.attributes) - set(new.attributes)
            if gone or new.min_input > old.min_input or (new.deprecated and not old.deprecated):
                needed.add((name, new.since_version))
    # Widened without a change of form, but read differently.
    meaning = {("Softmax", 13), ("LogSoftmax", 13), ("Hardmax", 13), ("Dropout", 10), ("Resize", 13)}
    meaning |= {("BatchNormalization", 14), ("RoiAlign", 16), ("Split", 18), ("AveragePool", 19), ("GridSample", 20)}
    meaning |= {("GroupNormalization", 21)}
    assert needed - set(RULES) == set()
    assert set(RULES) - needed == meaning


@pytest.mark.parametrize(
    ("opset", "text"),
    [
        (13, "g (float[5,6] x) => (float[a,b] y, float[c,d] z) { y, z = Split<axis=1>(x) }"),
        (13, "g (float[5,6] x) => (float[a,b] y) { y = ReduceMean<axes=[-1], keepdims=0>(x) }"),
        (13, "g (float[5,6] x) => (float[a,b] y) { y = ReduceMax(x) }"),
        (12, "g (float[5,6] x) => (float[a,b] y) { y = ReduceL2<axes=[0]>(x) }"),
        (13, "g (float[5,6] x) => (float[a,b] y) { y = ReduceProd<axes=[1]>(x) }"),
        (16, "g (float[1,2,5,5] x, float[1,3,4,2] g) => (float[a,b,c,d] y) { y = GridSample<mode='bicubic'>(x, g) }"),
        (16, "g (float[1,2,5,5] x, float[1,3,4,2] g) => (float[a,b,c,d] y) { y = GridSample(x, g) }"),
        (17, "g (float[2,8,3,1] x) => (float[a,b,c,d] y) { y = DFT(x) }"),
        (17, "g (float[2,8,3,1] x) => (float[a,b,c,d] y) { y = DFT<axis=2>(x) }"),
        (13, "g (float[1,2,8,8] x) => (float[a,b,c,d] y) { b = Constant<value = float[1,4] {1,1,6,5}>() "
             "i = Constant<value = int64[1] {0}>() y = RoiAlign<output_height=3, output_width=3>(x, b, i) }"),
        (13, "g (float[2,3,4,4] x, float[3] w1, float[3] w2, float[3] w3) => (float[2,3,4,4] y) "
             "{ v = Mul(w3, w3) y = BatchNormalization(x, w1, w2, w3, v) }"),
        (13, "g (float[1,2,7,7] x) => (float[1,2,a,b] y) "
             "{ y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x) }"),
    ],
)  # fmt: skip
def test_what_changed_after_13_means_the_same_at_the_newest_opset(opset, text):
    model = graph(text, opset=opset)
    feed = feeds(model, 1)[0]
    expected = run(model, feed)
    normalized = normalize(model).model
    assert lift(normalized, NEWEST_OPSET)
    assert normalized.opset_imports[""] == NEWEST_OPSET
    for a, b in zip(expected, run(normalized, feed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_two_rules_for_one_step_are_a_mistake_of_ours():
    from onnxcomp.ops.upgrade import rule

    with pytest.raises(ValueError, match="two rules"):
        rule("Softmax", 13)(lambda node: None)


def test_the_message_of_a_refusal_is_a_sentence():
    with pytest.raises(CannotLift, match="broadcasting rules differ"):
        lift(graph("g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }", opset=5))
