"""Relaxing: which layers get more bits, or are floats again, when a gate fails."""

from __future__ import annotations

from onnxcomp.passes.base import Evidence
from onnxcomp.passes.giving_back import given_back
from onnxcomp.passes.one_in import one_in
from onnxcomp.passes.weight_only.plan import WeightLayer, WeightOnlyPlan
from onnxcomp.report.reasons import DESCRIPTIONS, Reason

GAIN_OF_8 = 1.0 / 256
"""Share of a layer's error that is left with 16 times as many steps."""


BEFORE = ", before the plan was relaxed"
"""When the activations were chosen: they are not chosen again."""


def relaxed(plan: WeightOnlyPlan, evidence: Evidence[WeightOnlyPlan]) -> WeightOnlyPlan | None:
    """For fidelity the layers that cost the outputs most get 8 bits; those that have them are floats again.

    For latency the kernel may round activations to int8, if it did not; each layer that stays as integers is as slow as
    before, so that nothing else is to be given back.
    """
    if evidence.failed == "latency" and plan.operators == "onnxruntime" and plan.activations == "float":
        faster = "int8, because with floats the result was too slow"
        return plan.model_copy(update={"activations": "int8", "activations_choice": faster})
    if evidence.failed == "fusion":
        named = [x for x in plan.integer() if set(x.nodes) & set(evidence.nodes)]
        return _changed(plan, {x.name: _whole(x, Reason.NOT_FUSED) for x in named})
    if evidence.failed != "fidelity":
        return None
    measured = _measured(plan, evidence)
    if plan.activations_choice and not plan.activations_choice.endswith(BEFORE):
        measured = measured.model_copy(update={"activations_choice": plan.activations_choice + BEFORE})
    coarse = {x.name: x for x in measured.integer() if x.bits == 4}
    if coarse:
        worst = given_back({x.name: x.loss or 0.0 for x in coarse.values()}, evidence) or coarse
        return _changed(measured, {name: _finer(coarse[name]) for name in worst})
    fine = {x.name: x for x in measured.integer()}
    restored = given_back({x.name: x.loss or 0.0 for x in fine.values()}, evidence)
    return None if restored is None else _changed(measured, {n: _whole(fine[n], Reason.RELAXED) for n in restored})


def _measured(plan: WeightOnlyPlan, evidence: Evidence[WeightOnlyPlan]) -> WeightOnlyPlan:
    """With the loss of each layer: of the outputs if that can be measured, else of its own output."""
    layers, error_of = plan.integer(), evidence.error_of
    if all(layer.loss is not None for layer in layers):
        return plan
    if error_of is None:
        losses = {x.name: x.errors.get(x.method, 0.0) for x in layers}
    else:
        losses = one_in([x.name for x in layers], lambda names: error_of(plan.only(names)))
    return plan.with_layers({x.name: x.model_copy(update={"loss": losses[x.name]}) for x in layers})


def _finer(layer: WeightLayer) -> WeightLayer:
    """8 bits; at these nearest values in the best range are as good as it gets."""
    update = {"bits": 8, "method": "mse", "errors": {}, "loss": (layer.loss or 0.0) * GAIN_OF_8}
    return layer.model_copy(update=update)


def _whole(layer: WeightLayer, code: Reason) -> WeightLayer:
    return layer.model_copy(update={"bits": None, "code": code, "why": DESCRIPTIONS[code]})


def _changed(plan: WeightOnlyPlan, layers: dict[str, WeightLayer]) -> WeightOnlyPlan | None:
    """With these layers; None if they change nothing, or no integers would be left."""
    result = plan.with_layers(layers)
    return result if layers and result.integer() else None
