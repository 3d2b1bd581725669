"""The plan as data: JSON, edits, what it says of itself."""

from __future__ import annotations

import pytest
from graphs import graph
from pydantic import ValidationError
from quantize_cases import quantized

from onnxcomp.passes.quantize.plan import NodeDecision, QParams, QuantPlan
from onnxcomp.report.reasons import Reason

TEXT = (
    "g (float[N,16,8,8] x, float[16,16,1,1] w) => (float[N,16,8,8] y) { a = Conv(x, w) s = Softmax(a) y = Conv(s, w) }"
)


def plan():
    return quantized(graph(TEXT)).plan


def test_a_plan_survives_json_to_the_last_bit():
    made = plan()
    assert QuantPlan.model_validate_json(made.model_dump_json()) == made


def test_an_unknown_key_is_an_error():
    with pytest.raises(ValidationError, match="extra"):
        QuantPlan.model_validate(plan().model_dump() | {"scales": {}})


def test_changes_are_the_int8_nodes_and_everything_else_has_a_reason():
    made = plan()
    assert made.changes() == {"Conv_a", "Conv_y"}
    assert {s.node: s.code for s in made.left_alone()} == {"Softmax_s": Reason.KEPT_FLOAT}


def test_setting_nodes_to_float_leaves_the_rest_and_keeps_earlier_reasons():
    made = plan()
    relaxed = made.with_float(frozenset({"Conv_a"}), Reason.RELAXED, "worst")
    again = relaxed.with_float(frozenset({"Conv_a", "Conv_y"}), Reason.BORDER_COST, "last")
    assert (relaxed.changes(), again.changes()) == ({"Conv_y"}, set())
    assert again.nodes["Conv_a"].code is Reason.RELAXED
    assert made.changes() == {"Conv_a", "Conv_y"}


def test_a_precision_that_does_not_exist_is_an_error():
    with pytest.raises(ValidationError):
        NodeDecision(precision="int4", op_type="Conv")


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_represents_nothing_is_an_error(scale):
    good = QParams(dtype="uint8", scale=(0.5,), zero_point=3)
    with pytest.raises(ValidationError, match="scale"):
        QParams.model_validate(good.model_dump() | {"scale": (scale,)})
