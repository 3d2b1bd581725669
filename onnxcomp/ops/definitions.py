"""What onnx defines of an operator, or that it does not."""

from __future__ import annotations

from functools import cache

from onnx import defs


@cache
def definition(op_type: str, opset: int, domain: str = "") -> defs.OpSchema | None:
    """The definition that holds at an opset; None of an operator that onnx does not define there.

    >>> definition("Relu", 17).since_version, definition("Rleu", 17)
    (14, None)
    """
    try:
        return defs.get_schema(op_type, opset, domain) if 0 < opset < 2**31 else None
    except defs.SchemaError:
        return None
