"""What the model costs, as a function of what the cells keep: MACs and parameters from the axes of the weights."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxcomp.model.cost import macs_by_node
from onnxcomp.ops.attributes import is_constant, is_standard
from onnxcomp.ops.axes.relations import Shape
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.atoms import Axis as Atoms
from onnxcomp.passes.prune.cells import Structure
from onnxcomp.passes.prune.channel_costs import Axis, CostModel, NodeCost


def parameters(model: ir.Model, structure: Structure) -> CostModel:
    """Elements of the floating-point initializers."""
    nodes = [
        NodeCost(name, float(np.prod(shape, dtype=np.float64)), _axes(structure, value))
        for name, value in model.graph.initializers.items()
        if value.dtype is not None and value.dtype.is_floating_point()
        for shape in [tuple(value.const_value.shape.numpy()) if value.const_value is not None else ()]
    ]
    return CostModel(nodes, _sizes(structure))


def multiplications(model: ir.Model, analysis: Analysis) -> CostModel:
    """Multiply-accumulates of one call, at the shapes that the analysis saw."""
    by_node = macs_by_node(model, analysis.shapes)
    nodes = [
        term
        for node in model.graph
        if (base := by_node.get(node.name or ""))
        for term in _terms(node, float(base), analysis)
    ]
    return CostModel(nodes, _sizes(analysis.structure))


def _terms(node: ir.Node, base: float, analysis: Analysis) -> Iterable[NodeCost]:
    """A product over all axes of the weights; of two activations, over the axes of one and the last of the other."""
    structure, name = analysis.structure, node.name or ""
    weights = [v for v, uses in analysis.weights.items() if any(user == name for user, _, _ in uses)]
    if weights:
        sizes = [np.prod(_shape(analysis, w), dtype=np.float64) for w in weights]
        for weight, size in zip(weights, sizes, strict=True):
            yield NodeCost(name, base * float(size / sum(sizes)), _axes(structure, weight))
        return
    first, *others = [v for v in node.inputs if v is not None]
    axes = _axes(structure, first)
    if others and not is_constant(others[0]) and is_standard(node) and node.op_type == "MatMul":
        axes += _axes(structure, others[0])[-1:] if structure.atoms.axes.get(others[0], [None])[-1] is not None else ()
    yield NodeCost(name, base, axes)


def _shape(analysis: Analysis, value: ir.Value) -> Shape:
    if value.const_value is not None:
        return tuple(int(d) for d in value.const_value.shape.numpy())
    return analysis.shapes[value.name or ""]


def _axes(structure: Structure, value: ir.Value) -> tuple[Axis, ...]:
    """The axes of a value on which cells lie."""
    held = [cells_on(structure, atoms) for atoms in structure.atoms.axes.get(value, ())]
    return tuple(axis for axis in held if axis is not None)


def cells_on(structure: Structure, atoms: Atoms) -> Axis | None:
    """An axis with the cells that lie on it, None if there are none."""
    parts = structure.parts(atoms)
    return Axis(len(atoms), parts) if atoms is not None and parts else None


def _sizes(structure: Structure) -> list[int]:
    return [cell.size for cell in structure.cells]
