"""What in a node or its constants names a number of channels, written anew: a function for each kind of adjustment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, int_attribute, new_initializer
from onnxcomp.ops.axes.movement import taken
from onnxcomp.ops.axes.relations import Adjustment, Count, Pads, Parts, Picks, Shape, Sizes, Window

Positions = np.ndarray | None


@dataclass(frozen=True)
class Scene:
    """The graph that is edited, and what stays of each value (see `rewrite.Kept`)."""

    graph: ir.Graph
    kept: Mapping[str, tuple[Positions, ...]]
    shapes: Mapping[str, Shape]
    taken: set[str]

    def positions(self, value: ir.Value | None, axis: int) -> Positions:
        held = None if value is None else self.kept.get(value.name or "")
        return None if held is None or axis >= len(held) else held[axis]

    def old_size(self, value: ir.Value | None, axis: int) -> int:
        array = constant(value)
        return array.shape[axis] if array is not None else self.shapes[(value and value.name) or ""][axis]

    def new_size(self, value: ir.Value, axis: int) -> int:
        positions = self.positions(value, axis)
        return self.old_size(value, axis) if positions is None else len(positions)

    def free_name(self, base: str) -> str:
        name, count = base, 1
        while name in self.taken:
            name, count = f"{base}.{count}", count + 1
        self.taken.add(name)
        return name

    def constant(self, node: ir.Node, index: int, array: np.ndarray) -> None:
        """Gives the node an input of its own: shape vectors are often shared."""
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        value = node.inputs[index]
        name = f"{node.name}.{index}" if value is None else f"{value.name}.pruned"
        node.replace_input_with(index, new_initializer(self.graph, name, array))


@singledispatch
def adjust(adjustment: Adjustment, node: ir.Node, original: ir.Node, scene: Scene) -> None:
    """Edits `node`, the counterpart of `original`."""
    raise NotImplementedError(type(adjustment).__name__)


@adjust.register
def _(adjustment: Count, node: ir.Node, original: ir.Node, scene: Scene) -> None:
    slot = adjustment.slot
    positions = scene.positions(slot.value, slot.axis)
    attribute = node.attributes.get(adjustment.attribute)
    if positions is None or attribute is None:
        return
    count = len(positions) if slot.positions is None else int(np.isin(slot.positions, positions).sum())
    if adjustment.entry is None:
        node.attributes[adjustment.attribute] = ir.AttrInt64(adjustment.attribute, count // adjustment.unit)
        return
    entries = list(attribute.as_ints())
    entries[adjustment.entry] = count // adjustment.unit
    node.attributes[adjustment.attribute] = ir.AttrInt64s(adjustment.attribute, entries)


@adjust.register
def _(adjustment: Sizes, node: ir.Node, original: ir.Node, scene: Scene) -> None:
    """Constant: −1 stays, other entries of a cut axis are the new size. Computed: masked and added to.

    A 0 that copied the size of an input axis which is cut now, where the output's is not, becomes the old size.
    """
    changed = {
        j: len(p)
        for j, slot in enumerate(adjustment.slots)
        if slot is not None and (p := scene.positions(slot.value, slot.axis)) is not None
    }
    source = original.inputs[adjustment.input]
    sizes = constant(source)
    if sizes is None:
        if changed and source is not None:
            _patch(node, adjustment.input, len(adjustment.slots), changed, scene)
        return
    wanted = sizes.copy()
    for j, size in enumerate(sizes):
        if j in changed and size != -1 and not (original.op_type == "Expand" and size == 1):
            wanted[j] = changed[j]
        elif size == 0 and j not in changed and scene.positions(original.inputs[0], j) is not None:
            wanted[j] = scene.old_size(original.inputs[0], j)
    if (wanted != sizes).any():
        scene.constant(node, adjustment.input, wanted)


@adjust.register
def _(adjustment: Parts, node: ir.Node, original: ir.Node, scene: Scene) -> None:
    if scene.positions(original.inputs[0], adjustment.axis) is None:
        return
    sizes = [scene.new_size(value, adjustment.axis) for value in original.outputs]
    node.attributes.pop("num_outputs", None)
    node.attributes.pop("split", None)
    scene.constant(node, 1, np.asarray(sizes, np.int64))


@adjust.register
def _(adjustment: Window, node: ir.Node, original: ir.Node, scene: Scene) -> None:
    """[start, end) → [kept before start, kept before end); a Gather takes the channels of a slice with a step."""
    bounds = [constant(v) for v in original.inputs[1:3]]
    steps = constant(original.inputs[4]) if len(original.inputs) > 4 else None
    starts, ends, steps = (None if b is None else b.copy() for b in (*bounds, steps))
    touched = False
    for j, axis in enumerate(adjustment.axes):
        positions = scene.positions(original.inputs[0], axis)
        if positions is None or starts is None or ends is None:
            continue
        size = scene.old_size(original.inputs[0], axis)
        if steps is not None and steps[j] != 1:
            wanted = np.asarray(taken(int(starts[j]), int(ends[j]), int(steps[j]), size))
            _gathered(node, axis, np.searchsorted(positions, wanted[np.isin(wanted, positions)]), scene)
            starts[j], ends[j], steps[j] = 0, np.iinfo(ends.dtype).max, 1
            scene.constant(node, 4, steps)
        for vector in (starts, ends):
            bound = int(vector[j])
            bound = min(max(bound + size if bound < 0 else bound, 0), size)
            vector[j] = int(np.searchsorted(positions, bound))
        touched = True
    if touched and starts is not None and ends is not None:
        scene.constant(node, 1, starts)
        scene.constant(node, 2, ends)


def _gathered(node: ir.Node, axis: int, indices: np.ndarray, scene: Scene) -> None:
    """Takes `indices` of an axis of input 0 first."""
    source = node.inputs[0]
    assert source is not None
    wanted = new_initializer(scene.graph, f"{node.name}.indices", indices.astype(np.int64))
    gather = ir.node("Gather", [source, wanted], {"axis": axis}, name=scene.free_name(f"{node.name}.gather"))
    gather.outputs[0].name, gather.outputs[0].type = scene.free_name(f"{source.name}.{node.name}"), source.type
    scene.graph.insert_before(node, [gather])
    node.replace_input_with(0, gather.outputs[0])


@adjust.register
def _(adjustment: Picks, node: ir.Node, original: ir.Node, scene: Scene) -> None:
    """Indices of what stays, counted among what stays."""
    positions = scene.positions(original.inputs[0], adjustment.axis)
    indices = constant(original.inputs[adjustment.input])
    if positions is None or indices is None:
        return
    size = scene.old_size(original.inputs[0], adjustment.axis)
    wanted = np.where(indices < 0, indices + size, indices)
    if wanted.ndim:
        wanted = wanted[np.isin(wanted, positions)]
    scene.constant(node, adjustment.input, np.asarray(np.searchsorted(positions, wanted), indices.dtype))


@adjust.register
def _(adjustment: Pads, node: ir.Node, original: ir.Node, scene: Scene) -> None:
    """As many before and behind as stay of the padded positions."""
    pads = constant(original.inputs[adjustment.input])
    if pads is None:
        return
    wanted, count = pads.copy(), len(adjustment.axes)
    for j, axis in enumerate(adjustment.axes):
        positions = scene.positions(original.outputs[0], axis)
        if positions is None:
            continue
        size = scene.old_size(original.outputs[0], axis)
        wanted[j] = int((positions < pads[j]).sum())
        wanted[j + count] = int((positions >= size - pads[j + count]).sum())
    if (wanted != pads).any():
        scene.constant(node, adjustment.input, wanted)


def original_shape(node: ir.Node, scene: Scene) -> None:
    """Makes a Shape of a pruned value give the sizes that it gave before, so that arithmetic on it stays as it was;
    the nodes that take sizes from it are adjusted by themselves."""
    value = node.inputs[0]
    held = None if value is None else scene.kept.get(value.name or "")
    if value is None or held is None:
        return
    start, end = int_attribute(node, "start", 0), int_attribute(node, "end", len(held))
    window = range(len(held))[start:end]
    old = {j: scene.old_size(value, axis) for j, axis in enumerate(window) if held[axis] is not None}
    if old:
        result = node.outputs[0]
        uses = tuple(result.uses())
        nodes = _masked(result, len(window), old, scene)
        scene.graph.insert_after(node, nodes)
        for use in uses:
            use.node.replace_input_with(use.idx, nodes[-1].outputs[0])


def _patch(node: ir.Node, index: int, length: int, changed: dict[int, int], scene: Scene) -> None:
    source = node.inputs[index]
    assert source is not None
    nodes = _masked(source, length, changed, scene)
    scene.graph.insert_before(node, nodes)
    node.replace_input_with(index, nodes[-1].outputs[0])


def _masked(source: ir.Value, length: int, sizes: dict[int, int], scene: Scene) -> list[ir.Node]:
    """sizes' = sizes ⊙ mask + new: right whether an entry was a number or came from a shape."""
    mask, new = np.ones(length, np.int64), np.zeros(length, np.int64)
    for j, size in sizes.items():
        mask[j], new[j] = 0, size
    name = f"{source.name}.pruned"
    product = ir.node("Mul", [source, new_initializer(scene.graph, f"{name}.mask", mask)])
    total = ir.node("Add", [product.outputs[0], new_initializer(scene.graph, f"{name}.sizes", new)])
    for node, suffix in ((product, "masked"), (total, "whole")):
        node.name = node.outputs[0].name = scene.free_name(f"{name}.{suffix}")
        node.outputs[0].type = source.type
    return [product, total]
