"""Reason codes: why a pass left a node alone. Each code is stable, documented here and tested."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a node was left as it was."""

    NO_INTEGER_KERNEL = "no-integer-kernel"
    KEPT_FLOAT = "kept-float"
    BORDER_COST = "border-cost"
    NOT_CONSTANT = "weight-not-constant"
    TWO_ACTIVATIONS = "two-activations"
    UNSUPPORTED_FORM = "unsupported-form"
    NOT_FLOAT32 = "not-float32"
    ALREADY_QUANTIZED = "already-quantized"
    UNKNOWN_OPERATOR = "unknown-operator"
    INSIDE_SUBGRAPH = "inside-subgraph"
    NOT_OBSERVED = "not-observed"
    NOT_FINITE = "not-finite"
    EXCLUDED = "excluded"
    NOT_SELECTED = "not-selected"
    RELAXED = "relaxed"
    NOT_FUSED = "not-fused"
    TOO_LARGE = "too-large"
    SHARED = "shared"
    GRAPH_OUTPUT = "graph-output"
    OPSET = "opset"
    LOCKED = "locked"
    ALIGNMENT = "alignment"
    NOT_NEEDED = "not-needed"
    NOT_PROVED = "not-proved"
    TOO_SMALL = "too-small"
    BREAK_EVEN = "break-even"
    SLOWER = "slower"


DESCRIPTIONS: dict[Reason, str] = {
    Reason.NO_INTEGER_KERNEL: "The execution provider has no integer kernel for it: INT8 would only add conversions.",
    Reason.KEPT_FLOAT: "An integer kernel exists, but measurements on many models showed that float is better here.",
    Reason.BORDER_COST: "Too few neighbours run in INT8: converting at its borders would cost more than it gains.",
    Reason.NOT_CONSTANT: "The weight is computed at run time; only constant weights can be quantised ahead of time.",
    Reason.TWO_ACTIVATIONS: "Both operands are activations; quantising such products statically is not done.",
    Reason.UNSUPPORTED_FORM: "The attributes or shapes of this node have no integer kernel (the sentence names which).",
    Reason.NOT_FLOAT32: "The tensor is not float32, and the integer kernels replace float32 arithmetic only.",
    Reason.ALREADY_QUANTIZED: "The model is quantised already; quantising twice only loses accuracy.",
    Reason.UNKNOWN_OPERATOR: "Not a standard operator that this version knows, so nothing around it is changed.",
    Reason.INSIDE_SUBGRAPH: "The node sits inside an If, Loop or Scan body; bodies are left as they are.",
    Reason.NOT_OBSERVED: "No calibration feed reached this tensor, so its range is unknown.",
    Reason.NOT_FINITE: "Calibration saw NaN or infinity in this tensor, or its weight holds them.",
    Reason.EXCLUDED: "Excluded by --exclude or by the plan.",
    Reason.NOT_SELECTED: "Not matched by --only.",
    Reason.RELAXED: "Set back to what it was, because a gate failed with it changed.",
    Reason.NOT_FUSED: "Written as INT8, but ONNX Runtime did not fuse it into an integer kernel.",
    Reason.TOO_LARGE: "Its constant result would be larger than the size limit.",
    Reason.SHARED: "The tensor is used in another place too, where the change would not be right.",
    Reason.GRAPH_OUTPUT: "The value is an output of the model, which must not change.",
    Reason.OPSET: "The model's opset is too old for this change and could not be lifted (the sentence says why).",
    Reason.LOCKED: "An operator needs these channels as they are (the sentence names it).",
    Reason.ALIGNMENT: "Fewer channels would not suit the fast kernels of the target.",
    Reason.NOT_PROVED: "With these channels cut the model did not compute what it should, so they stay.",
    Reason.TOO_SMALL: "Too small: what the change adds outweighs what it saves (two factors, even at the lowest rank).",
    Reason.BREAK_EVEN: "The rank that it needs is too close to the one at which two factors are as large as the whole.",
    Reason.SLOWER: "Measured on this machine, its two factors are not faster than the whole.",
    Reason.NOT_NEEDED: "The budget is met without changing it.",
}
