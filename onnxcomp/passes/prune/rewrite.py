"""The edit: weights are sliced, and everything that names a number of channels is written anew."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxcomp.model import shapes
from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import is_standard
from onnxcomp.passes.prune.adjust import Scene, adjust, original_shape
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.cells import Structure

Kept = dict[str, tuple[np.ndarray | None, ...]]
"""Value → the positions that stay along each axis, int; None: all of them."""


def rewrite(model: ir.Model, analysis: Analysis, keep: Mapping[str, np.ndarray]) -> tuple[ir.Model, Kept]:
    """The model without the channels that are not kept; the argument is not changed.

    Args:
        model: What was analysed.
        keep: Cell → int [kept]: classes that stay; a cell that is not named stays whole.

    Returns:
        The pruned model, whose nodes and values keep their names, and what stays of each value.
    """
    structure = analysis.structure
    kept = kept_positions(structure, keep)
    result = clone(model)
    counterparts = dict(zip(model.graph, result.graph, strict=True))
    names = {value.name or "" for node in result.graph for value in node.outputs} | set(result.graph.initializers)
    scene = Scene(result.graph, kept, analysis.shapes, names)
    for node, adjustments in structure.atoms.adjustments.items():
        for adjustment in adjustments:
            adjust(adjustment, counterparts[node], node, scene)
    for node in list(result.graph):
        if node.op_type == "Shape" and is_standard(node):
            original_shape(node, scene)
    for name, value in list(result.graph.initializers.items()):
        if name in kept and value.const_value is not None:
            value.const_value = _sliced(value.const_value, kept[name])
            value.shape = ir.Shape(value.const_value.shape.numpy())
    _shorten_foreign(result, kept)
    shapes.refresh(result, keep_foreign=True)
    return result, kept


def _shorten_foreign(model: ir.Model, kept: Kept) -> None:
    """Writes the new sizes into the shapes of what custom operators put out: onnx does not infer those."""
    for node in model.graph:
        for value in () if is_standard(node) else node.outputs:
            held = kept.get(value.name or "")
            if held is not None and value.shape is not None:
                value.shape = ir.Shape([d if p is None else len(p) for d, p in zip(value.shape, held, strict=True)])


def kept_positions(structure: Structure, keep: Mapping[str, np.ndarray]) -> Kept:
    """What stays of each value; values that stay whole are left out."""
    stays = structure.kept_atoms(keep)
    result: Kept = {}
    found: dict[int, np.ndarray | None] = {}
    for value, axes in structure.atoms.axes.items():
        positions = []
        for axis in axes:
            if axis is not None and id(axis) not in found:
                held = stays[axis]
                found[id(axis)] = None if held.all() else np.flatnonzero(held)
            positions.append(None if axis is None else found[id(axis)])
        if any(p is not None for p in positions):
            result[value.name or ""] = tuple(positions)
    return result


def _sliced(tensor: ir.TensorProtocol, positions: tuple[np.ndarray | None, ...]) -> ir.TensorProtocol:
    array = tensor.numpy()
    for axis, kept in enumerate(positions):
        if kept is not None:
            array = array.take(kept, axis)
    # Not np.ascontiguousarray, which makes a vector of a scalar.
    return ir.tensor(np.array(array, order="C"), dtype=tensor.dtype, name=tensor.name)
