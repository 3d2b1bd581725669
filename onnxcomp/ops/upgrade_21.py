"""Rules that lift a model from opset 13–20 to opset 21, where DequantizeLinear has blocks and 4 bits.

As in `upgrade`, only changes of meaning or form have a rule; all other changes between the two widened types or added
attributes whose default is the old meaning. Source of each rule: the "Version" sections of the operator's entry in
onnx/docs/Changelog.md.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcomp.ops.attributes import int_attribute, string_attribute
from onnxcomp.ops.limits import minimum_ir_version
from onnxcomp.ops.upgrade import TARGET_OPSET, CannotLift, Rule, attributes_to_inputs, climb, is_used

BLOCKWISE_OPSET = 21
RENAMED_MODES = {"bilinear": "linear", "bicubic": "cubic"}


def lift_to_21(model: ir.Model) -> bool:
    """Lifts `model` in place to opset 21, bodies of If, Loop and Scan included; True if it was older.

    Raises:
        CannotLift: naming the node and the reason. The model is then half lifted: work on a clone.
    """
    opset = model.opset_imports.get("", BLOCKWISE_OPSET)
    if opset >= BLOCKWISE_OPSET:
        return False
    if opset < TARGET_OPSET:
        raise CannotLift(f"opset {opset} is older than {TARGET_OPSET}")
    climb(model, RULES_21, BLOCKWISE_OPSET)
    model.ir_version = max(model.ir_version, minimum_ir_version(BLOCKWISE_OPSET))
    return True


def _batch_normalization_14(node: ir.Node) -> None:
    if any(is_used(value) for value in node.outputs[1:]):
        raise CannotLift(f"{node.name}: outputs for training changed their meaning at opset 14")
    node.resize_outputs(1)


def _roi_align_16(node: ir.Node) -> None:
    """The default became half_pixel; before there was only output_half_pixel."""
    node.attributes["coordinate_transformation_mode"] = ir.AttrString(
        "coordinate_transformation_mode", "output_half_pixel"
    )


def _axes_18(node: ir.Node) -> None:
    attributes_to_inputs(node, "axes")


def _split_18(node: ir.Node) -> None:
    """Equal parts have to say how many they are."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _average_pool_19(node: ir.Node) -> None:
    if int_attribute(node, "ceil_mode", 0):
        raise CannotLift(f"{node.name}: AveragePool with ceil_mode counts its last window in another way from 19 on")


def _grid_sample_20(node: ir.Node) -> None:
    mode = string_attribute(node, "mode", "bilinear")
    node.attributes["mode"] = ir.AttrString("mode", RENAMED_MODES.get(mode, mode))


def _refused(node: ir.Node) -> None:
    raise CannotLift(f"{node.name}: {node.op_type} changed its form before opset {BLOCKWISE_OPSET}")


REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)

RULES_21: dict[tuple[str, int], Rule] = {
    ("BatchNormalization", 14): _batch_normalization_14,
    ("RoiAlign", 16): _roi_align_16,
    **{(name, 18): _axes_18 for name in REDUCTIONS},
    ("Split", 18): _split_18,
    ("AveragePool", 19): _average_pool_19,
    ("GridSample", 20): _grid_sample_20,
    ("DFT", 20): _refused,
    ("GroupNormalization", 21): _refused,
}
