"""LSTM with int8 weights: `com.microsoft.DynamicQuantizeLSTM`.

Its W is [directions, inputs, 4·hidden] and R [directions, hidden, 4·hidden]: those of ONNX's LSTM with the last two
axes swapped; scales and zero points are [directions, 4·hidden], zero points 0. X is quantised once for a call, the
hidden state in every step. Source: onnxruntime/contrib_ops/cpu/quantization/dynamic_quantize_lstm.cc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, int_attribute, is_constant, is_standard, new_initializer
from onnxcomp.ops.linear import Array
from onnxcomp.passes.integer_weights import quantize_weight, weight_scales
from onnxcomp.passes.products import skip
from onnxcomp.passes.selection import left_out
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Skip

PLAIN_INPUTS = 8
"""X, W, R, B, sequence_lens, initial_h, initial_c, P: what the integer operator takes in the same places."""


@dataclass(frozen=True)
class Recurrent:
    """An LSTM with constant weights."""

    node: ir.Node
    weights: tuple[ir.Value, ir.Value]

    @property
    def elements(self) -> int:
        return sum(value.const_value.size for value in self.weights if value.const_value is not None)


def find_recurrent(
    model: ir.Model, only: Sequence[str], exclude: Sequence[str], smallest: int, *, portable: bool
) -> tuple[list[Recurrent], list[Skip]]:
    """The LSTM nodes of the main graph that can be quantised, and why the others can't."""
    found: list[Recurrent] = []
    skips: list[Skip] = []
    for node in model.graph:
        if node.op_type != "LSTM" or not is_standard(node):
            continue
        site = _site(node, only, exclude, smallest, portable)
        if isinstance(site, Recurrent):
            found.append(site)
        else:
            skips.append(skip(node, *site))
    return found, skips


def write_recurrent(graph: ir.Graph, site: Recurrent, *, pairs_saturate: bool) -> None:
    """Replaces the node, in place."""
    node = site.node
    inputs = [*node.inputs, *[None] * (PLAIN_INPUTS - len(node.inputs))]
    for index, value in enumerate(site.weights, start=1):
        array = constant(value)
        assert array is not None
        scales = np.stack([weight_scales(part, 0, pairs_saturate=pairs_saturate) for part in array])
        integers = np.stack([quantize_weight(*pair, 0).T for pair in zip(array, scales, strict=True)])
        inputs[index] = new_initializer(graph, f"{value.name}.quantized", integers)
        inputs.append(new_initializer(graph, f"{value.name}.scale", scales))
        inputs.append(new_initializer(graph, f"{value.name}.zero_point", np.zeros(scales.shape, np.int8)))
    made = ir.Node(
        "com.microsoft",
        "DynamicQuantizeLSTM",
        inputs,
        [a for a in node.attributes.values() if a.name != "layout"],
        num_outputs=len(node.outputs),
        name=node.name,
    )
    ir.convenience.replace_nodes_and_values(graph, node, [node], [made], node.outputs, made.outputs)


def _site(
    node: ir.Node, only: Sequence[str], exclude: Sequence[str], smallest: int, portable: bool
) -> Recurrent | tuple[Reason, str]:
    reason = left_out(node, only, exclude)
    if reason is not None:
        return reason, DESCRIPTIONS[reason]
    if portable:
        return (
            Reason.NO_INTEGER_KERNEL,
            "ONNX has no LSTM of integers; ONNX Runtime has (without --portable)",
        )
    source, w, r = (*node.inputs, None, None, None)[:3]
    if source is None or w is None or r is None:
        return Reason.UNSUPPORTED_FORM, "an input is missing"
    if not is_constant(w) or not is_constant(r):
        return Reason.NOT_CONSTANT, "its weights are computed at run time"
    arrays = [a for v in (w, r) if (a := constant(v)) is not None]
    if any(a.dtype != np.float32 for a in arrays):
        return Reason.NOT_FLOAT32, f"its weights are {arrays[0].dtype}, not float32"
    if not _fit(*arrays):
        return Reason.UNSUPPORTED_FORM, "its weights are empty, or don't fit each other"
    if int_attribute(node, "layout", 0):
        return Reason.UNSUPPORTED_FORM, "its batch comes first (layout = 1), which the integer kernel does not know"
    if any(len(list(v.uses())) > 1 or v.is_graph_output() for v in (w, r)):
        return Reason.SHARED, "another node reads its weights too, and they would stay"
    if not all(np.isfinite(a).all() for a in arrays):
        return Reason.NOT_FINITE, "its weights hold NaN or infinity"
    site = Recurrent(node, (w, r))
    if site.elements < smallest:
        return Reason.TOO_SMALL, f"{site.elements} weights: fewer than {smallest} are not worth the conversion"
    return site


def _fit(w: Array, r: Array) -> bool:
    """w: [directions, 4·H, in], r: [directions, 4·H, H]."""
    return w.ndim == r.ndim == 3 and w.shape[:2] == r.shape[:2] and r.shape[1] == 4 * r.shape[2] and bool(w.size)
