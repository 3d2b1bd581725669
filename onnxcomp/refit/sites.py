"""What can be refitted in closed form: nodes with weights, and normalisations, as linear problems y = W·x + b."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, float_attribute, int_attribute, is_standard
from onnxcomp.ops.linear import LinearView, store

Array = np.ndarray
Keep = Mapping[str, Sequence[Array | None]]
"""Kept indices along each axis of a value, by its name; None: all of them."""


class Site(Protocol):
    """A node of the changed model as groups of small linear problems."""

    @property
    def node(self) -> ir.Node: ...

    @property
    def can_bias(self) -> bool: ...

    @property
    def input(self) -> ir.Value: ...

    @property
    def output(self) -> ir.Value: ...

    def weights(self) -> Array:
        """W₀, float64 [groups, out, columns]."""
        ...

    def bias(self) -> Array:
        """b₀, float64 [groups, out]; zeros without one."""
        ...

    def count(self, shape: Sequence[int]) -> int:
        """Rows in an input of `shape`."""
        ...

    def rows(self, x: Array, positions: Array) -> Array:
        """[n, groups, columns]."""
        ...

    def targets(self, y: Array, positions: Array) -> Array:
        """[n, groups, out]."""
        ...

    def write(self, weights: Array, bias: Array | None) -> None:
        """Stores W and b, in place."""
        ...


@dataclass(frozen=True)
class Weighted:
    """A node with a weight: all of W is free."""

    view: LinearView

    @property
    def node(self) -> ir.Node:
        return self.view.node

    @property
    def can_bias(self) -> bool:
        return self.view.can_bias

    @property
    def input(self) -> ir.Value:
        return self.view.input

    @property
    def output(self) -> ir.Value:
        return self.view.output

    def weights(self) -> Array:
        return self.view.matrix()

    def bias(self) -> Array:
        offset, shape = self.view.offset(), self.view.shape[:2]
        return np.zeros(shape) if offset is None else np.asarray(offset.reshape(shape))

    def count(self, shape: Sequence[int]) -> int:
        return self.view.count(shape)

    def rows(self, x: Array, positions: Array) -> Array:
        return self.view.rows(x, positions)

    def targets(self, y: Array, positions: Array) -> Array:
        return self.view.targets(y, positions)

    def write(self, weights: Array, bias: Array | None) -> None:
        store(self.view, self.view.with_matrix(weights, None if bias is None else bias.reshape(-1)))


@dataclass(frozen=True)
class Scaled(Weighted):
    """A node whose weight is too large to solve for: one scale for each output, and the bias. x is what W₀ gives."""

    def weights(self) -> Array:
        groups, out, _ = self.view.shape
        return np.ones((groups * out, 1, 1))

    def bias(self) -> Array:
        return super().bias().reshape(-1, 1)

    def rows(self, x: Array, positions: Array) -> Array:
        matrix = self.view.matrix().astype(np.float32)
        rows = np.einsum("ngd,god->ngo", self.view.rows(x, positions), matrix, optimize=True)
        return np.asarray(rows.reshape(len(positions), -1, 1))

    def targets(self, y: Array, positions: Array) -> Array:
        return self.view.targets(y, positions).reshape(len(positions), -1, 1)

    def write(self, weights: Array, bias: Array | None) -> None:
        matrix = self.view.matrix()
        super().write(matrix * weights.reshape(*matrix.shape[:2], 1), bias)


@dataclass(frozen=True)
class _Norm:
    """A norm: one scale and one bias for each channel."""

    node: ir.Node
    can_bias: bool = True

    @property
    def input(self) -> ir.Value:
        return _input(self.node, 0)

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]


@dataclass(frozen=True)
class BatchNorm(_Norm):
    """y = (γ/√(var + ε))·x + (β − γ·mean/√(var + ε)): one scale and one bias for each channel, kept in γ and β."""

    def _parameters(self) -> list[Array]:
        """γ, β, mean and √(var + ε)."""
        scale, bias, mean, variance = (_constant(self.node, i) for i in (1, 2, 3, 4))
        return [scale, bias, mean, np.sqrt(variance + float_attribute(self.node, "epsilon", 1e-5))]

    def weights(self) -> Array:
        scale, _, _, deviation = self._parameters()
        return np.asarray(scale / deviation)[:, None, None]

    def bias(self) -> Array:
        scale, bias, mean, deviation = self._parameters()
        return np.asarray(bias - scale * mean / deviation)[:, None]

    def count(self, shape: Sequence[int]) -> int:
        return int(np.prod(shape)) // max(shape[1], 1)

    def rows(self, x: Array, positions: Array) -> Array:
        return np.asarray(np.moveaxis(x, 1, -1).reshape(-1, x.shape[1], 1)[positions])

    targets = rows

    def write(self, weights: Array, bias: Array | None) -> None:
        assert bias is not None
        _, _, mean, deviation = self._parameters()
        _write(self.node, 1, weights[:, 0, 0] * deviation)
        _write(self.node, 2, bias[:, 0] + weights[:, 0, 0] * mean)


@dataclass(frozen=True)
class LayerNorm(_Norm):
    """y = scale·x̂ + b over the last axis, x̂ = (x − mean)/√(var + ε): one scale and one bias for each channel."""

    def weights(self) -> Array:
        return _constant(self.node, 1)[:, None, None]

    def bias(self) -> Array:
        return _constant(self.node, 2)[:, None]

    def count(self, shape: Sequence[int]) -> int:
        return int(np.prod(shape[:-1]))

    def rows(self, x: Array, positions: Array) -> Array:
        rows = x.reshape(-1, x.shape[-1])[positions].astype(np.float64)
        centred = rows - rows.mean(axis=1, keepdims=True)
        epsilon = float_attribute(self.node, "epsilon", 1e-5)
        return np.asarray(centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon))[:, :, None]

    def targets(self, y: Array, positions: Array) -> Array:
        return np.asarray(y.reshape(-1, y.shape[-1], 1)[positions])

    def write(self, weights: Array, bias: Array | None) -> None:
        assert bias is not None
        _write(self.node, 1, weights[:, 0, 0])
        _write(self.node, 2, bias[:, 0])


def site_of(node: ir.Node, largest: int) -> Site | None:
    """The node as a site, or None.

    Args:
        largest: Most columns of one group to solve for; above it, a weighted node has a scale and a bias only.
    """
    view = LinearView.of(node)
    if view is not None:
        return Scaled(view) if view.shape[2] > largest else Weighted(view)
    if not is_standard(node):
        return None
    if node.op_type == "BatchNormalization" and _owned(node, (1, 2)) and _owned(node, (3, 4), shared=True):
        return BatchNorm(node)
    last = node.op_type == "LayerNormalization" and int_attribute(node, "axis", -1) == -1
    return LayerNorm(node) if last and _owned(node, (1, 2)) else None


def restricted(array: Array, keep: Sequence[Array | None] | None) -> Array:
    """The kept indices of each axis."""
    for axis, kept in enumerate(keep or ()):
        if kept is not None:
            array = np.take(array, kept, axis=axis)
    return array


def _owned(node: ir.Node, indices: Sequence[int], *, shared: bool = False) -> bool:
    """Whether these inputs are constant vectors, which no other node reads unless that is allowed."""
    for index in indices:
        value = node.inputs[index] if len(node.inputs) > index else None
        array = constant(value)
        if value is None or array is None or array.ndim != 1 or not np.issubdtype(array.dtype, np.floating):
            return False
        if not shared and len(list(value.uses())) > 1:
            return False
    return True


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _constant(node: ir.Node, index: int) -> Array:
    array = constant(node.inputs[index])
    assert array is not None
    return array.astype(np.float64)


def _write(node: ir.Node, index: int, array: Array) -> None:
    value, old = _input(node, index), constant(node.inputs[index])
    assert old is not None
    value.const_value = ir.tensor(array.astype(old.dtype), name=value.name)
