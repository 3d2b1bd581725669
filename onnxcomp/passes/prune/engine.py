"""The engine: reads a graph once, in topological order, and interprets what the axis rules say of each node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import bodies, int_attribute, is_constant, qualified
from onnxcomp.ops.axes import relations as says
from onnxcomp.ops.axes.relations import Shape, Slot, Unsupported, View
from onnxcomp.passes.prune.atoms import Atoms, Axis, Contraction, Lock
from onnxcomp.passes.prune.components import components
from onnxcomp.passes.prune.labels import Nowhere, Placement, placed

Shapes = Mapping[str, Shape]


def find_atoms(model: ir.Model, shapes: Shapes, others: Shapes, choices: Mapping[str, int]) -> Atoms:
    """Reads the whole graph once, in topological order.

    Args:
        model: Canonical model.
        shapes: Shape of each value in one call; `others`: in another call, with other dynamic sizes. Axes whose size
            changes are never tracked.
        choices: Node → which of several ways to place its channels (see `labels.placed`).
    """
    engine = _Engine(shapes, others, choices)
    for index, node in enumerate(model.graph):
        engine.visit(node, index)
    engine.close(model)
    return engine.finish(list(model.graph))


LONGEST = 1 << 22
"""Positions of an axis that are told apart; a file may declare any number."""


class _Engine:
    def __init__(self, shapes: Shapes, others: Shapes, choices: Mapping[str, int]) -> None:
        self.found = Atoms()
        self._shapes, self._others, self._choices = shapes, others, choices
        self._sizes: dict[ir.Value, Shape] = {}
        self._ties: list[np.ndarray] = []
        self._node: ir.Node | None = None
        self._index = 0
        self._claimed: set[tuple[int, int]] = set()
        self._held: set[tuple[int, int]] = set()
        self._constants: list[tuple[ir.Node, ir.Value, frozenset[int]]] = []

    # What a rule may ask

    def shape_of(self, value: ir.Value) -> Shape:
        shape = self._sizes.get(value)
        if shape is None:
            if value.const_value is not None and is_constant(value):
                shape = tuple(int(d) for d in value.const_value.shape.numpy())
            else:
                shape = self._shapes.get(value.name or "")
            if shape is None:
                raise Unsupported(f"the shape of {value.name} is not known")
            if max(shape, default=0) > LONGEST:
                raise Unsupported(f"an axis of {value.name} has more than {LONGEST:,} positions")
            self._sizes[value] = shape
        return shape

    def fixed(self, value: ir.Value, axis: int) -> bool:
        if is_constant(value):
            return True
        one, other = self._shapes.get(value.name or ""), self._others.get(value.name or "")
        return one is not None and other is not None and len(one) == len(other) and one[axis] == other[axis]

    # One node

    def visit(self, node: ir.Node, index: int) -> None:
        self._node, self._index, self._claimed, self._held = node, index, set(), set()
        view = View(node, self.shape_of, self.fixed)
        try:
            if next(bodies(node), None) is not None:
                raise Unsupported("it has a body, which is left as it is")
            for relation in says.relations(view):
                self._interpret(view, relation)
        except Unsupported as reason:
            self._give_up(node, str(reason))
        # A rule that does not fit the node (a malformed model) must not end the analysis.
        except (ArithmeticError, IndexError, ValueError, AttributeError, KeyError, TypeError) as error:
            self._give_up(node, f"its axis rule does not fit: {error}")
        for value in dict.fromkeys(v for v in node.inputs if v is not None):
            if is_constant(value):  # another node may claim more of its axes later
                own = frozenset(axis for key, axis in self._claimed if key == id(value))
                self._constants.append((node, value, own))
            else:
                self._lock_unclaimed(value)

    def _interpret(self, view: View, relation: says.Relation) -> None:
        match relation:
            case says.Tied(slots):
                self._tie(slots)
            case says.Contracted(slots):
                self._tie(slots)
                self.found.contractions.append(Contraction(view.node, slots))
            case says.Mixed(slot):
                self._claim(slot)
                atoms = self.found.of(slot)
                if atoms is not None:
                    self.found.mixed.append((atoms, view.node))
            case says.Fresh(slot):
                if self.found.of(slot) is None and self.fixed(slot.value, slot.axis):
                    self._set(slot.value, slot.axis, self._new(self.shape_of(slot.value)[slot.axis]))
            case says.Moved():
                self._move(view)
            case _:
                self.found.adjustments.setdefault(view.node, []).append(relation)

    def _tie(self, slots: Sequence[Slot]) -> None:
        """Ties slots of equal length; an output that has no atoms yet gets those of the first slot that has."""
        slots = [s for s in slots if self._length(s) > 1]
        for slot in slots:
            self._claim(slot)
        lengths = {self._length(s) for s in slots}
        if len(lengths) > 1:
            raise Unsupported(f"axes of {sorted(lengths)} can't be one")
        inputs = [s for s in slots if not self._is_new(s) or self.found.of(s) is not None]
        first = next((a for s in inputs if (a := self.found.of(s)) is not None), None)
        if first is None:
            # Another tie of the node (to its bias, say) must not free what comes from a whole input.
            if inputs:
                self._held.update((id(s.value), s.axis) for s in slots if s not in inputs)
            return
        for slot in inputs:
            atoms = self.found.of(slot)
            if atoms is None:
                self._lock(first, f"{slot.value.name} has to stay whole along axis {slot.axis}")
            elif atoms is not first:
                self._join(first, atoms)
        for slot in slots:
            if slot not in inputs:
                self._give(slot, first)

    def _give(self, slot: Slot, atoms: np.ndarray) -> None:
        """Atoms for an output of this node; where some positions are given only, the axis gets new ones."""
        if self.found.of(Slot(slot.value, slot.axis)) is None:
            if not self.fixed(slot.value, slot.axis):
                self._lock(atoms, f"the size of axis {slot.axis} of {slot.value.name} changes from call to call")
                return
            size = self.shape_of(slot.value)[slot.axis]
            whole = slot.positions is None or (
                len(slot.positions) == size and bool((slot.positions == np.arange(size)).all())
            )
            self._set(slot.value, slot.axis, atoms if whole else self._new(size))
        given = self.found.of(slot)
        if given is not None and given is not atoms:
            self._join(given, atoms)
        if (id(slot.value), slot.axis) in self._held:
            self._lock(atoms, f"an operand that makes axis {slot.axis} of {slot.value.name} has to stay whole")

    def _move(self, view: View) -> None:
        """Runs the node on labels, for each tracked axis of its data inputs."""
        node = view.node
        joined = node.op_type == "Concat"
        data = [v for v in (node.inputs if joined else node.inputs[:1]) if v is not None]
        for axis in range(len(self.shape_of(data[0]))):
            owners = [self._whole(value, axis) for value in data]
            for value in data:
                self._claimed.add((id(value), axis))
            known = [atoms for atoms in owners if atoms is not None]
            if not known:
                continue
            try:
                along = joined and axis == int_attribute(node, "axis", 0) % len(self.shape_of(data[0]))
                if along:
                    labelled = np.concatenate(
                        [self._locked(v, axis) if a is None else a for v, a in zip(data, owners, strict=True)]
                    )
                else:
                    self._tie([Slot(v, axis) for v in data])
                    labelled = known[0]
                self._place(view, axis, labelled)
            except Unsupported as reason:
                for atoms in known:
                    self._lock(atoms, str(reason))

    def _place(self, view: View, axis: int, owners: np.ndarray) -> None:
        """Gives the outputs of a moving operator their atoms."""
        for out, placement in zip(
            view.node.outputs, placed(view, axis, self._choices.get(view.node.name or "", 0)), strict=True
        ):
            if isinstance(placement, Nowhere):
                self._lock(owners[placement.labels], placement.sentence)
            elif not out.name:
                self._lock(owners[placement.labels], "an output without a name")
            else:
                self._put(view, out, owners, placement)

    def _put(self, view: View, out: ir.Value, owners: np.ndarray, placement: Placement) -> None:
        if self._whole(out, placement.axis) is not None:
            self._lock(owners[placement.labels], f"two axes come together in axis {placement.axis} of {out.name}")
            return
        if not self.fixed(out, placement.axis):
            self._lock(owners[placement.labels], f"the size of axis {placement.axis} of {out.name} changes")
            return
        atoms = np.empty(len(placement.first), np.int64)
        padding = placement.first < 0
        atoms[~padding] = owners[placement.first[~padding]]
        atoms[padding] = self._new(int(padding.sum()))
        if len(placement.pairs):
            self._join(owners[placement.pairs[:, 0]], owners[placement.pairs[:, 1]])
            self.found.coarse[view.node.name or ""] = (owners, placement.ways)
        self._set(out, placement.axis, atoms)

    # Atoms

    def _new(self, count: int) -> np.ndarray:
        start = self.found.count
        self.found.count += count
        return np.arange(start, start + count)

    def _whole(self, value: ir.Value, axis: int) -> Axis:
        """Atoms of an axis; a constant gets its own when a rule first asks."""
        axes = self.found.axes.get(value)
        if axes is None:
            axes = self.found.axes.setdefault(value, [None] * len(self.shape_of(value)))
        if axes[axis] is None and is_constant(value) and not value.is_graph_output():
            size = self.shape_of(value)[axis]
            axes[axis] = self._new(size) if size > 1 else None
        return axes[axis]

    def _claim(self, slot: Slot) -> None:
        self._claimed.add((id(slot.value), slot.axis))
        self._whole(slot.value, slot.axis)

    def _set(self, value: ir.Value, axis: int, atoms: np.ndarray) -> None:
        if self.shape_of(value)[axis] != len(atoms):
            raise Unsupported(
                f"axis {axis} of {value.name} has {self.shape_of(value)[axis]} positions, not {len(atoms)}"
            )
        self._whole(value, axis)
        self.found.axes[value][axis] = atoms

    def _length(self, slot: Slot) -> int:
        return self.shape_of(slot.value)[slot.axis] if slot.positions is None else len(slot.positions)

    def _is_new(self, slot: Slot) -> bool:
        return slot.value.producer() is self._node

    def _locked(self, value: ir.Value, axis: int) -> np.ndarray:
        atoms = self._new(self.shape_of(value)[axis])
        self._lock(atoms, f"{value.name} has to stay whole along axis {axis}")
        return atoms

    # Ties and locks

    def _join(self, a: np.ndarray, b: np.ndarray) -> None:
        self._ties.append(np.stack([a, b, np.full(len(a), self._index)], axis=1))

    def _lock(self, atoms: np.ndarray, sentence: str) -> None:
        node = self._node
        assert node is not None
        self.found.locks.append((atoms, Lock(node.name or "", qualified(node), sentence)))

    def _lock_unclaimed(self, value: ir.Value) -> None:
        for axis, atoms in enumerate(self.found.axes.get(value, ())):
            if atoms is not None and (id(value), axis) not in self._claimed:
                self._lock(atoms, self._reason(f"it needs all of axis {axis} of {value.name}"))

    def _reason(self, otherwise: str) -> str:
        """Why the node at hand locks: that it is not understood, if so."""
        lock = self.found.unsupported.get(self._node.name or "") if self._node is not None else None
        return otherwise if lock is None else lock.sentence

    def _give_up(self, node: ir.Node, reason: str) -> None:
        """Everything that the node touches stays: its inputs as they are, its outputs not tracked."""
        lock = Lock(node.name or "", qualified(node), reason)
        self.found.unsupported[node.name or ""] = lock
        self.found.adjustments.pop(node, None)
        self._claimed.clear()
        for value in node.outputs:
            for atoms in self.found.axes.get(value, ()):
                if atoms is not None:
                    self.found.locks.append((atoms, lock))
            self.found.axes.pop(value, None)

    # The graph itself

    def close(self, model: ir.Model) -> None:
        """Outputs, and what bodies of If, Loop and Scan read, stay as they are; so do unclaimed axes of constants."""
        for node, value, claimed in self._constants:
            self._node = node
            for axis, atoms in enumerate(self.found.axes.get(value, ())):
                if atoms is not None and axis not in claimed:
                    self._lock(atoms, self._reason(f"it needs all of axis {axis} of {value.name}"))
        for value in model.graph.outputs:
            self._keep(value, Lock("", "graph", f"{value.name} is an output of the model"))
        for value, node in _captured(model.graph):
            self._keep(value, Lock(node.name or "", qualified(node), f"its body reads {value.name}"))

    def _keep(self, value: ir.Value, lock: Lock) -> None:
        for atoms in self.found.axes.get(value, ()):
            if atoms is not None:
                self.found.locks.append((atoms, lock))

    def finish(self, nodes: list[ir.Node]) -> Atoms:
        found = self.found
        found.nodes = nodes
        if self._ties:
            found.ties = np.concatenate(self._ties)
        found.root = components(found.count, found.ties[:, 0], found.ties[:, 1])
        return found


def _captured(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.Node]]:
    """Values of the graph that a body reads, with the node that has the body."""
    for node in graph:
        for body in bodies(node):
            read = (value for inner in body.all_nodes() for value in inner.inputs)
            for value in (*read, *body.outputs):
                if value is not None and value.graph is graph:
                    yield value, node
