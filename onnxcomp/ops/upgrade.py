"""Rules that lift a model from opset 7 on: to 13, where per-channel DequantizeLinear begins, or further, up to 21.

Only changes of meaning or form have a rule. Every other operator change between opsets 7 and 21 widened types, allowed
negative axes or added options that are off by default, and needs nothing (the list is closed: old opsets don't change
any more; a test holds it against `onnx.defs.get_all_schemas_with_history()`). Source of each rule: the "Version"
sections of the operator's entry in onnx/docs/Changelog.md.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import (
    constant,
    int_attribute,
    ints_attribute,
    is_standard,
    new_initializer,
    string_attribute,
)
from onnxcomp.ops.limits import minimum_ir_version

TARGET_OPSET = 13
"""What every model is lifted to."""

OLDEST_OPSET = 7
NEWEST_OPSET = 21
"""What a model can be lifted to: where DequantizeLinear has blocks and 4 bits."""


class CannotLift(Exception):
    """This node has no equivalent at the wanted opset; the message says why."""


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


def lift(model: ir.Model, to: int = TARGET_OPSET) -> bool:
    """Lifts `model` in place to opset `to`, bodies of If, Loop and Scan included; True if it was older.

    Constants must be initializers, and no graph inputs (see `onnxcomp.model.normalize`). Names of new values may repeat
    names that are in use.

    Raises:
        CannotLift: naming the node and the reason. The model is then half lifted: work on a clone.
    """
    opset = model.opset_imports.get("", TARGET_OPSET)
    if opset >= to:
        return False
    if opset < OLDEST_OPSET:
        raise CannotLift(f"opset {opset} is older than {OLDEST_OPSET}, whose broadcasting rules differ")
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in tuple(graph):
            for step in range(opset + 1, to + 1):
                # A rule may rename the operator (Upsample → Resize); the next step then finds the new one.
                edit = RULES.get((node.op_type, step)) if is_standard(node) else None
                if edit is not None:
                    edit(node)
    model.opset_imports[""] = to
    model.ir_version = max(model.ir_version, minimum_ir_version(to))
    return True


def _initializer(node: ir.Node, array: np.ndarray, name: str) -> ir.Value:
    """A new initializer in the node's graph, named after the node's first output."""
    assert isinstance(node.graph, ir.Graph)
    return new_initializer(node.graph, f"{node.outputs[0].name}.{name}", array)


def _append_inputs(node: ir.Node, *arrays: tuple[str, np.ndarray | None]) -> None:
    start = len(node.inputs)
    node.resize_inputs(start + len(arrays))
    for index, (name, array) in enumerate(arrays, start):
        node.replace_input_with(index, None if array is None else _initializer(node, array, name))


def _attributes_to_inputs(node: ir.Node, *names: str) -> None:
    """Moves int-list attributes to trailing int64 inputs; a missing attribute leaves the optional input out."""
    present = [(n, np.asarray(ints_attribute(node, n, ()), np.int64)) for n in names if n in node.attributes]
    for name, _ in present:
        node.attributes.pop(name)
    _append_inputs(node, *present)


def _scalar(node: ir.Node, value: float) -> np.ndarray | None:
    """`value` in the dtype of the node's data, 0-d; None if it lies outside that dtype (no bound at all, then)."""
    data = node.inputs[0]
    dtype = None if data is None else data.dtype
    if dtype is None:
        raise CannotLift(f"{node.op_type} {node.name!r} has an attribute that becomes an input of an unknown type")
    if dtype.is_floating_point() and np.isfinite(value) and abs(value) > float(dtype.max):
        return None
    return np.asarray(value).astype(dtype.numpy())


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


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
    _append_inputs(node, ("scales", np.asarray(node.attributes.pop("scales").as_floats(), np.float32)))


@rule("Upsample", 10)
def _upsample_10(node: ir.Node) -> None:
    """Upsample is gone; Resize-10 takes the same inputs and attributes."""
    node.op_type = "Resize"


@rule("Dropout", 10)
def _dropout_10(node: ir.Node) -> None:
    """The mask became bool."""
    if len(node.outputs) > 1 and _is_used(node.outputs[1]):
        raise CannotLift("the mask of a Dropout is used, and its type changed at opset 10")


@rule("Resize", 11)
def _resize_11(node: ir.Node) -> None:
    """Resize-10 used asymmetric coordinates; an empty `roi` input stands before `scales` now.

    "nearest" cut the coordinate off where it enlarged and rounded it up where it shrank (ONNX Runtime: `SIMPLE` in
    onnxruntime/core/providers/cpu/tensor/upsamplebase.h), axis by axis: one `nearest_mode` serves both only where all
    axes go the same way.
    """
    if string_attribute(node, "mode", "nearest") == "nearest":
        scales = constant(node.inputs[1])
        if scales is None or ((scales < 1).any() and (scales > 1).any()):
            raise CannotLift("a nearest Resize of opset 10 whose scales are computed or mixed rounds differently now")
        rounding = "ceil" if (scales < 1).any() else "floor"
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", rounding)
    scales_value = node.inputs[1]
    node.resize_inputs(3)
    node.replace_input_with(1, _initializer(node, np.zeros(0, np.float32), "roi"))
    node.replace_input_with(2, scales_value)
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", "asymmetric")


@rule("Resize", 13)
def _resize_13(node: ir.Node) -> None:
    """One coordinate mode was dropped; empty `roi` and `scales` can be left out."""
    if string_attribute(node, "coordinate_transformation_mode", "") == "tf_half_pixel_for_nn":
        raise CannotLift("Resize with tf_half_pixel_for_nn has no successor")
    for index in range(1, min(3, len(node.inputs))):
        array = constant(node.inputs[index])
        if array is not None and array.size == 0:
            node.replace_input_with(index, None)


