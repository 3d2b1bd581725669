"""Rules that lift a model from opset 7–12 to opset 13, where per-channel DequantizeLinear begins.

Only changes of meaning or form have a rule. Every other operator change between opsets 7 and 13 widened types or allowed negative axes,
and needs nothing (list made from `onnx.defs.get_all_schemas_with_history()`; the list is closed, old opsets don't change any more).
Source of each rule: the "Version" sections of the operator's entry in onnx/docs/Changelog.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, int_attribute, ints_attribute

TARGET_OPSET = 13
OLDEST_OPSET = 7


class CannotLift(Exception):
    """This node has no equivalent at opset 13; the message says why."""


Rule = Callable[[ir.Node], None]
"""Edits one node in place (inputs, attributes, neighbours) so that it means the same at the rule's opset."""

RULES: dict[tuple[str, int], Rule] = {}


def rule(op_type: str, opset: int) -> Callable[[Rule], Rule]:
    """Registers the edit that `op_type` needs when a model passes `opset` on the way up."""

    def register(function: Rule) -> Rule:
        if (op_type, opset) in RULES:
            raise ValueError(f"two rules for {op_type} at opset {opset}")
        RULES[op_type, opset] = function
        return function

    return register


def lift(model: ir.Model) -> bool:
    """Lifts `model` in place to opset 13; True if it was older.

    Raises:
        CannotLift: naming the node and the reason. The model is then half lifted: work on a clone.
    """
    opset = model.opset_imports.get("", TARGET_OPSET)
    if opset >= TARGET_OPSET:
        return False
    if opset < OLDEST_OPSET:
        raise CannotLift(f"opset {opset} is older than {OLDEST_OPSET}, whose broadcasting rules differ")
    for graph in (model.graph, *_subgraphs(model.graph)):
        for node in tuple(graph):
            if node.domain not in ("", "ai.onnx"):
                continue
            for step in range(opset + 1, TARGET_OPSET + 1):
                edit = RULES.get((node.op_type, step))
                if edit is not None:
                    edit(node)
    model.opset_imports[""] = TARGET_OPSET
    return True


def _subgraphs(graph: ir.Graph) -> list[ir.Graph]:
    return [g for g in graph.subgraphs() if g is not graph]


