"""The 16-bit floats, and what operators make of them: where ONNX allows them, and where float32 is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp
from typing import Literal

import onnx
import onnx_ir as ir

from onnxcomp.ops.attributes import int_attribute
from onnxcomp.ops.definitions import definition

HalfName = Literal["fp16", "bf16"]


@dataclass(frozen=True)
class Half:
    """A 16-bit float type.

    Args:
        dtype: ONNX's type; `name`: as ONNX spells it.
        largest: Largest finite value.
        smallest_normal: Below it bits are lost; `smallest`: below half of it a value becomes zero.
        whole: Whole numbers are exact up to here.
    """

    dtype: ir.DataType
    name: str
    largest: float
    smallest_normal: float
    smallest: float
    whole: int


HALVES: dict[HalfName, Half] = {
    "fp16": Half(ir.DataType.FLOAT16, "float16", 65504.0, 2.0**-14, 2.0**-24, 2**11),
    "bf16": Half(ir.DataType.BFLOAT16, "bfloat16", (2 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133, 2**8),
}


@dataclass(frozen=True)
class Operands:
    """Which inputs and outputs of a node may be 16-bit floats, in their order."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]


def operands(node: ir.Node, opset: int, half: Half) -> Operands | None:
    """What ONNX's type constraints of a standard operator allow; None for an operator that onnx does not know.

    An output whose type no present input shares has it from an attribute (`dtype`, `value`, `stash_type`), which stays;
    where `dtype` may be left out and is (RandomNormalLike, EyeLike), it is the type of the first input.
    """
    schema = definition(node.op_type, opset)
    if schema is None or (not schema.inputs and not schema.outputs):
        return None
    wanted = f"tensor({half.name})"
    formal = [_formal(schema.inputs, i) for i in range(len(node.inputs))]
    given = {p.type_str for p, value in zip(formal, node.inputs, strict=True) if value is not None}
    results = [_formal(schema.outputs, i) for i in range(len(node.outputs))]
    like_input = "dtype" not in node.attributes and _open(schema, "dtype")
    return Operands(
        tuple(wanted in p.types for p in formal),
        tuple(wanted in p.types and (p.type_str in given or like_input) for p in results),
    )


def keeps_epsilon(node: ir.Node, opset: int) -> bool:
    """Whether the operator adds its epsilon in float32 whatever it reads: `stash_type` is 1."""
    schema = definition(node.op_type, opset)
    return schema is not None and "stash_type" in schema.attributes and int_attribute(node, "stash_type", 1) == 1


def _open(schema: onnx.defs.OpSchema, attribute: str) -> bool:
    """Whether the operator has an attribute with no default that may be left out."""
    found = schema.attributes.get(attribute)
    return found is not None and not found.required and found.default_value.type == onnx.AttributeProto.UNDEFINED


def _formal(parameters: list[onnx.defs.OpSchema.FormalParameter], index: int) -> onnx.defs.OpSchema.FormalParameter:
    """The parameter at `index`; the last one of a variadic list goes on."""
    return parameters[min(index, len(parameters) - 1)]


NEEDS_FLOAT32: dict[str, str] = {
    "CumSum": "it adds up along a whole axis, and small terms would be lost",
    "GridSample": "its grid holds coordinates, of which 16 bits lose the fractions",
    "MaxRoiPool": "its regions hold coordinates, of which 16 bits lose the fractions",
    "Range": "it counts, and 16 bits hold whole numbers only up to a few thousand",
    "RoiAlign": "its regions hold coordinates, of which 16 bits lose the fractions",
}
"""Operators that stay float32 although ONNX allows 16 bits."""

COUNTING: frozenset[str] = frozenset(
    [
        "Add", "Ceil", "Clip", "Concat", "Cos", "Div", "Expand", "Floor", "Gather", "Identity", "Max", "Min", "Mod",
        "Mul", "Neg", "Pow", "Reciprocal", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round",
        "Sin", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
    ]
)  # fmt: skip
"""Arithmetic on positions and sizes: applied to whole numbers alone it needs them exactly."""

EXACT_INTEGERS: frozenset[ir.DataType] = frozenset(
    [ir.DataType.BOOL, ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT8, ir.DataType.UINT8]
)
"""Integers that every 16-bit float holds exactly."""

TYPE_BLIND: frozenset[str] = frozenset(["Cast", "Shape", "Size"])
"""Operators whose result does not depend on the float type that they read."""

DENOMINATORS: frozenset[tuple[str, int]] = frozenset({("Div", 1), ("Reciprocal", 0), ("Log", 0), ("Pow", 0)})
"""Operator and input that a zero makes infinite."""

MASKING: frozenset[str] = frozenset(
    [
        "Add", "Cast", "Concat", "Expand", "Gather", "Identity", "Mul", "Reshape", "Slice", "Squeeze", "Sub", "Tile",
        "Transpose", "Unsqueeze", "Where",
    ]
)  # fmt: skip
"""Operators on the way of a mask's constant to its Softmax."""

HIDDEN: dict[str, Callable[[float], float]] = {
    "ReduceL2": lambda y: y * y,
    "GlobalLpPool": lambda y: y * y,
    "ReduceLogSum": lambda y: exp(min(y, 700.0)),
}
"""Largest sum inside an operator, from the largest magnitude of its output."""
