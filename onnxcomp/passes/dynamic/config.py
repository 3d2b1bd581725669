"""Options of the pass."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from onnxcomp.report.structures import Record


class DynamicConfig(Record):
    """Dynamic INT8 has no numbers to set: weights are int8 with a scale for each output, activations uint8 with one
    scale for each call.

    Args:
        smallest: Weights that a node must have; smaller ones are not worth quantising their input.
    """

    kind: Literal["dynamic"] = Field(default="dynamic", alias="pass")
    smallest: int = Field(default=4096, ge=1)

    model_config = Record.model_config | {"populate_by_name": True}
