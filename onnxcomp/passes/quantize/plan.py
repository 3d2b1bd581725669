"""The quantisation plan: pure data. Mixed precision, relaxing and edits by hand all change a plan, never a model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from onnxcomp.passes.base import Plan
from onnxcomp.passes.quantize.histograms import ActivationHistogram
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import ActivationRanges, Record, Skip

Precision = Literal["int8", "float"]


Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class QParams(Record):
    """How a tensor maps to integers: q = clip(round(x / scale) + zero_point).

    Args:
        dtype: "uint8" (activations), "int8" (weights).
        scale: One value, or one for each channel of `axis`.
        zero_point: As many as scales share one value: 0 for weights.
        axis: The channel axis, None for per-tensor.
    """

    dtype: Literal["uint8", "int8"]
    scale: tuple[Scale, ...]
    zero_point: int
    axis: int | None = None

    def ends(self) -> tuple[float, float]:
        """Smallest and largest value that one scale represents."""
        first = 0 if self.dtype == "uint8" else -128
        return (first - self.zero_point) * self.scale[0], (first + 255 - self.zero_point) * self.scale[0]


class NodeDecision(Record):
    """The precision of one node. `code` and `sentence` say why a node is float; `macs`: its multiply-accumulates,
    when known."""

    precision: Precision
    op_type: str
    code: Reason | None = None
    sentence: str = ""
    macs: int | None = None


class Island(Record):
    """A connected INT8 region: what it computes, and what is converted at its borders.

    Args:
        nodes: Names of its nodes.
        macs: Multiply-accumulates inside.
        border: Elements that are quantised or dequantised where it meets float nodes, in one call.
    """

    nodes: tuple[str, ...]
    macs: int
    border: int


class Unit(Record):
    """What one unit of mixed precision was measured to lose and to gain.

    Args:
        nodes: A weighted node and the INT8 nodes behind it, up to the next weighted one.
        error: Of the outputs with only this unit in INT8.
        slowdown: Latency with only this unit in float over that with none; None where it can't be measured.
        precision: "float" or "int8" to decide by hand; "auto": as the gates need.
    """

    nodes: tuple[str, ...]
    error: float
    slowdown: float | None = None
    precision: Literal["auto", "int8", "float"] = "auto"


class QuantPlan(Plan):
    """Tensor → parameters, node → precision. Replaying it needs no calibration data.

    Args:
        nodes: Every node that has an integer kernel or is heavy, by name.
        operators: Whether the result may hold operators of ONNX Runtime's own, which tie the file to it.
        tensors: Every activation and weight that an INT8 node may read or write, by name. A weight that is read along
            two different axes has one entry for each, named `weight@axis`.
        tables: Nodes that read rows of an embedding table, which becomes int8 with a scale for each row.
        padded: Convolution → input channels that it gets, the new ones zero, because the fast kernel wants so many.
        smoothing: Activation → the factors that its channels hand to the weights (SmoothQuant), and `smoothed`: node →
            the activation that it reads; the plan is of the model in which that is done. `smoothing_choice` says why.
        equalization: Activation → the factors that its channels take from the convolution in front and give to the
            depthwise one behind; `equalization_choice` says what that brings.
        corrections: Node → what is added to its bias, one shift for each output channel; `correction_choice` says why.
        range_choice: How the ranges were chosen by the error of the outputs, where they were.
        pinned: Nodes that stay in INT8 whatever the gates say.
        ties: Tensor → the tensor whose parameters it shares, because the operator between them only moves values.
        islands: The INT8 regions as first placed; the ones with little work for their borders go first when latency
            fails.
        alternatives: Ways to choose ranges that were not taken → the activations' parameters by them.
        units: The units of mixed precision as measured; filled when relaxing needed it, or a sensitivity file was asked
            for.
        histograms: What was seen of the activations with the longest tails, for the report; replaying needs none.
    """

    operators: Literal["onnx", "onnxruntime"] = "onnx"
    nodes: dict[str, NodeDecision]
    tensors: dict[str, QParams]
    tables: tuple[str, ...] = ()
    padded: dict[str, int] = Field(default_factory=dict)
    smoothing: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    smoothed: dict[str, str] = Field(default_factory=dict)
    smoothing_choice: str = ""
    equalization: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    equalization_choice: str = ""
    corrections: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    correction_choice: str = ""
    range_choice: str = ""
    pinned: tuple[str, ...] = ()
    ties: dict[str, str] = Field(default_factory=dict)
    islands: tuple[Island, ...] = ()
    alternatives: dict[str, dict[str, QParams]] = Field(default_factory=dict)
    units: tuple[Unit, ...] = ()
    histograms: dict[str, ActivationHistogram] = Field(default_factory=dict)

    def changes(self) -> frozenset[str]:
        return self.quantized() | frozenset(self.tables)

    def left_alone(self) -> tuple[Skip, ...]:
        decided = (
            Skip(node=name, op_type=d.op_type, code=d.code, sentence=d.sentence)
            for name, d in self.nodes.items()
            if d.precision == "float" and d.code is not None
        )
        return (*self.skips, *decided)

    def quantized(self) -> frozenset[str]:
        """Names of the nodes that run in INT8."""
        return frozenset(name for name, decision in self.nodes.items() if decision.precision == "int8")

    def ranges(self) -> ActivationRanges | None:
        quantized = self.quantized()
        shown = [
            (seen.left_out(params.ends()), seen.described(name, params.scale[0], params.zero_point, params.ends()))
            for name, seen in self.histograms.items()
            if (params := self.tensors.get(name)) is not None and not quantized.isdisjoint(seen.nodes)
        ]
        if not shown:
            return None
        shown.sort(key=lambda pair: (-pair[1].clipped, -pair[1].beyond, -pair[0]))
        count = sum(params.axis is None for params in self.tensors.values())
        return ActivationRanges(activations=count, shown=tuple(described for _, described in shown))

    def with_ranges(self, method: str) -> QuantPlan:
        """The same plan with the activations' parameters of another way to choose ranges."""
        return self.model_copy(update={"tensors": self.tensors | self.alternatives[method]})

    def with_float(self, names: frozenset[str], code: Reason, sentence: str) -> QuantPlan:
        """The same plan with these nodes, and the tables that they read, left in float."""
        changed = {
            name: NodeDecision(precision="float", op_type=d.op_type, code=code, sentence=sentence, macs=d.macs)
            for name, d in self.nodes.items()
            if name in names and d.precision == "int8"
        }
        whole = [name for name in self.tables if name in names]
        skips = [Skip(node=name, op_type="Gather", code=code, sentence=sentence) for name in whole]
        return self.model_copy(
            update={
                "nodes": {**self.nodes, **changed},
                "tables": tuple(name for name in self.tables if name not in names),
                "skips": (*self.skips, *skips),
            }
        )
