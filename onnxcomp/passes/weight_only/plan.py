"""The plan of weight-only quantisation: bits and method of every layer. Pure data; the integers are made when it is
applied, for which GPTQ needs the calibration feeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from onnxcomp.passes.base import Plan
from onnxcomp.passes.weight_only.config import Activations, Bits, Method
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Record, Skip


class WeightLayer(Record):
    """One matrix.

    Args:
        name: Of the first node that multiplies by it; `nodes`: all of them.
        out, columns: N and K.
        bits: None leaves it in float.
        block: Weights along K that share a scale.
        method: How it is rounded.
        errors: Error of its output on held-back feeds, Σ‖(W − Ŵ)x‖² / Σ‖Wx‖², for each method that was tried; without
            feeds that of the weights, ‖W − Ŵ‖² / ‖W‖².
        note: Why the method is not the one that was asked for.
        loss: Error of the model's outputs (1 − cosine) with only this layer changed; filled when relaxing needed it.
        code, why: Why it is float, if it is.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    out: int
    columns: int
    bits: Bits | None
    block: int = Field(ge=16, le=256)
    method: Method
    errors: dict[Method, float] = Field(default_factory=dict)
    note: str = ""
    loss: float | None = None
    code: Reason | None = None
    why: str = ""


class WeightOnlyPlan(Plan):
    """Layers with their bits, and every node that is none, with the reason.

    Args:
        operators: Whether the result may hold operators of ONNX Runtime's own, which tie the file to it.
        symmetric: No zero points.
        activations: What the kernel multiplies with; `activations_choice` says why.
        measured_on: What the errors were measured on, in words.
        tables: Nodes that read rows of an embedding table, which become int8 with a scale for each row.
    """

    layers: tuple[WeightLayer, ...] = ()
    operators: Literal["onnx", "onnxruntime"] = "onnxruntime"
    symmetric: bool = False
    activations: Activations = "float"
    activations_choice: str = ""
    measured_on: str = ""
    tables: tuple[str, ...] = ()

    def changes(self) -> frozenset[str]:
        return self.products() | frozenset(self.tables)

    def products(self) -> frozenset[str]:
        """Names of the nodes that multiply by integers."""
        return frozenset(node for layer in self.integer() for node in layer.nodes)

    def left_alone(self) -> tuple[Skip, ...]:
        given_back = (
            Skip(node=node, op_type=layer.op_type, code=layer.code, sentence=layer.why)
            for layer in self.layers
            if layer.bits is None and layer.code is not None
            for node in layer.nodes
        )
        return (*given_back, *self.skips)

    def aim(self) -> str:
        bits = sorted({str(layer.bits) for layer in self.integer()})
        blocks = sorted({layer.block for layer in self.integer()})
        return f"{' and '.join(bits)}-bit weights in blocks of {', '.join(map(str, blocks))}"

    def warnings(self) -> tuple[str, ...]:
        if self.activations == "int8" or all(layer.bits != 8 for layer in self.integer()):
            return ()
        return (
            "8-bit weights with float activations have no fast kernel on CPUs: with activations = int8 (calibration "
            "feeds show what that costs) they run several times as fast",
        )

    def integer(self) -> tuple[WeightLayer, ...]:
        """The layers whose weights become integers."""
        return tuple(layer for layer in self.layers if layer.bits is not None)

    def with_layers(self, layers: Mapping[str, WeightLayer]) -> WeightOnlyPlan:
        """The same plan with some layers replaced."""
        return self.model_copy(update={"layers": tuple(layers.get(layer.name, layer) for layer in self.layers)})

    def only(self, names: frozenset[str]) -> WeightOnlyPlan:
        """The same plan with these layers as integers and no others."""
        others = [layer for layer in self.layers if layer.name not in names]
        return self.with_layers({x.name: x.model_copy(update={"bits": None}) for x in others})
