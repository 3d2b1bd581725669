"""Affine maps behind a convolution or matrix product become part of its weights.

y = s·(W∗x + b) + t  =  (s·W)∗x + (s·b + t), channel by channel. BatchNormalization is s = γ/√(σ²+ε), t = β − μ·s;
Mul, Div, Add and Sub of one constant for each channel are the other cases. The sums are done in float64, rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, float_attribute, int_attribute, is_constant, is_standard, new_initializer
from onnxcomp.passes.simplify.edits import Finding, Scope, bypass, edit, only_user, skip
from onnxcomp.report.reasons import Reason

Array = np.ndarray[Any, Any]


class CannotFold(Exception):
    """Why an affine map stays: the code and the sentence."""

    def __init__(self, code: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


@dataclass(frozen=True)
class Affine:
    """y = scale·x + shift, float64 [channels] each."""

    scale: Array
    shift: Array


@dataclass(frozen=True)
class Product:
    """A weight and bias as the fold needs them.

    Args:
        channels: Output channels.
        along: Shape in which a vector of them multiplies the weight, which is seen in the shape `view`.
        beta: Of Gemm: y = α·W∗x + β·b.
    """

    channels: int
    view: tuple[int, ...]
    along: tuple[int, ...]
    beta: float = 1.0


def _conv(node: ir.Node, weight: Array) -> Product:
    """w: [out, in/groups, k…]"""
    return Product(weight.shape[0], weight.shape, (-1, *(1,) * (weight.ndim - 1)))


def _conv_transpose(node: ir.Node, weight: Array) -> Product:
    """w: [in, out/groups, k…], whose first axis is groups × in/groups: seen as [groups, in/groups, out/groups, k…]"""
    groups, out = int_attribute(node, "group", 1), weight.shape[1]
    view = (groups, weight.shape[0] // groups, *weight.shape[1:])
    return Product(groups * out, view, (groups, 1, out, *(1,) * (weight.ndim - 2)))


def _gemm(node: ir.Node, weight: Array) -> Product:
    """w: [in, out], or [out, in] with transB"""
    transposed = bool(int_attribute(node, "transB", 0))
    along = (-1, 1) if transposed else (1, -1)
    return Product(weight.shape[1 - transposed], weight.shape, along, float_attribute(node, "beta", 1.0))


FOLDS_INTO: dict[str, Callable[[ir.Node, Array], Product]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
}

NORM = "BatchNormalization"


def fold_affine(model: ir.Model, scope: Scope) -> Iterator[Finding]:
    """Folds every affine follower of a Conv, ConvTranspose or Gemm, in place.

    Only for BatchNormalization does it say why one stays: a Mul or Add is rarely meant as a scale.
    """
    for follower in tuple(model.graph):
        if not (follower.op_type in ELEMENTWISE or follower.op_type == NORM) or not is_standard(follower):
            continue
        if follower.name in scope.excluded:
            continue
        try:
            product = _product_before(follower, scope)
            _fold(product, follower, scope)
        except CannotFold as refusal:
            if follower.op_type == NORM:
                yield skip(follower, refusal.code, refusal.sentence)
        else:
            yield edit(follower, "folded into weights", f"folded into the weights of {product.name}")


def _product_before(follower: ir.Node, scope: Scope) -> ir.Node:
    """The convolution or product whose output `follower` alone reads."""
    sources = follower.inputs[:1] if follower.op_type == NORM else follower.inputs
    producers = [(v, v.producer()) for v in sources if v is not None]
    found = [(v, p) for v, p in producers if p is not None and p.op_type in FOLDS_INTO and is_standard(p)]
    if not found:
        raise CannotFold(Reason.UNSUPPORTED_FORM, "there is no convolution or matrix product right before it")
    value, node = found[0]
    if value.is_graph_output():
        raise CannotFold(Reason.GRAPH_OUTPUT, f"what {node.name} puts out is an output of the model too")
    if only_user(value) is not follower:
        raise CannotFold(Reason.SHARED, f"what {node.name} puts out is read by other nodes too")
    if node.name in scope.excluded:
        raise CannotFold(Reason.EXCLUDED, f"{node.name} is to stay as it is")
    return node


def _fold(node: ir.Node, follower: ir.Node, scope: Scope) -> None:
    """Writes the new weights; changes nothing if it raises.

    Raises:
        CannotFold: With the reason.
    """
    weight_value, bias_value = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    weight, bias_array = constant(weight_value), constant(bias_value)
    if weight_value is None or weight is None or (bias_value is not None and bias_array is None):
        raise CannotFold(Reason.NOT_CONSTANT, f"the weights of {node.name} are computed at run time")
    if weight.dtype not in (np.float32, np.float64):
        raise CannotFold(Reason.NOT_FLOAT32, f"the weights of {node.name} are {weight.dtype}, which would round")
    product = FOLDS_INTO[node.op_type](node, weight)
    affine = _affine(follower, node.outputs[0], product.channels, weight.ndim)
    bias = np.zeros(product.channels) if bias_array is None else per_channel(bias_array, product.channels, 2)
    if bias is None:  # that of a Gemm may differ from row to row
        raise CannotFold(Reason.UNSUPPORTED_FORM, f"the bias of {node.name} is not one number for each channel")
    scales = not (affine.scale == 1.0).all()
    if scales and (len(weight_value.uses()) > 1 or weight_value.is_graph_output()):
        raise CannotFold(Reason.SHARED, f"the weights of {node.name} are used in another place too")
    with np.errstate(all="ignore"):
        along = affine.scale.reshape(product.along)
        new_weight = (weight.reshape(product.view) * along).reshape(weight.shape).astype(weight.dtype)
        new_bias = (product.beta * bias.astype(np.float64) * affine.scale + affine.shift).astype(weight.dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        raise CannotFold(Reason.NOT_FINITE, "the folded weights would not be finite")
    has_bias = bias_array is not None or bool(new_bias.any())
    if has_bias and new_bias.nbytes > _released(follower, bias_value) + scope.growth:
        raise CannotFold(Reason.TOO_LARGE, "the new bias would be larger than what it replaces")
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    bypass(follower, node.outputs[0])
    if scales:
        node.replace_input_with(1, new_initializer(graph, f"{node.name}.weight", new_weight))
    if has_bias:
        node.resize_inputs(3)
        node.replace_input_with(2, new_initializer(graph, f"{node.name}.bias", new_bias))
        if product.beta != 1.0:
            node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)


def _released(follower: ir.Node, bias: ir.Value | None) -> int:
    """Bytes of the constants that nobody reads any more once the follower is gone and the bias is replaced."""
    gone = [v for v in (*follower.inputs, bias) if v is not None and is_constant(v) and len(v.uses()) == 1]
    # Batch norms that share their numbers all go together.
    shared = [v for v in follower.inputs[1:] if follower.op_type == NORM and v is not None and len(v.uses()) > 1]
    return sum(v.const_value.nbytes for v in {*gone, *shared} if v.const_value is not None)


def _affine(node: ir.Node, source: ir.Value, channels: int, rank: int) -> Affine:
    if node.op_type == NORM:
        return _batch_norm(node, channels)
    position = 0 if node.inputs[0] is source else 1
    other = constant(node.inputs[1 - position])
    vector = None if other is None else per_channel(other.astype(np.float64), channels, rank)
    if vector is None or (node.op_type in ("Sub", "Div") and position == 1):
        raise CannotFold(Reason.UNSUPPORTED_FORM, "it is not one constant for each channel")
    return _finite(ELEMENTWISE[node.op_type](vector))


def _batch_norm(node: ir.Node, channels: int) -> Affine:
    arrays = [constant(v) for v in node.inputs[1:5]]
    if any(v.name for v in node.outputs[1:]) or int_attribute(node, "training_mode", 0):
        raise CannotFold(
            Reason.UNSUPPORTED_FORM, "it is in training mode: it normalises by the statistics of the batch"
        )
    known = [np.asarray(a, np.float64) for a in arrays if a is not None and a.size == channels]
    if len(known) != 4:
        raise CannotFold(Reason.NOT_CONSTANT, "its scale, bias, mean or variance is computed at run time")
    gamma, beta, mean, variance = known
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + float_attribute(node, "epsilon", 1e-5))
        return _finite(Affine(scale, beta - mean * scale))


def _finite(affine: Affine) -> Affine:
    if not (np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all()):
        raise CannotFold(Reason.NOT_FINITE, "its scale or shift is not finite")
    return affine


def per_channel(array: Array, channels: int, rank: int, axis: int = 1) -> Array | None:
    """`array` as one value for each channel, if it broadcasts that way over [N, C, …] ([N, C] for a matrix product).

    Args:
        rank: Of the tensor with the channels; `axis`: where they are.
    """
    shape = (1,) * (rank - array.ndim) + array.shape
    if len(shape) != rank or array.size not in (1, channels):
        return None
    if array.size == 1:
        return np.full(channels, array.reshape(()))
    return array.reshape(-1) if shape[axis] == channels else None


def _divided(v: Array) -> Affine:
    with np.errstate(all="ignore"):
        return Affine(1.0 / v, np.zeros_like(v))


ELEMENTWISE: dict[str, Callable[[Array], Affine]] = {
    "Mul": lambda v: Affine(v, np.zeros_like(v)),
    "Div": _divided,
    "Add": lambda v: Affine(np.ones_like(v), v),
    "Sub": lambda v: Affine(np.ones_like(v), -v),
}
"""What a node with one constant operand does: constant → y = scale·x + shift."""
