"""Nodes that do nothing, and zero pads that a convolution can do itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, int_attribute, ints_attribute, is_standard, string_attribute
from onnxcomp.ops.macs import static_shape
from onnxcomp.passes.simplify.edits import bypass, only_user


def _dropout(node: ir.Node) -> bool:
    """Inference only, and nobody reads the mask."""
    training = constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.bool_)
    mask_used = len(node.outputs) > 1 and (bool(node.outputs[1].uses()) or node.outputs[1].is_graph_output())
    return training is not None and not training.any() and not mask_used


def _same_shape(node: ir.Node) -> bool:
    """Expand, Tile or Reshape to the shape that the input has already."""
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    return before is not None and before == after


def _identity_transpose(node: ir.Node) -> bool:
    perm = ints_attribute(node, "perm", ())
    return bool(perm) and list(perm) == list(range(len(perm)))


def _same_dtype(node: ir.Node) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype is not None and int(source.dtype) == int_attribute(node, "to", 0)


def _no_pads(node: ir.Node) -> bool:
    pads = constant(node.inputs[1])
    return pads is not None and not pads.any()


DOES_NOTHING: dict[str, Callable[[ir.Node], bool]] = {
    "Identity": lambda node: True,
    "Dropout": _dropout,
    "Cast": _same_dtype,
    "Transpose": _identity_transpose,
    "Reshape": _same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Pad": _no_pads,
    "Concat": lambda node: len(node.inputs) == 1,
}
"""Operator → whether this node returns its first input unchanged."""


def remove_idle(model: ir.Model, excluded: frozenset[str]) -> Iterator[tuple[ir.Node, str]]:
    """Removes nodes that return their input, in place."""
    for node in tuple(model.graph):
        test = DOES_NOTHING.get(node.op_type) if is_standard(node) else None
        if test is None or node.name in excluded or not node.inputs or node.inputs[0] is None or not test(node):
            continue
        if bypass(node, node.inputs[0]):
            yield node, f"{node.op_type} that changes nothing removed"


def fold_pads(model: ir.Model, excluded: frozenset[str]) -> Iterator[tuple[ir.Node, str]]:
    """Moves constant zero pads of the spatial axes into the `pads` of the Conv that alone reads them, in place."""
    for pad in tuple(model.graph):
        if pad.op_type != "Pad" or not is_standard(pad) or pad.name in excluded or pad.inputs[0] is None:
            continue
        conv = only_user(pad.outputs[0])
        if (
            conv is None
            or conv.op_type != "Conv"
            or not is_standard(conv)
            or conv.inputs[0] is not pad.outputs[0]
            or conv.name in excluded
        ):
            continue
        total = _combined_pads(pad, conv)
        if total is not None and bypass(pad, pad.inputs[0]):
            conv.attributes["pads"] = ir.AttrInt64s("pads", total)
            conv.attributes.pop("auto_pad", None)
            yield pad, f"Pad folded into {conv.name}"


def _combined_pads(pad: ir.Node, conv: ir.Node) -> list[int] | None:
    """Begin and end pads of the spatial axes of both nodes together; None if the Pad is of another kind."""
    amounts = constant(pad.inputs[1])
    fill = constant(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] is not None else np.zeros(())
    axes = constant(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else None
    weight = conv.inputs[1]
    if amounts is None or fill is None or fill.any() or string_attribute(pad, "mode", "constant") != "constant":
        return None
    if (
        string_attribute(conv, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        or weight is None
        or weight.shape is None
    ):
        return None
    rank = weight.shape.rank()
    if len(pad.inputs) > 3 and pad.inputs[3] is not None and axes is None:
        return None
    begins, ends = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    where = np.arange(rank) if axes is None else axes % rank
    if amounts.size != 2 * len(where):
        return None
    begins[where], ends[where] = np.split(amounts, 2)
    if begins[:2].any() or ends[:2].any() or (begins < 0).any() or (ends < 0).any():
        return None
    own = np.asarray(ints_attribute(conv, "pads", (0,) * (2 * (rank - 2))))
    return [int(p) for p in np.concatenate([begins[2:], ends[2:]]) + own]
