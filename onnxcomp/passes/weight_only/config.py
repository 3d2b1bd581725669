"""Options of the pass."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from onnxcomp.report.structures import Record

Bits = Literal[4, 8]
Method = Literal["rtn", "mse", "gptq"]
Activations = Literal["float", "int8"]


class WeightOnlyConfig(Record):
    """How weights are rounded.

    Args:
        bits: Of one weight.
        block: Weights along K that share a scale.
        method: Round to nearest with the block's range; with the scale that errs least; or GPTQ, which makes up for
            each weight's error with the weights after it. auto: gptq with calibration feeds, mse without.
        symmetric: No zero points: the integers 8 (of 4 bits) or 128 stand for 0.
        activations: What the kernel multiplies with: floats, or activations that it rounds to int8 in blocks, which is
            faster on CPUs. auto: int8 where the error of the outputs on held-back feeds hardly grows by it, or is small
            anyway.
        smallest: Weights that a matrix must have.
    """

    kind: Literal["weight-only"] = Field(default="weight-only", alias="pass")
    bits: Bits = 4
    block: int = Field(default=32, ge=16, le=256)
    method: Method | Literal["auto"] = "auto"
    symmetric: bool = False
    activations: Activations | Literal["auto"] = "auto"
    smallest: int = Field(default=4096, ge=1)

    model_config = Record.model_config | {"populate_by_name": True}

    @field_validator("block")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"{value} is not a power of two")
        return value

    def chosen(self, has_data: bool) -> Method:
        """The method, by whether there are calibration feeds."""
        if self.method == "auto":
            return "gptq" if has_data else "mse"
        return self.method
