"""From atoms to cells: classes of channels that go together, and the classes that are alike.

A class is a set of tied atoms. Classes with the same number of atoms on the same axes are interchangeable: they form a
cell, and how many classes a cell keeps is the only freedom that the shapes have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import is_constant
from onnxcomp.passes.prune.atoms import Atoms, Axis, Lock


@dataclass(frozen=True)
class Cell:
    """Channels that are chosen among each other.

    Args:
        name: Of the first node with a weight that makes them, and a number if it makes several.
        size: Classes.
        exact: No operator takes statistics over them.
        producers, consumers: Nodes whose weights lose outputs; nodes whose weights lose inputs.
        coupled_by: Nodes that tie channels of different weights to each other.
    """

    name: str
    size: int
    exact: bool
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    coupled_by: tuple[str, ...] = ()


@dataclass
class Structure:
    """The cells of a model, and where they lie.

    Args:
        atoms: What they were found from.
        cells: In the order of the graph.
        number: int [atoms]: class of an atom inside its cell; `cell`: the cell, −1 for a locked or idle atom.
    """

    atoms: Atoms
    cells: tuple[Cell, ...]
    cell: np.ndarray
    number: np.ndarray

    @cached_property
    def index(self) -> dict[str, int]:
        return {cell.name: i for i, cell in enumerate(self.cells)}

    def membership(self, atoms: Axis) -> tuple[np.ndarray, np.ndarray] | None:
        """(cell, class inside the cell) at each position of an axis; None where it is not tracked."""
        return None if atoms is None else (self.cell[atoms], self.number[atoms])

    def parts(self, atoms: Axis) -> tuple[tuple[int, int], ...]:
        """(cell, positions of each of its classes) for the cells that lie on an axis."""
        if atoms is None:
            return ()
        cells, counts = np.unique(self.cell[atoms], return_counts=True)
        found = zip(cells.tolist(), counts.tolist(), strict=True)
        return tuple((cell, count // self.cells[cell].size) for cell, count in found if cell >= 0)

    def kept_atoms(self, keep: Mapping[str, np.ndarray]) -> np.ndarray:
        """bool [atoms]: what stays, when each named cell keeps the classes `keep[name]`."""
        kept = np.ones(len(self.cell), bool)
        for name, classes in keep.items():
            index = self.index[name]
            stays = np.zeros(self.cells[index].size, bool)
            stays[classes] = True
            inside = self.cell == index
            kept[inside] = stays[self.number[inside]]
        return kept

    def lock_of(self, atoms: Axis) -> Lock | None:
        """Why (some of) an axis can't be cut: the first lock that hit one of its classes."""
        if atoms is None:
            return None
        for root in self.atoms.root[atoms]:
            if (index := self._first_lock.get(int(root))) is not None:
                return self.atoms.locks[index][1]
        return None

    @cached_property
    def _first_lock(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for index, (atoms, _) in enumerate(self.atoms.locks):
            for root in np.unique(self.atoms.root[atoms]):
                found.setdefault(int(root), index)
        return found


def find_cells(atoms: Atoms, weights: Mapping[ir.Value, tuple[tuple[str, bool, int], ...]]) -> Structure:
    """Groups the classes that may go.

    Args:
        weights: Weight → (node, whether the axis is summed away, axis) for each use: what makes a cell worth cutting.
    """
    root, count = atoms.root, atoms.count
    locked = np.zeros(count, bool)
    for held, _ in atoms.locks:
        locked[root[held]] = True
    mixed = np.zeros(count, bool)
    for held, _ in atoms.mixed:
        mixed[root[held]] = True
    useful = np.zeros(count, bool)
    for value, uses in weights.items():
        for _, _, axis in uses:
            own = atoms.axes[value][axis]
            if own is not None:
                useful[root[own]] = True
    signature = _signatures(atoms)
    free = np.unique(root[useful[root] & ~locked[root]]) if count else np.zeros(0, np.int64)
    _, group = np.unique(signature[free], return_inverse=True)
    cell, number = np.full(count, -1), np.zeros(count, np.int64)
    # Cells in the order in which their first atom was made, that is in the order of the graph.
    order = np.unique(group, return_index=True)[1].argsort() if len(free) else np.zeros(0, np.int64)
    members = [free[group == g] for g in order]
    members = [m for m in members if len(m) > 1]
    for index, roots in enumerate(members):
        cell[roots], number[roots] = index, np.arange(len(roots))
    cell, number = cell[root] if count else cell, number[root] if count else number
    names = _names(atoms, weights, cell, len(members))
    coupled = _coupling(atoms, cell, weights, len(members))
    cells = tuple(
        Cell(name, len(roots), not bool(mixed[roots].any()), producers, consumers, tuple(coupled[i]))
        for i, (roots, (name, producers, consumers)) in enumerate(zip(members, names, strict=True))
    )
    return Structure(atoms, cells, cell, number)


def _signatures(atoms: Atoms) -> np.ndarray:
    """uint64 [atoms]: equal for classes with equally many atoms on each axis. Axes are numbered by random words."""
    rng = np.random.default_rng(0)
    result = np.zeros(atoms.count, np.uint64)
    seen: set[int] = set()
    for axes in atoms.axes.values():
        for axis in axes:
            if axis is not None and id(axis) not in seen:
                seen.add(id(axis))
                np.add.at(result, atoms.root[axis], rng.integers(1, 2**63, dtype=np.uint64))
    return result


def _names(
    atoms: Atoms, weights: Mapping[ir.Value, tuple[tuple[str, bool, int], ...]], cell: np.ndarray, count: int
) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """(name, producers, consumers) of each cell."""
    makes: list[dict[str, None]] = [{} for _ in range(count)]
    reads: list[dict[str, None]] = [{} for _ in range(count)]
    for value, uses in weights.items():
        for node, contracted, axis in uses:
            held = atoms.axes[value][axis]
            for index in np.unique(cell[held]) if held is not None else ():
                if index >= 0:
                    (reads if contracted else makes)[index][node] = None
    taken: dict[str, int] = {}
    result = []
    for made, read in zip(makes, reads, strict=True):
        base = next(iter(made), None) or next(iter(read), "channels")
        taken[base] = taken.get(base, 0) + 1
        name = base if taken[base] == 1 else f"{base}#{taken[base]}"
        result.append((name, tuple(made), tuple(read)))
    return result


def _coupling(
    atoms: Atoms, cell: np.ndarray, weights: Mapping[ir.Value, tuple[tuple[str, bool, int], ...]], count: int
) -> list[list[str]]:
    """Nodes without weights of their own that tied channels of a cell."""
    result: list[list[str]] = [[] for _ in range(count)]
    own = {node for uses in weights.values() for node, _, _ in uses}
    if not len(atoms.ties):
        return result
    seen = np.zeros((count, len(atoms.nodes)), bool)
    inside = cell[atoms.ties[:, 0]]
    seen[inside[inside >= 0], atoms.ties[inside >= 0, 2]] = True
    for index, node in np.argwhere(seen):
        name = atoms.nodes[node].name or ""
        constants_only = all(is_constant(v) for v in atoms.nodes[node].inputs[1:] if v is not None)
        if name not in own and not constants_only:
            result[index].append(name)
    return result
