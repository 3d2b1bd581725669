"""Does a node ask for a tensor of absurdly many axes? onnx's shape inference would write each of them down.

The number of axes of what Expand, Reshape and ConstantOfShape make is the length of an input, which a file may declare
to be 2⁶².
"""

from __future__ import annotations

import onnx

from onnxcomp.errors import ModelError
from onnxcomp.model.naming import describe
from onnxcomp.report.text import printable

MAX_AXES = 4096
_SHAPE_INPUT = {"Expand": 1, "Reshape": 1, "ConstantOfShape": 0}


def check_ranks(graph: onnx.GraphProto) -> None:
    """Looks at the lengths that a graph itself declares.

    Raises:
        ModelError: One of them would make more than `MAX_AXES` axes.
    """
    lengths = {
        v.name: v.type.tensor_type.shape.dim[0].dim_value
        for v in (*graph.input, *graph.value_info)
        if len(v.type.tensor_type.shape.dim) == 1
    }
    for node in graph.node:
        place = _SHAPE_INPUT.get(node.op_type)
        if place is not None and len(node.input) > place and lengths.get(node.input[place], 0) > MAX_AXES:
            raise ModelError(
                f"{describe(node)} makes a tensor of {lengths[node.input[place]]:,} axes, as many as "
                f"'{printable(node.input[place])}' has elements",
                hint="Export the model again.",
            )
