"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Iterator

from onnxcomp.ops.axes.relations import Relation, Tied, View, rule

_UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish
Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus
Softsign Sqrt Swish Tan Tanh ThresholdedRelu Cast CastLike Dropout Clip BitwiseNot com.microsoft:Gelu
com.microsoft:FastGelu com.microsoft:QuickGelu com.microsoft:BiasGelu com.microsoft:Silu"""
"""Further inputs (bounds of Clip, ratio of Dropout, bias of BiasGelu) are scalars, or broadcast like an operand."""

_BINARY = """Add Sub Mul Div Pow Mod Min Max Mean Sum Where PRelu Equal Less LessOrEqual Greater GreaterOrEqual And Or
Xor BitwiseAnd BitwiseOr BitwiseXor BitShift"""

UNARY, BINARY = _UNARY.split(), _BINARY.split()


@rule(*UNARY, *BINARY)
def elementwise(n: View) -> Iterator[Relation]:
    """y[…, i, …] = f(a[…, i, …], b[…, i, …], …): axes aligned at the right; one of size 1 is the same for all."""
    for output in n.outputs():
        rank = len(n.shape_of(output))
        for axis in range(rank):
            slots = [n.at(output, axis)]
            for value in n.node.inputs:
                shape = () if value is None else n.shape_of(value)
                own = axis - rank + len(shape)
                if value is not None and own >= 0 and shape[own] > 1:
                    slots.append(n.at(value, own))
            yield Tied(tuple(slots))
