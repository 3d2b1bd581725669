"""Lifting to opset 21: the same outputs in ONNX Runtime before and after, and no change of form without a rule."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import feeds, graph, run

from onnxcomp.model.normalize import clone, normalize
from onnxcomp.ops.upgrade import RULES, CannotLift, lift

REDUCTIONS = sorted(name for name, opset in RULES if opset == 18 and name.startswith("Reduce"))


def lifted(model: ir.Model) -> ir.Model:
    result = clone(model)
    assert lift(result, 21)
    assert result.opset_imports[""] == 21
    return result


def same(text: str, opset: int, scale: float = 1.0) -> ir.Model:
    """The lifted model, which gives what the original gives."""
    before = normalize(graph(text, opset=opset)).model
    after = lifted(before)
    feed = feeds(before, 1, batch=2, scale=scale)[0]
    for y, z in zip(run(before, feed), run(after, feed), strict=True):
        np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)
    return after


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("op_type", REDUCTIONS)
def test_axes_of_reductions_become_an_input(op_type, opset):
    after = same(
        f"g (float[2,3,4] x) => (float[2,1,4] y, float[1,1,1] z) {{ y = {op_type}<axes = [1]>(x) z = {op_type}(x) }}",
        opset,
    )
    one, every = list(after.graph)
    assert len(one.inputs) == 2
    assert "axes" not in one.attributes
    assert len(every.inputs) == 1


def test_a_split_into_equal_parts_says_how_many():
    after = same("g (float[2,6] x) => (float[2,2] a, float[2,2] b, float[2,2] c) { a, b, c = Split<axis = 1>(x) }", 13)
    assert after.graph[0].attributes["num_outputs"].as_int() == 3


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_modes_of_grid_sample_have_new_names(mode):
    call = f'GridSample<mode = "{mode}">(x, grid)'
    same(f"g (float[1,2,5,5] x, float[1,3,3,2] grid) => (float[1,2,3,3] y) {{ y = {call} }}", 16, scale=0.4)


def test_roi_align_keeps_its_pixel_centres():
    model = normalize(
        graph(
            """g (float[1,2,8,8] x) => (float[1,2,3,3] y) {
                rois = Constant<value = float[1,4] {0.5, 0.7, 5.2, 6.1}>()
                index = Constant<value = int64[1] {0}>()
                y = RoiAlign<output_height = 3, output_width = 3, sampling_ratio = 2>(x, rois, index)
            }""",
            opset=13,
        )
    ).model
    feed = feeds(model, 1)[0]
    after = lifted(model)
    np.testing.assert_allclose(run(model, feed)[0], run(after, feed)[0], rtol=1e-5, atol=1e-6)
    node = next(n for n in after.graph if n.op_type == "RoiAlign")
    node.attributes.pop("coordinate_transformation_mode")
    assert np.abs(run(model, feed)[0] - run(after, feed)[0]).max() > 1e-2, "the default means the same"


def test_batch_norm_and_pools_in_inference_stay_as_they_are():
    same(
        """g (float[N,4,7,7] x, float[4] w1, float[4] w2, float[4] w3) => (float[N,4,3,3] y) {
            v = Abs(w3) b = BatchNormalization(x, w1, w2, w3, v)
            y = AveragePool<kernel_shape = [3, 3], strides = [2, 2]>(b)
        }""",
        13,
    )


@pytest.mark.parametrize(
    ("text", "opset", "why"),
    [
        (
            """g (float[1,1,7,7] x) => (float[1,1,4,4] y) {
                y = AveragePool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x) }""",
            17,
            "ceil_mode",
        ),
        (
            "g (float[1,4,5] x, float[2] w1, float[2] w2) => (float[1,4,5] y) "
            "{ y = GroupNormalization<num_groups = 2>(x, w1, w2) }",
            18,
            "GroupNormalization",
        ),
    ],
)
def test_what_has_no_equivalent_is_refused_with_its_name(text, opset, why):
    with pytest.raises(CannotLift, match=why):
        lifted(normalize(graph(text, opset=opset)).model)


def test_a_model_that_is_new_enough_is_left_alone():
    model = graph("g (float[2] x) => (float[2] y) { y = Relu(x) }", opset=22)
    assert not lift(model, 21)
    assert model.opset_imports[""] == 22
