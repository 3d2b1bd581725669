"""Affine maps behind a convolution or matrix product become part of its weights.

y = s·(W∗x + b) + t  =  (s·W)∗x + (s·b + t), channel by channel. BatchNormalization is s = γ/√(σ²+ε), t = β − μ·s; Mul, Div, Add and Sub
of one constant for each channel are the other cases. The sums are done in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, float_attribute, int_attribute, is_constant, is_standard
from onnxcomp.passes.simplify.edits import bypass, new_initializer, only_user

Affine = tuple[np.ndarray, np.ndarray]
"""(s, t), float64 [channels] each."""

WeightAxis = Callable[[ir.Node, np.ndarray], int | None]
"""The axis of the weight that holds output channels; None if this form can't be folded."""


def _gemm_axis(node: ir.Node, weight: np.ndarray) -> int | None:
    plain = float_attribute(node, "alpha", 1.0) == 1.0 and float_attribute(node, "beta", 1.0) == 1.0
    return (0 if int_attribute(node, "transB", 0) else 1) if plain else None


FOLDS_INTO: dict[str, WeightAxis] = {
    "Conv": lambda node, weight: 0,
    "ConvTranspose": lambda node, weight: 1 if int_attribute(node, "group", 1) == 1 else None,
    "Gemm": _gemm_axis,
}


def fold_affine(model: ir.Model, excluded: frozenset[str]) -> Iterator[tuple[ir.Node, str]]:
    """Folds every affine follower of a Conv, ConvTranspose or Gemm, in place; yields what was folded."""
    for node in tuple(model.graph):
        axis_of = FOLDS_INTO.get(node.op_type) if is_standard(node) else None
        if axis_of is None or node.name in excluded or len(node.inputs) < 2:
            continue
        while (folded := _fold_follower(node, axis_of, excluded)) is not None:
            yield folded, f"{folded.op_type} folded into the weights of {node.name}"


def _fold_follower(node: ir.Node, axis_of: WeightAxis, excluded: frozenset[str]) -> ir.Node | None:
    follower = only_user(node.outputs[0])
    weight_value, bias_value = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    if follower is None or follower.name in excluded or not is_standard(follower) or follower.graph is not node.graph:
        return None
    if not is_constant(weight_value) or not (bias_value is None or is_constant(bias_value)):
        return None
    weight, bias = constant(weight_value), constant(bias_value)
    assert weight is not None
    axis = axis_of(node, weight)
    if axis is None or weight.dtype not in (np.float32, np.float64):
        return None
    channels = weight.shape[axis]
    affine = _affine(follower, node.outputs[0], channels, weight.ndim)
    if affine is None or (bias is not None and bias.size != channels):
        return None
    scale, shift = affine
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    if weight_value is not None and len(weight_value.uses()) > 1 and not (scale == 1.0).all():
        return None  # a tied weight stays shared
    _write(node, weight, bias, axis, scale, shift)
    return follower if _vanish(follower, node.outputs[0]) else None


def _write(
    node: ir.Node, weight: np.ndarray, bias: np.ndarray | None, axis: int, scale: np.ndarray, shift: np.ndarray
) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    if not (scale == 1.0).all():
        along = [-1 if a == axis else 1 for a in range(weight.ndim)]
        scaled = (weight * scale.reshape(along)).astype(weight.dtype)
        node.replace_input_with(1, new_initializer(graph, f"{node.name}.weight", scaled))
    new_bias = ((0.0 if bias is None else bias.reshape(-1)) * scale + shift).astype(weight.dtype)
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, new_initializer(graph, f"{node.name}.bias", new_bias))


def _vanish(follower: ir.Node, source: ir.Value) -> bool:
    """The follower's output may be an output of the graph: then the product takes its name."""
    return bypass(follower, source)


def _affine(node: ir.Node, source: ir.Value, channels: int, rank: int) -> Affine | None:
    if node.op_type == "BatchNormalization":
        return _batch_norm(node, channels)
    rule = _ELEMENTWISE.get(node.op_type)
    if rule is None:
        return None
    position = 0 if node.inputs[0] is source else 1
    other = constant(node.inputs[1 - position])
    if other is None or (node.op_type in ("Sub", "Div") and position == 1):
        return None
    vector = _per_channel(other.astype(np.float64), channels, rank)
    return None if vector is None else rule(vector)


def _batch_norm(node: ir.Node, channels: int) -> Affine | None:
    arrays = [constant(v) for v in node.inputs[1:5]]
    used_extra = any(v.uses() or v.is_graph_output() for v in node.outputs[1:])
    if any(a is None or a.size != channels for a in arrays) or used_extra or int_attribute(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    scale = gamma / np.sqrt(variance + float_attribute(node, "epsilon", 1e-5))
    return scale, beta - mean * scale


def _per_channel(array: np.ndarray, channels: int, rank: int) -> np.ndarray | None:
    """`array` as one value for each channel, if it broadcasts that way over [N, C, …] (or [N, C] for a matrix product)."""
    if array.size == 1 and array.ndim <= rank:
        return np.full(channels, array.reshape(()))
    shape = (1,) * (rank - array.ndim) + array.shape
    fits = array.size == channels and len(shape) == rank and shape[1] == channels
    return array.reshape(-1) if fits else None


_ELEMENTWISE: dict[str, Callable[[np.ndarray], Affine]] = {
    "Mul": lambda v: (v, np.zeros_like(v)),
    "Div": lambda v: (1.0 / np.where(v == 0, np.nan, v), np.zeros_like(v)),
    "Add": lambda v: (np.ones_like(v), v),
    "Sub": lambda v: (np.ones_like(v), -v),
}
