"""Hard gates that exporters write as arithmetic, as the one operator that they are.

    Add(x, b) → Clip(·, 0, c) → Mul by k = 1/c        =  HardSigmoid(x; α = k, β = b·k) = clip(αx + β, 0, 1)
    x · Clip(Add(x, b), 0, c) → Mul by k              =  x · HardSigmoid(x; k, b·k): HardSwish, with b = 3 and c = 6

PaddlePaddle's exporter writes HardSwish as these four nodes; each of them passes over the whole tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxcomp.ops.attributes import constant, is_standard
from onnxcomp.ops.clips import activation_bounds
from onnxcomp.passes.simplify.edits import Finding, Scope, bypass, can_bypass, edit, only_user

_CLOSE = 1e-6


def find_gates(model: ir.Model, scope: Scope) -> Iterator[Finding]:
    """Writes each gate as HardSigmoid, in place."""
    for clip in tuple(model.graph):
        if clip.op_type != "Clip" or not is_standard(clip) or clip.graph is not model.graph:
            continue
        bounds = activation_bounds(clip)
        add = clip.inputs[0].producer() if clip.inputs[0] is not None else None
        if bounds is None or bounds[0] != 0.0 or not 0.0 < bounds[1] < float("inf"):
            continue
        if add is None or not _is(add, "Add") or add.graph is not clip.graph:
            continue
        offset = _scalar_operand(add)
        if offset is None or only_user(add.outputs[0]) is not clip:
            continue
        source, shift = offset
        scale = _scale_behind(clip, source, 1.0 / bounds[1])
        touched = (add, clip, *(scale or ()))
        if scale is None or source.dtype != ir.DataType.FLOAT or any(n.name in scope.excluded for n in touched):
            continue
        if scale and not can_bypass(scale[0], _multiplied(scale[0])):
            continue
        _write(clip, add, source, shift, 1.0 / bounds[1], scale)
        yield edit(add, "written as one operator", f"{add.name} to {touched[-1].name} are one HardSigmoid")


def _write(
    clip: ir.Node, add: ir.Node, source: ir.Value, shift: float, factor: float, scale: tuple[ir.Node, ...]
) -> None:
    graph = clip.graph
    assert isinstance(graph, ir.Graph)
    gate = ir.node("HardSigmoid", [source], {"alpha": factor, "beta": shift * factor}, name=add.name)
    if scale:
        bypass(scale[0], _multiplied(scale[0]))
    ir.convenience.replace_nodes_and_values(graph, clip, [clip, add], [gate], clip.outputs, gate.outputs)


def _scale_behind(clip: ir.Node, source: ir.Value, factor: float) -> tuple[ir.Node, ...] | None:
    """The node that multiplies by `factor` behind the clip, or behind the product of it and `source`; () if the factor
    is 1, None if there is no such node."""
    if factor == 1.0:
        return ()
    user = only_user(clip.outputs[0])
    if user is not None and _is(user, "Mul") and {id(v) for v in user.inputs} == {id(source), id(clip.outputs[0])}:
        user = only_user(user.outputs[0])
    found = None if user is None else _factor(user)
    return (user,) if user is not None and found is not None and abs(found - factor) <= _CLOSE * factor else None


def _factor(node: ir.Node) -> float | None:
    """k of y = k·x, for a Mul or Div by one number."""
    if not (_is(node, "Mul") or _is(node, "Div")):
        return None
    if node.op_type == "Div" and constant(node.inputs[1]) is None:
        return None
    operand = _scalar_operand(node)
    if operand is None or operand[1] == 0.0:
        return None
    return operand[1] if node.op_type == "Mul" else 1.0 / operand[1]


def _multiplied(node: ir.Node) -> ir.Value:
    operand = _scalar_operand(node)
    assert operand is not None
    return operand[0]


def _scalar_operand(node: ir.Node) -> tuple[ir.Value, float] | None:
    """The computed operand of a node with two, and the number that is the other one."""
    for value, other in (node.inputs[:2], reversed(node.inputs[:2])):
        array = constant(other)
        if array is not None and array.size == 1 and value is not None and constant(value) is None:
            # A number of rank above the tensor's would add axes.
            rank = None if value.shape is None else value.shape.rank()
            if array.ndim <= (rank if rank is not None else 0):
                return value, float(array.reshape(()))
    return None


def _is(node: ir.Node, op_type: str) -> bool:
    return node.op_type == op_type and is_standard(node)