def _constant_input(node: ir.Node, array: np.ndarray, name: str) -> ir.Value:
    """A new initializer in the node's graph, named after the node's first output."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    base = f"{node.outputs[0].name}.{name}"
    unique, count = base, 1
    while unique in graph.initializers:
        unique, count = f"{base}.{count}", count + 1
    value = ir.val(unique, const_value=ir.tensor(array, name=unique))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    return value


def _append_inputs(node: ir.Node, *arrays: tuple[str, np.ndarray | None]) -> None:
    start = len(node.inputs)
    node.resize_inputs(start + len(arrays))
    for index, (name, array) in enumerate(arrays, start):
        node.replace_input_with(index, None if array is None else _constant_input(node, array, name))


def _attributes_to_inputs(node: ir.Node, names: Sequence[str]) -> None:
    """Moves int-list attributes to trailing int64 inputs; a missing attribute leaves the optional input out."""
    present = [(n, np.asarray(ints_attribute(node, n, ()), np.int64)) for n in names if n in node.attributes]
    for name, _ in present:
        node.attributes.pop(name)
    _append_inputs(node, *present)


def _rank(node: ir.Node) -> int | None:
    shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    return None if shape is None else shape.rank()


@rule("BatchNormalization", 9)
def _batch_normalization_9(node: ir.Node) -> None:
    """`spatial` was removed; 1 (the default) is what remains."""
    if int_attribute(node, "spatial", 1) != 1:
        raise CannotLift("BatchNormalization with spatial=0 has no successor")
    node.attributes.pop("spatial", None)


@rule("Scan", 9)
def _scan_9(node: ir.Node) -> None:
    raise CannotLift("Scan of opset 8 has a batch axis that its successor does not have")


@rule("Upsample", 9)
def _upsample_9(node: ir.Node) -> None:
    """The attribute `scales` became an input."""
    scales = np.asarray(node.attributes.pop("scales").as_floats(), np.float32)
    _append_inputs(node, ("scales", scales))


@rule("Upsample", 10)
def _upsample_10(node: ir.Node) -> None:
    """Upsample is gone; Resize-10 takes the same inputs. The rule for Resize-11 is applied at once: the type changes under the loop."""
    node.op_type = "Resize"
    _resize_11(node)


@rule("Resize", 11)
def _resize_11(node: ir.Node) -> None:
    """Resize-10 used asymmetric coordinates and truncation; an empty `roi` input stands before `scales`."""
    if "coordinate_transformation_mode" in node.attributes:
        return
    scales = constant(node.inputs[1])
    if scales is None or (scales < 1).any():
        raise CannotLift(
            "Resize of opset 10 that shrinks, or whose scales are not constant, rounds differently from its successor"
        )
    scales_value = node.inputs[1]
    node.resize_inputs(3)
    node.replace_input_with(1, _constant_input(node, np.zeros(0, np.float32), "roi"))
    node.replace_input_with(2, scales_value)
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", "asymmetric")
    node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")


@rule("Slice", 10)
def _slice_10(node: ir.Node) -> None:
    """`starts`, `ends`, `axes` became inputs; a missing `axes` meant the first ones, as it still does."""
    _attributes_to_inputs(node, ("starts", "ends", "axes"))


@rule("TopK", 10)
def _top_k_10(node: ir.Node) -> None:
    k = int_attribute(node, "k", 0)
    node.attributes.pop("k")
    _append_inputs(node, ("k", np.asarray([k], np.int64)))


@rule("Clip", 11)
def _clip_11(node: ir.Node) -> None:
    """`min` and `max` became scalar inputs of the data type."""
    value = node.inputs[0]
    dtype = np.dtype(value.dtype.numpy()) if value is not None and value.dtype is not None else np.dtype(np.float32)
    bounds = [
        (name, np.asarray(node.attributes.pop(name).as_float(), dtype) if name in node.attributes else None)
        for name in ("min", "max")
    ]
    _append_inputs(node, *bounds)


@rule("Pad", 11)
def _pad_11(node: ir.Node) -> None:
    value = node.inputs[0]
    dtype = np.dtype(value.dtype.numpy()) if value is not None and value.dtype is not None else np.dtype(np.float32)
    fill = node.attributes.pop("value").as_float() if "value" in node.attributes else 0.0
    pads = np.asarray(ints_attribute(node, "pads", ()), np.int64)
    node.attributes.pop("pads")
    _append_inputs(node, ("pads", pads), ("value", np.asarray(fill, dtype)))


@rule("Scatter", 11)
def _scatter_11(node: ir.Node) -> None:
    node.op_type = "ScatterElements"


@rule("Dropout", 12)
def _dropout_12(node: ir.Node) -> None:
    """`ratio` became an input and is without effect in inference."""
    node.attributes.pop("ratio", None)


@rule("Squeeze", 13)
@rule("Unsqueeze", 13)
@rule("ReduceSum", 13)
def _axes_13(node: ir.Node) -> None:
    _attributes_to_inputs(node, ("axes",))


@rule("Split", 13)
def _split_13(node: ir.Node) -> None:
    _attributes_to_inputs(node, ("split",))


@rule("Softmax", 13)
@rule("LogSoftmax", 13)
@rule("Hardmax", 13)
def _softmax_13(node: ir.Node) -> None:
    """Before 13 the input was flattened to 2-D at `axis` (default 1) and normalised over all that follows.

    At the last axis both meanings agree. Elsewhere: Flatten(axis) → Softmax(−1) → Reshape to the shape of the input.
    """
    axis, rank = int_attribute(node, "axis", 1), _rank(node)
    if axis == -1 or (rank is not None and axis % rank == rank - 1):
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        return
    source = node.inputs[0]
    assert source is not None
    graph = node.graph
    flatten = ir.node("Flatten", [source], {"axis": axis}, name=f"{node.outputs[0].name}.flatten")
    shape = ir.node("Shape", [source], name=f"{node.outputs[0].name}.shape")
    node.replace_input_with(0, flatten.outputs[0])
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    output = node.outputs[0]
    reshape = ir.node("Reshape", [output, shape.outputs[0]], name=f"{output.name}.reshape")
    result = reshape.outputs[0]
    result.dtype, result.shape = output.dtype, output.shape
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    reshape.replace_input_with(0, output)
    for new, suffix in ((flatten, "flat"), (shape, "shape")):
        new.outputs[0].name = f"{output.name}.{suffix}"
    if result.is_graph_output():
        result.name, output.name = output.name, f"{output.name}.normalised"
    else:
        result.name = f"{output.name}.reshaped"
    assert isinstance(graph, ir.Graph)
    graph.insert_before(node, [flatten, shape])
    graph.insert_after(node, [reshape])
