"""Zero pads that a convolution can do itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, ints_attribute, is_standard, string_attribute
from onnxcomp.passes.simplify.edits import Finding, Scope, bypass, edit, only_user, skip
from onnxcomp.report.reasons import Reason


def fold_pads(model: ir.Model, scope: Scope) -> Iterator[Finding]:
    """Moves constant zero pads of the spatial axes into the `pads` of the Conv that alone reads them, in place."""
    for pad in tuple(model.graph):
        source = pad.inputs[0] if pad.inputs else None
        if pad.op_type != "Pad" or not is_standard(pad) or source is None or pad.name in scope.excluded:
            continue
        readers = [use.node for use in pad.outputs[0].uses() if _is_conv(use.node) and use.idx == 0]
        if not readers:
            continue
        conv = only_user(pad.outputs[0])
        total = None if conv is None else _combined_pads(pad, conv)
        if pad.outputs[0].is_graph_output():
            yield skip(pad, Reason.GRAPH_OUTPUT, "what it puts out is an output of the model too")
        elif conv is None:
            yield skip(pad, Reason.SHARED, f"what it puts out is read by other nodes than {readers[0].name} too")
        elif total is None:
            yield skip(
                pad, Reason.UNSUPPORTED_FORM, f"{conv.name} pads with zeros, by constants, along height and width"
            )
        elif conv.name not in scope.excluded:
            bypass(pad, source)
            conv.attributes["pads"] = ir.AttrInt64s("pads", total)
            conv.attributes.pop("auto_pad", None)
            yield edit(pad, "folded into padding", f"folded into the padding of {conv.name}")


def _is_conv(node: ir.Node) -> bool:
    return node.op_type == "Conv" and is_standard(node)


def _combined_pads(pad: ir.Node, conv: ir.Node) -> list[int] | None:
    """Begin and end pads of the spatial axes of both nodes together; None if one is of another kind."""
    weight, own_mode = conv.inputs[1], string_attribute(conv, "auto_pad", "NOTSET")
    if weight is None or weight.shape is None or own_mode not in ("NOTSET", "VALID"):
        return None
    rank = weight.shape.rank()
    amounts = _zero_pads(pad, rank)
    if amounts is None or amounts[:, :2].any() or (amounts < 0).any():
        return None
    own = ints_attribute(conv, "pads", ()) if own_mode == "NOTSET" else ()
    return [int(p) for p in amounts[:, 2:].reshape(-1) + np.asarray(own or (0,) * (2 * (rank - 2)))]


def _zero_pads(pad: ir.Node, rank: int) -> np.ndarray | None:
    """[begin or end, axis], if the node pads with constant numbers of zeros."""
    values = [pad.inputs[i] if i < len(pad.inputs) else None for i in range(4)]
    amounts, fill, axes = (constant(v) for v in values[1:])
    computed = any(v is not None and a is None for v, a in zip(values[1:], (amounts, fill, axes), strict=True))
    mode = string_attribute(pad, "mode", "constant")
    if computed or amounts is None or mode != "constant" or (fill is not None and fill.any()):
        return None
    where = np.arange(rank) if axes is None else axes % rank
    if amounts.size != 2 * len(where):
        return None
    result = np.zeros((2, rank), np.int64)
    result[:, where] = amounts.reshape(2, -1)
    return result
