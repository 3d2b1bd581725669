"""The plan of dynamic INT8: pure data. Replaying it needs no feeds."""

from __future__ import annotations

from typing import Literal

from onnxcomp.passes.base import Plan
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Record, Skip


class DynamicLayer(Record):
    """One weight (an LSTM has two; a Gather reads rows of its) with the nodes that read it.

    Args:
        name: Of the first node; `nodes`: all of them.
        elements: Weights.
        precision: int8, or float when a gate failed with it.
        loss: Error of the model's outputs (1 − cosine) with only this layer in INT8; filled when relaxing needed it.
        code, why: Why it is float, if it is.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    elements: int
    precision: Literal["int8", "float"] = "int8"
    loss: float | None = None
    code: Reason | None = None
    why: str = ""


class DynamicPlan(Plan):
    """Layers with their precision, and every node that is none, with the reason.

    Args:
        operators: Whether the result may hold operators of ONNX Runtime's own, which tie the file to it.
        pairs_saturate: Weights are scaled for a machine that adds two products in 16 bits.
    """

    layers: tuple[DynamicLayer, ...] = ()
    operators: Literal["onnx", "onnxruntime"] = "onnx"
    pairs_saturate: bool = False

    def changes(self) -> frozenset[str]:
        return frozenset(node for layer in self.integer() for node in layer.nodes)

    def left_alone(self) -> tuple[Skip, ...]:
        given_back = (
            Skip(node=node, op_type=layer.op_type, code=layer.code, sentence=layer.why)
            for layer in self.layers
            if layer.precision == "float" and layer.code is not None
            for node in layer.nodes
        )
        return (*given_back, *self.skips)

    def aim(self) -> str:
        return "int8 weights, activations quantised at run time"

    def integer(self) -> tuple[DynamicLayer, ...]:
        """The layers in INT8."""
        return tuple(layer for layer in self.layers if layer.precision == "int8")

    def only(self, names: frozenset[str]) -> DynamicPlan:
        """The same plan with these layers in INT8 and no others."""
        return self.without(frozenset(layer.name for layer in self.layers) - names)

    def without(self, names: frozenset[str], code: Reason = Reason.RELAXED, why: str = "") -> DynamicPlan:
        """The same plan with these layers in float."""
        whole = {"precision": "float", "code": code, "why": why}
        layers = (x.model_copy(update=whole) if x.name in names and x.precision == "int8" else x for x in self.layers)
        return self.model_copy(update={"layers": tuple(layers)})

    def with_losses(self, losses: dict[str, float]) -> DynamicPlan:
        """The same plan with what each layer costs."""
        layers = (x.model_copy(update={"loss": losses.get(x.name, x.loss)}) for x in self.layers)
        return self.model_copy(update={"layers": tuple(layers)})
