"""What `inspect` finds out about a model, as data: what it is made of, and what each pass could do with it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from onnxcomp.report.structures import ModelFacts, Note, Record, Skip

INSPECTION_SCHEMA = "onnxcomp-inspection/1"

Dims = tuple[int | str | None, ...]
"""A shape: numbers, symbols, and None for what is not known."""


class Trait(StrEnum):
    """What is worth knowing about a model; stable codes."""

    OPSET = "opset"
    DOMAINS = "domains"
    FUNCTIONS = "functions"
    BODIES = "bodies"
    EXTERNAL_DATA = "external-data"
    DYNAMIC = "dynamic-dimensions"
    WEIGHT_TYPES = "weight-types"
    FLOAT32 = "float32-weights"
    QUANTIZED = "already-quantized"
    DUPLICATES = "duplicate-weights"
    UNCOUNTED = "macs-unknown"
    NOTED = "noted"


class ModelFinding(Record):
    """One fact about a model. `warning`: other verbs will refuse it, or leave much of it alone."""

    code: Trait
    level: Literal["info", "warning"]
    sentence: str


class TensorFacts(Record):
    """An input or output. `shape` is None where the rank is unknown."""

    name: str
    dtype: str
    shape: Dims | None


class NodeRow(Record):
    """One node of the canonical form, which is what passes see.

    Args:
        shape: Of its first output.
        macs: Multiply-accumulates of one call; None where a shape is unknown.
        weight_bytes: Of the constants that it reads; one that several nodes read counts for the first.
    """

    name: str
    op_type: str
    shape: Dims | None
    macs: int | None
    weight_bytes: int


class OperatorRow(Record):
    """All nodes of one type. `uncounted`: nodes whose MACs are unknown, which `macs` leaves out."""

    op_type: str
    nodes: int
    macs: int
    uncounted: int
    weight_bytes: int


class Prospect(Record):
    """What one pass could do, before any weight is changed.

    Args:
        name: What it does; `command`: the verb that does it.
        nodes: Names of the nodes that it could change.
        macs_share, bytes_share: What these nodes hold of the model that the pass starts from; None where nothing has
            MACs or weights.
        detail: What would be done, in sentences.
        skips: Every other node that it looked at, with the reason.
        not_examined: Why it was not looked at; empty if it was.
    """

    name: str
    command: str
    nodes: tuple[str, ...] = ()
    macs_share: float | None = None
    bytes_share: float | None = None
    detail: tuple[str, ...] = ()
    skips: tuple[Skip, ...] = ()
    not_examined: str = ""


class Inspection(Record):
    """A model looked at, not changed. Nothing was run unless `executed`.

    Args:
        model: Figures of the file; `sha256` is empty where there was too much data to read for it.
        shapes: Input shapes at which MACs are counted.
        operators, nodes: Of the canonical form, nodes in the order of the graph.
        prospects: What each pass could do.
    """

    schema_: str = Field(default=INSPECTION_SCHEMA, alias="schema")
    version: str
    target: str
    target_is_host: bool
    executed: bool
    model: ModelFacts
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    shapes: dict[str, tuple[int, ...]]
    operators: tuple[OperatorRow, ...]
    nodes: tuple[NodeRow, ...]
    findings: tuple[ModelFinding, ...]
    prospects: tuple[Prospect, ...]
    notes: tuple[Note, ...] = ()
    duration_s: float = 0.0

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="strings")
