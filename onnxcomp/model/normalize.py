"""The canonical form that every pass starts from.

Functions inlined, Constant nodes lifted to initializers, initializers taken out of the graph inputs of old models, opset ≥ 13 where it can
be lifted, every node named, dead nodes removed, topological order. No arithmetic on weights: that is `simplify`.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from onnxcomp.model import shapes
from onnxcomp.ops import upgrade
from onnxcomp.ops.limits import minimum_ir_version

logger = logging.getLogger("onnxcomp")


@dataclass(frozen=True)
class Normalized:
    """The canonical model, and what could not be had (sentences for the report)."""

    model: ir.Model
    notes: tuple[str, ...]


def normalize(model: ir.Model) -> Normalized:
    """Returns the canonical form of `model`; the argument is not changed.

    Names of the graph's inputs and outputs stay. Weights are shared with the argument, not copied.
    """
    result, notes = _lifted(clone(model))
    passes: list[ir.passes.InPlacePass] = []
    if result.functions:
        passes += [common.InlinePass(), common.RemoveUnusedFunctionsPass()]
    passes += [
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        common.RemoveUnusedNodesPass(),
        common.TopologicalSortPass(),
    ]
    overridable = [v.name for v in result.graph.inputs if v.name in result.graph.initializers]
    for step in passes:
        step(result)
    if overridable and model.ir_version >= 4:
        notes.append(
            f"{len(overridable)} inputs had a default value in the file (initializers among the inputs, {overridable[0]} for one); "
            "they are constants now"
        )
    result.ir_version = max(result.ir_version, minimum_ir_version(result.opset_imports.get("", 13)), 4)
    name_nodes(result)
    shapes.refresh(result)
    return Normalized(result, tuple(notes))


def clone(model: ir.Model) -> ir.Model:
    """A copy of the graph that shares the weights."""
    copied = model.clone()
    copied.opset_imports.update(model.opset_imports)
    copied.meta.update(copy.copy(model.meta))
    return copied


def _lifted(model: ir.Model) -> tuple[ir.Model, list[str]]:
    """Lifts the opset to 13, or returns the model as it was with the reason."""
    opset = model.opset_imports.get("", upgrade.TARGET_OPSET)
    if opset >= upgrade.TARGET_OPSET:
        return model, []
    candidate = clone(model)
    # The rules read ranks and dtypes; old exporters often leave them out.
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(candidate)
    shapes.refresh(candidate)
    try:
        upgrade.lift(candidate)
    except upgrade.CannotLift as error:
        return model, [f"opset {opset} could not be lifted to {upgrade.TARGET_OPSET}: {error}"]
    return candidate, []


def name_nodes(model: ir.Model) -> None:
    """Gives every node a unique name; names that are there and unique stay."""
    taken: set[str] = set()
    unnamed: list[ir.Node] = []
    for node in model.graph.all_nodes():
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            unnamed.append(node)
    for node in unnamed:
        base = f"{node.op_type}_{node.outputs[0].name}" if node.outputs and node.outputs[0].name else node.op_type
        name, count = base, 1
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        node.name = name
        taken.add(name)