@rule("Slice", 10)
def _slice_10(node: ir.Node) -> None:
    """`starts`, `ends`, `axes` became inputs; a missing `axes` meant the first ones, as it still does."""
    _attributes_to_inputs(node, "starts", "ends", "axes")


@rule("TopK", 10)
def _top_k_10(node: ir.Node) -> None:
    k = node.attributes.pop("k").as_int()
    _append_inputs(node, ("k", np.asarray([k], np.int64)))


@rule("Clip", 11)
def _clip_11(node: ir.Node) -> None:
    """`min` and `max` became scalar inputs of the data type."""
    bounds = {n: node.attributes.pop(n).as_float() for n in ("min", "max") if n in node.attributes}
    if bounds:
        _append_inputs(node, *((n, _scalar(node, bounds[n]) if n in bounds else None) for n in ("min", "max")))


@rule("Pad", 11)
def _pad_11(node: ir.Node) -> None:
    """`pads` and `value` became inputs; the value's default is still 0."""
    fill = node.attributes.pop("value").as_float() if "value" in node.attributes else 0.0
    _attributes_to_inputs(node, "pads")
    if fill:
        _append_inputs(node, ("value", _scalar(node, fill)))


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
    _attributes_to_inputs(node, "axes")


@rule("Split", 13)
def _split_13(node: ir.Node) -> None:
    _attributes_to_inputs(node, "split")


@rule("Softmax", 13)
@rule("LogSoftmax", 13)
@rule("Hardmax", 13)
def _softmax_13(node: ir.Node) -> None:
    """Before 13 the input was flattened to 2-D at `axis` (default 1) and normalised over all that follows.

    Where at most one of the axes from there on is longer than 1, that is the softmax along it. Elsewhere:
    Flatten(axis) → Softmax(−1) → Reshape to the shape of the input.
    """
    axis = _one_axis(node, int_attribute(node, "axis", 1))
    if axis is None:
        _softmax_on_matrix(node, int_attribute(node, "axis", 1))
    else:
        node.attributes["axis"] = ir.AttrInt64("axis", axis)


def _one_axis(node: ir.Node, axis: int) -> int | None:
    """The axis along which the old meaning with `axis` is the new one; None if there is none, or it is not known."""
    if axis == -1:
        return axis
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    if shape is None:
        return None
    start = axis + len(shape) if axis < 0 else axis
    long = [i for i in range(start, len(shape)) if shape[i] != 1]
    if len(long) > 1 or not 0 <= start < len(shape):
        return None
    return long[0] if long else start


def _softmax_on_matrix(node: ir.Node, axis: int) -> None:
    graph, source, output = node.graph, node.inputs[0], node.outputs[0]
    assert source is not None
    assert isinstance(graph, ir.Graph)
    flatten = ir.node("Flatten", [source], {"axis": axis}, name=f"{output.name}.flatten")
    shape = ir.node("Shape", [source], name=f"{output.name}.shape")
    reshape = ir.node("Reshape", [output, shape.outputs[0]], name=f"{output.name}.reshape")
    result = reshape.outputs[0]
    result.type, result.shape = output.type, output.shape
    ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
    reshape.replace_input_with(0, output)
    node.replace_input_with(0, flatten.outputs[0])
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    flatten.outputs[0].name, shape.outputs[0].name = f"{output.name}.flat", f"{output.name}.shape"
    result.name, output.name = output.name, f"{output.name}.normalised"
    output.shape = None
    graph.insert_before(node, [flatten, shape])
    graph.insert_after(node, [reshape])


@rule("BatchNormalization", 14)
def _batch_normalization_14(node: ir.Node) -> None:
    """More outputs than one meant training, which is an attribute now."""
    if len(node.outputs) > 1:
        raise CannotLift("a BatchNormalization with more than one output is one in training")


@rule("RoiAlign", 16)
def _roi_align_16(node: ir.Node) -> None:
    """The default became `half_pixel`, which shifts the regions by half a pixel."""
    mode = string_attribute(node, "coordinate_transformation_mode", "output_half_pixel")
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", mode)


@rule("ReduceL1", 18)
@rule("ReduceL2", 18)
@rule("ReduceLogSum", 18)
@rule("ReduceLogSumExp", 18)
@rule("ReduceMax", 18)
@rule("ReduceMean", 18)
@rule("ReduceMin", 18)
@rule("ReduceProd", 18)
@rule("ReduceSumSquare", 18)
def _axes_18(node: ir.Node) -> None:
    _attributes_to_inputs(node, "axes")


@rule("Split", 18)
def _split_18(node: ir.Node) -> None:
    """Without sizes the number of equal parts has to be said."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


@rule("AveragePool", 19)
def _average_pool_19(node: ir.Node) -> None:
    if int_attribute(node, "ceil_mode", 0):
        raise CannotLift(f"{node.name}: AveragePool with ceil_mode counts its last window in another way from 19 on")


@rule("GridSample", 20)
def _grid_sample_20(node: ir.Node) -> None:
    """Modes were named anew for more than two axes."""
    mode = string_attribute(node, "mode", "bilinear")
    node.attributes["mode"] = ir.AttrString("mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


@rule("DFT", 20)
def _dft_20(node: ir.Node) -> None:
    """`axis` became an input, with another default."""
    axis = int_attribute(node, "axis", 1)
    node.attributes.pop("axis", None)
    node.resize_inputs(2)
    _append_inputs(node, ("axis", np.asarray(axis, np.int64)))


@rule("GroupNormalization", 21)
def _group_normalization_21(node: ir.Node) -> None:
    """Scale and bias for each channel instead of each group."""
    raise CannotLift(f"{node.name}: GroupNormalization changed its form at opset 21")
