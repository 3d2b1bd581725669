"""Atoms: positions of tracked axes, and what the rules say of them.

An atom is one position of one tracked axis of a value. What rules tie stays or goes together. An axis that no rule
claimed is not tracked, and whatever is tied to it is locked: unknown operators, graph inputs and outputs, softmax axes
and the like need no list of their own. Operators that pass an axis through hand on the same atoms, so that the cost is
the sum of the channel counts, not of the feature maps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.axes.relations import Adjustment, Slot

Axis = np.ndarray | None
"""Atom ids, int64 [positions]; None: not tracked."""


@dataclass(frozen=True)
class Lock:
    """Why atoms can't go. `node`: who asked for it, empty for the graph itself."""

    node: str
    op_type: str
    sentence: str


@dataclass(frozen=True)
class Contraction:
    """A sum over channels: atoms of the activation's axis, and the operands' slots."""

    node: ir.Node
    slots: tuple[Slot, ...]


@dataclass
class Atoms:
    """What the rules said of a graph.

    Args:
        axes: For each value its axes' atoms.
        count: Number of atoms.
        root: int [count]: representative of each atom's class.
        ties: int [n, 3]: two atoms that were tied, and the index of the node that tied them.
        locks: Locked atoms with the reason; the first one that names an atom is the reason shown.
        mixed: Atoms over which an operator takes statistics, by the node.
        adjustments: What each node needs when an axis gets shorter.
        unsupported: Nodes without a (working) rule, with the reason.
        coarse: Nodes at which positions of different channels had to be tied, and how many ways there were to do so.
    """

    axes: dict[ir.Value, list[Axis]] = field(default_factory=dict)
    count: int = 0
    root: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    ties: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    locks: list[tuple[np.ndarray, Lock]] = field(default_factory=list)
    mixed: list[tuple[np.ndarray, ir.Node]] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    adjustments: dict[ir.Node, list[Adjustment]] = field(default_factory=dict)
    unsupported: dict[str, Lock] = field(default_factory=dict)
    coarse: dict[str, tuple[np.ndarray, int]] = field(default_factory=dict)
    nodes: list[ir.Node] = field(default_factory=list)

    def of(self, slot: Slot) -> Axis:
        """Atoms of a slot, None where its axis is not tracked."""
        axes = self.axes.get(slot.value)
        axis = None if axes is None else axes[slot.axis]
        return axis if axis is None or slot.positions is None else axis[slot.positions]
