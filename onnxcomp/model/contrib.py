"""Operators of ONNX Runtime's own as ONNX functions, for shape inference, which knows only standard operators.

A function here has the shape and type of the operator's output, not its values. Source: onnxruntime's
`docs/ContribOperators.md`.
"""

from __future__ import annotations

from functools import cache

import onnx
import onnx.parser

DOMAIN = "com.microsoft"

_FUNCTIONS = {
    "MatMulIntegerToFloat": "(a, b, a_scale, b_scale, a_zero, b_zero, bias) => (y) "
    "{ t = MatMulInteger(a, b) y = Cast<to = 1>(t) }",
    "DynamicQuantizeMatMul": "(a, b, b_scale, b_zero, bias) => (y) { f = Cast<to = 1>(b) y = MatMul(a, f) }",
    "MatMulNBits": "<K, N> (a, b, scales, zeros, groups, bias) => (y) { k = Constant<value_int: int = @K>() "
    "n = Constant<value_int: int = @N>() axis = Constant<value_ints = [0]>() rows = Unsqueeze(k, axis) "
    "columns = Unsqueeze(n, axis) sizes = Concat<axis = 0>(rows, columns) w = ConstantOfShape(sizes) "
    "y = MatMul(a, w) }",
}


def add_functions(proto: onnx.ModelProto) -> None:
    """Gives the model a function for each such operator in its graph that it does not define itself, in place."""
    own = {(f.domain, f.name) for f in proto.functions}
    used = dict.fromkeys(n.op_type for n in proto.graph.node if n.domain == DOMAIN)
    proto.functions.extend(_function(name) for name in used if name in _FUNCTIONS and (DOMAIN, name) not in own)


@cache
def _function(name: str) -> onnx.FunctionProto:
    return onnx.parser.parse_function(f'<domain: "{DOMAIN}", opset_import: ["": 17]> {name} {_FUNCTIONS[name]}')
