"""The whole analysis of a model: shapes, atoms, cells; with other placements tried where channels ended up locked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Feed
from onnxcomp.ops.attributes import is_constant, qualified
from onnxcomp.ops.axes.relations import Shape
from onnxcomp.passes.prune.atoms import Atoms
from onnxcomp.passes.prune.cells import Structure, find_cells
from onnxcomp.passes.prune.engine import find_atoms
from onnxcomp.runtime.call_shapes import two_calls
from onnxcomp.runtime.session import SessionConfig

MAX_ROUNDS = 4

WEIGHTED: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "DeformConv": (1,),
    "ConvInteger": (1,),
    "MatMulInteger": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "Einsum": (0, 1, 2),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "com.microsoft:FusedConv": (1,),
    "com.microsoft:FusedGemm": (1,),
    "com.microsoft:FusedMatMul": (0, 1),
    "com.microsoft:Attention": (1,),
}
"""Operators that hold weights, and the inputs that may be one: what makes channels worth removing."""

Uses = tuple[tuple[str, bool, int], ...]


@dataclass(frozen=True)
class Place:
    """Where a cell lies on a weight.

    Args:
        weight: The weight; `axis`: of it.
        node: The node that uses it.
        contracted: The axis is summed away: the node reads the cell's channels, it does not make them.
        each: Positions that each class has there.
    """

    weight: ir.Value
    axis: int
    node: str
    contracted: bool
    each: int


@dataclass(frozen=True)
class Analysis:
    """What is known of a model's channels.

    Args:
        structure: Cells.
        shapes: Of every value in a typical call.
        weights: Weight → its uses (node, whether the axis is summed away, axis).
    """

    structure: Structure
    shapes: Mapping[str, Shape]
    weights: Mapping[ir.Value, Uses]

    @cached_property
    def places(self) -> tuple[tuple[Place, ...], ...]:
        """For each cell, where it lies."""
        found: list[list[Place]] = [[] for _ in self.structure.cells]
        for value, uses in self.weights.items():
            for node, contracted, axis in uses:
                for cell, each in self.structure.parts(self.structure.atoms.axes[value][axis]):
                    found[cell].append(Place(value, axis, node, contracted, each))
        return tuple(map(tuple, found))


def analyse(model: ir.Model, feed: Feed, config: SessionConfig) -> Analysis:
    """Finds the cells of a canonical model.

    Args:
        feed: A typical call.

    Raises:
        OnnxcompError: The model does not run on the feed.
    """
    shapes, others = two_calls(model, feed, config)
    return analyse_shapes(model, shapes, others)


def analyse_shapes(model: ir.Model, shapes: Mapping[str, Shape], others: Mapping[str, Shape]) -> Analysis:
    """As `analyse`, when the shapes of two calls are known.

    Where channels can be placed in several ways and the first leads into a lock (packed queries, keys and values;
    a group norm written as an instance norm), the next one is tried.
    """
    choices: dict[str, int] = {}
    best: Analysis | None = None
    rounds = 0
    while True:
        rounds += 1
        atoms = find_atoms(model, shapes, others, choices)
        weights = weight_uses(model, atoms)
        found = Analysis(find_cells(atoms, weights), shapes, weights)
        if best is None or _free(found) > _free(best):
            best = found
        locked = np.zeros(atoms.count, bool)
        for held, _ in atoms.locks:
            locked[atoms.root[held]] = True
        stuck = [
            name
            for name, (owners, ways) in atoms.coarse.items()
            if ways > 1 and choices.get(name, 0) + 1 < ways and locked[atoms.root[owners]].all()
        ]
        if not stuck or rounds == MAX_ROUNDS:
            return best
        choices |= {name: choices.get(name, 0) + 1 for name in stuck}


def weight_uses(model: ir.Model, atoms: Atoms) -> dict[ir.Value, Uses]:
    """Weights: constant operands of the operators that hold weights, with the tracked axes of each."""
    summed = {
        (node.name or "", slot.value, slot.axis)
        for contraction in atoms.contractions
        for node, slot in ((contraction.node, s) for s in contraction.slots)
    }
    result: dict[ir.Value, list[tuple[str, bool, int]]] = {}
    computed: set[ir.Value] = set()
    for node in model.graph:
        # What is computed from constants is a weight too: dequantised, transposed, scaled.
        if node.inputs and all(v is None or is_constant(v) or v in computed for v in node.inputs):
            computed.update(node.outputs)
        for index in WEIGHTED.get(qualified(node), ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is None or not (is_constant(value) or value in computed):
                continue
            for axis, held in enumerate(atoms.axes.get(value, ())):
                if held is not None:
                    contracted = (node.name or "", value, axis) in summed
                    result.setdefault(value, []).append((node.name or "", contracted, axis))
    return {value: tuple(uses) for value, uses in result.items()}


def _free(analysis: Analysis) -> int:
    return int((analysis.structure.cell >= 0).sum())
