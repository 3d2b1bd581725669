"""Have the constants that operators read as many axes as ONNX defines, and does no node ask for absurdly many?

The number of axes of what Expand, Reshape and ConstantOfShape make is the length of an input, which a file may declare
to be 2⁶²: onnx's shape inference would write each of them down.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnxcomp.errors import DAMAGED, ModelError
from onnxcomp.model.naming import describe
from onnxcomp.model.versions import STANDARD_DOMAINS
from onnxcomp.report.text import printable

MAX_AXES = 4096
_SHAPE_INPUT = {"Expand": 1, "Reshape": 1, "ConstantOfShape": 0}

_CONV, _VECTOR = range(3, 16), range(1, 2)
_GATES = {0: range(3, 4), 1: range(3, 4), 2: range(3, 4), 3: range(2, 3), 4: _VECTOR, 5: range(3, 4)}
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

RANKS: Mapping[str, Mapping[int, range]] = {
    "Conv": {0: _CONV, 1: _CONV, 2: _VECTOR},
    "ConvTranspose": {0: _CONV, 1: _CONV, 2: _VECTOR},
    "ConvInteger": {0: _CONV, 1: _CONV},
    "QLinearConv": {0: _CONV, 3: _CONV, 8: _VECTOR},
    "Gemm": {0: range(2, 3), 1: range(2, 3), 2: range(3)},
    "LSTM": _GATES | {6: range(3, 4), 7: range(2, 3)},
    "GRU": _GATES,
    "RNN": _GATES,
    "BatchNormalization": dict.fromkeys(range(1, 5), _VECTOR),
    "InstanceNormalization": dict.fromkeys(range(1, 3), _VECTOR),
    "ConstantOfShape": {0: _VECTOR},
    "Expand": {1: range(2)},
    "Pad": {1: _VECTOR},
    "Reshape": {1: _VECTOR},
    "Slice": dict.fromkeys(range(1, 5), _VECTOR),
    "Split": {1: _VECTOR},
    "Squeeze": {1: _VECTOR},
    "Tile": {1: _VECTOR},
    "TopK": {1: _VECTOR},
    "Unsqueeze": {1: range(2)},
    **{f"Reduce{kind}": {1: _VECTOR} for kind in _REDUCTIONS},
}
"""Operator → input → how many axes it may have. ONNX Runtime refuses all others, when it loads the model or when it
runs the node; scalars for Expand and Unsqueeze it takes, whatever ONNX says."""


def check_ranks(graph: onnx.GraphProto) -> None:
    """Looks at the constants of a graph, subgraphs aside, and at the lengths that it declares.

    Raises:
        ModelError: A constant has other axes than its operator takes, or a node names or makes more than `MAX_AXES`.
    """
    lengths = {
        v.name: v.type.tensor_type.shape.dim[0].dim_value
        for v in (*graph.input, *graph.value_info)
        if len(v.type.tensor_type.shape.dim) == 1
    }
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].HasField("t"):
            ranks[node.output[0]] = len(node.attribute[0].t.dims)
        place = _SHAPE_INPUT.get(node.op_type)
        if place is not None and len(node.input) > place and lengths.get(node.input[place], 0) > MAX_AXES:
            raise ModelError(
                f"{describe(node)} makes a tensor of {lengths[node.input[place]]:,} axes, as many as "
                f"'{printable(node.input[place])}' has elements",
                hint="Export the model again.",
            )
        if node.domain not in STANDARD_DOMAINS:
            continue
        for attribute in node.attribute:
            if attribute.name == "axis" and abs(attribute.i) > MAX_AXES:
                raise ModelError(f"{describe(node)} names axis {attribute.i}, which no tensor has", hint=DAMAGED)
        for index, allowed in RANKS.get(node.op_type, {}).items():
            name = node.input[index] if index < len(node.input) else ""
            if ranks.get(name, allowed.start) not in allowed:
                least, most = allowed.start, allowed.stop - 1
                wanted = f"{least}" if least == most else f"{least} or more" if most > 3 else f"{least} to {most}"
                raise ModelError(
                    f"'{printable(name)}', input {index} of {describe(node)}, has {ranks[name]} axes; "
                    f"the operator takes {wanted}",
                    hint=DAMAGED,
                )
