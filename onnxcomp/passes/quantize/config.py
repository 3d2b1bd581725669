"""Options of static INT8."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from onnxcomp.passes.quantize.ranges import Method
from onnxcomp.report.structures import Record


class QuantizeConfig(Record):
    """Options of the pass.

    Args:
        mode: In a recipe "auto" is this pass or another way to quantise, whichever measures best.
        ranges: How activation ranges are chosen; see `onnxcomp.passes.quantize.ranges`.
        exact_histograms: Use every value of every tensor instead of a regular sample.
        smooth: SmoothQuant for products with matrices: α, `none`, or the best of a few by the error of the outputs on
            feeds that nothing else is learned from.
        correct: Ranges by parts of the model and biases that make up for rounded weights, kept where the error of the
            outputs falls on feeds that nothing else is learned from. `none` for the fewest seconds.
        sensitivity: File of what each unit loses in INT8 and gains in time: made, or completed, by measuring; read, if
            it is there. A unit whose precision was set in it keeps that one.
        nodes: Glob of node names or operator types → "float" leaves them alone, "int8" never gives them back.
        tensors: Glob of tensor names → how their ranges are chosen, or the range itself.
    """

    kind: Literal["quantize"] = Field(default="quantize", alias="pass")
    mode: Literal["static", "auto"] = "static"
    ranges: Method = "mse"
    exact_histograms: bool = False
    smooth: Literal["auto", "none"] | Annotated[float, Field(ge=0, le=1)] = "auto"
    correct: Literal["auto", "none"] = "auto"
    sensitivity: str | None = None
    nodes: dict[str, Literal["int8", "float"]] = Field(default_factory=dict)
    tensors: dict[str, Method | tuple[float, float]] = Field(default_factory=dict)

    model_config = Record.model_config | {"populate_by_name": True}

    @model_validator(mode="after")
    def _valid(self) -> QuantizeConfig:
        if self.mode == "auto" and (self.nodes or self.tensors):
            raise ValueError(
                'nodes and tensors are for mode = "static"; the other ways to quantise would not obey them'
            )
        return self
