from __future__ import annotations

import numpy as np
import pytest
from graphs import graph
from simplify_cases import codes, kinds, simplified

from onnxcomp.report.reasons import Reason


def _model(pads: str, *, pad: str = "Pad(x, w_p)", conv: str = "Conv", out: str = "float[N,4,a,b] y", opset: int = 18):
    count = len(pads.split(","))
    return graph(
        f"g (float[N,2,5,6] x, int64[{count}] w_p, float[4,2,3,3] w) => ({out}) {{ p = {pad} y = {conv}(p, w) }}",
        opset=opset,
        w_p=np.asarray([int(v) for v in pads.split(",")]),
    )


@pytest.mark.parametrize("conv", ["Conv", "Conv<pads=[1,0,2,1]>", 'Conv<auto_pad="VALID">', "Conv<strides=[2,2]>"])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_zeros_around_the_image_are_added_by_the_convolution_itself(conv, opset):
    plan, after = simplified(_model("0,0,1,2,0,0,3,0", conv=conv, opset=opset))
    assert kinds(after) == ["Conv"]
    assert plan.edits[0].action == "folded into padding"


def test_pads_of_named_axes_fold_also_when_the_axes_are_negative():
    model = graph(
        "g (float[N,2,5,6] x, int64[4] w_p, int64[2] w_a, float[4,2,3,3] w) => (float[N,4,a,b] y) "
        "{ p = Pad(x, w_p, , w_a) y = Conv(p, w) }",
        opset=18,
        w_p=np.asarray([1, 2, 3, 0]),
        w_a=np.asarray([-1, 2]),
    )
    assert kinds(simplified(model)[1]) == ["Conv"]


@pytest.mark.parametrize(
    "change",
    [
        {"pads": "0,0,1,-1,0,0,1,1"},
        {"pads": "0,0,1,1,0,0,1,1", "pad": 'Pad<mode="reflect">(x, w_p)'},
        {"pads": "0,0,1,1,0,0,1,1", "conv": 'Conv<auto_pad="SAME_UPPER">'},
        {"pads": "1,0,1,1,0,0,1,1"},
    ],
)
def test_other_pads_stay_with_the_reason(change):
    plan, after = simplified(_model(**change))
    assert kinds(after) == ["Pad", "Conv"]
    assert codes(plan) == {"Pad": Reason.UNSUPPORTED_FORM}


def test_a_fill_that_is_not_zero_or_not_known_stays():
    text = "g (float[N,2,5,6] x, float u, int64[8] w_p, float w_f, float[4,2,3,3] w) => (float[N,4,a,b] y) "
    for fill in ("w_f", "u"):
        model = graph(f"{text} {{ p = Pad(x, w_p, {fill}) y = Conv(p, w) }}", w_p=np.asarray([0, 0, 1, 1, 0, 0, 1, 1]))
        assert kinds(simplified(model)[1]) == ["Pad", "Conv"]


def test_a_padded_image_that_others_read_stays():
    shared = _model("0,0,1,1,0,0,1,1")
    shared.graph.outputs.append(shared.graph[0].outputs[0])
    plan, _ = simplified(shared)
    assert codes(plan) == {"Pad": Reason.GRAPH_OUTPUT}
    model = graph(
        "g (float[N,2,5,6] x, int64[8] w_p, float[4,2,3,3] w) => (float[N,4,a,b] y, float[N,2,c,d] z) "
        "{ p = Pad(x, w_p) y = Conv(p, w) z = Relu(p) }",
        w_p=np.asarray([0, 0, 1, 1, 0, 0, 1, 1]),
    )
    plan, after = simplified(model)
    assert kinds(after) == ["Pad", "Conv", "Relu"]
    assert codes(plan) == {"Pad": Reason.SHARED}


def test_a_pad_of_an_opset_that_could_not_be_lifted_is_left_alone():
    model = graph(
        "g (float[1,2,5,6] x, float[4] s, float[4,2,3,3] w) => (float[1,4,5,6] y, float[1,2,c,d] z) "
        "{ p = Pad<pads=[0,0,1,1,0,0,1,1]>(x) y = Conv(p, w) z = Upsample(x, s) }",
        opset=9,
    )
    feed = {"x": np.ones((1, 2, 5, 6), np.float32), "s": np.asarray([1, 1, 2, 2], np.float32)}
    assert "Pad" in kinds(simplified(model, feed=feed)[1])
