"""How the axes of an operator's inputs and outputs relate: the words in which the rules of this folder speak.

A rule reads one node and says which axes go together, index by index. Whatever a rule does not mention stays as it is:
the reader of the relations (pruning, for one) must take an axis that no relation names as one that has to stay whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, int_attribute, qualified

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Slot:
    """An axis of a value, or some positions of it in some order.

    Args:
        positions: int [n]; None for the whole axis in order.
    """

    value: ir.Value
    axis: int
    positions: np.ndarray | None = None

    def part(self, start: int, stop: int) -> Slot:
        """The positions from `start` to `stop`."""
        return Slot(self.value, self.axis, np.arange(start, stop))

    def at(self, positions: np.ndarray) -> Slot:
        return Slot(self.value, self.axis, positions)


@dataclass(frozen=True)
class Tied:
    """Index i of each slot is one channel: it stays or goes in all of them."""

    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Contracted:
    """Tied, and summed away: y = Σᵢ aᵢ·bᵢ. Without channel i the sum lacks one term.

    `slots`: the operands; the first is an activation, the second (if any) may be a weight.
    """

    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Mixed:
    """The operator takes statistics over these channels: without some of them the others change (approximate)."""

    slot: Slot


@dataclass(frozen=True)
class Fresh:
    """All positions of this axis of an output hold the same, so each is a channel of its own that nothing produces."""

    slot: Slot


@dataclass(frozen=True)
class Moved:
    """The operator only moves elements: run it on labels (see `movement`) to see where each channel goes."""


@dataclass(frozen=True)
class Count:
    """An attribute that holds a number of channels: `attribute` = channels of `slot` / `unit`.

    Args:
        entry: Which of its integers, where it is a list.
    """

    attribute: str
    slot: Slot
    unit: int = 1
    entry: int | None = None


@dataclass(frozen=True)
class Sizes:
    """An integer vector among the inputs that holds sizes: entry j is the size of `slots[j]` (None: not an axis)."""

    input: int
    slots: tuple[Slot | None, ...]


@dataclass(frozen=True)
class Parts:
    """The node cuts an axis into its outputs, by explicit sizes."""

    axis: int


@dataclass(frozen=True)
class Window:
    """The node takes a range of indices of some axes of its input (Slice)."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class Picks:
    """A constant input holds indices into an axis of input 0 (Gather)."""

    input: int
    axis: int


@dataclass(frozen=True)
class Pads:
    """A constant input holds how many elements are put before and behind axes of input 0."""

    input: int
    axes: tuple[int, ...]


Relation = Tied | Contracted | Mixed | Fresh | Moved | Count | Sizes | Parts | Window | Picks | Pads
Adjustment = Count | Sizes | Parts | Window | Picks | Pads
"""What must be written anew when an axis gets shorter."""


class Unsupported(Exception):
    """This form of the operator is not understood; the message says what it is."""


@dataclass(frozen=True)
class View:
    """A node with the shapes of its values.

    Args:
        shape_of: Concrete shape of a value; raises Unsupported when it is not known.
        fixed: Whether the size of an axis is the same in every call.
    """

    node: ir.Node
    shape_of: Callable[[ir.Value], Shape]
    fixed: Callable[[ir.Value, int], bool]

    def given(self, index: int) -> ir.Value | None:
        """Input `index`, None if it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def input(self, index: int) -> ir.Value:
        value = self.given(index)
        if value is None:
            raise Unsupported(f"input {index} is left out")
        return value

    def shape(self, index: int) -> Shape:
        return self.shape_of(self.input(index))

    def slot(self, index: int, axis: int) -> Slot:
        """An axis of an input; negative ones count from the end."""
        return self.at(self.input(index), axis)

    def out(self, axis: int, index: int = 0) -> Slot:
        return self.at(self.node.outputs[index], axis)

    def at(self, value: ir.Value, axis: int) -> Slot:
        rank = len(self.shape_of(value))
        if not -rank <= axis < rank:
            raise Unsupported(f"{value.name} has no axis {axis}")
        return Slot(value, axis % rank)

    def positions(self, slot: Slot) -> np.ndarray:
        """int [n]: which positions of its axis a slot holds."""
        return np.arange(self.shape_of(slot.value)[slot.axis]) if slot.positions is None else slot.positions

    def outputs(self) -> list[ir.Value]:
        """The outputs that somebody reads."""
        return [v for v in self.node.outputs if v.name and (v.uses() or v.is_graph_output())]

    def parts(self, attribute: str, whole: int, default: int = 1) -> int:
        """An attribute that says into how many equal parts `whole` channels fall.

        Raises:
            Unsupported: Not so many are there; a file can name any number.
        """
        count = int_attribute(self.node, attribute, default)
        if count < 1 or whole % count or count > whole:
            raise Unsupported(f"{whole} channels in {count} parts")
        return count

    def weight(self, index: int) -> np.ndarray:
        """A constant input.

        Raises:
            Unsupported: It is computed at run time.
        """
        array = constant(self.input(index))
        if array is None:
            raise Unsupported(f"input {index} is computed at run time")
        return array


Rule = Callable[[View], Iterable[Relation]]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Registers the rule of operators; names of other domains than ai.onnx are `domain:Operator`."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def relations(view: View) -> list[Relation]:
    """What is known of a node.

    Raises:
        Unsupported: No rule, or a form that the rule does not know; nothing may be changed around the node.
    """
    found = RULES.get(qualified(view.node))
    if found is None:
        raise Unsupported("there is no axis rule for this operator")
    return list(found(view))


def passed(view: View, index: int, axes: Sequence[int]) -> Iterable[Tied]:
    """The axes of an input that all outputs of the same rank have too."""
    for axis in axes:
        yield Tied((view.slot(index, axis), *(view.at(out, axis) for out in view.outputs())))
