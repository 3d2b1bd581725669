"""What becomes of a layer's output: the residual sum that it goes into, and the activation that reads it.

In front of the activation stands s = a·y + c + r: y the layer's output, a and c of a BatchNorm that may stand between,
r the other operand of an Add. The layer is fitted to the original s, less the changed model's own r, so that the last
layer of a branch makes up for what the stream lost before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.lockstep import Walk
from onnxcomp.ops.attributes import constant, float_attribute, is_standard
from onnxcomp.refit.flat import flat_ends
from onnxcomp.refit.sites import Site

Array = np.ndarray


@dataclass(frozen=True)
class Reach:
    """The way of a layer's output to the next activation.

    Args:
        scale: a, float64 [channels]; `shift`: c.
        original: Name of r in the original, None without an Add; `other`: in the changed model.
        ends: Of the activation, where all values of s below and above are alike; None without.
    """

    scale: Array
    shift: Array
    original: str | None = None
    other: str | None = None
    ends: tuple[float, float] | None = None

    def bounds(self, other: Array) -> tuple[Array, Array]:
        """The ends in terms of y, for each value of r: [n, groups, out] both."""
        assert self.ends is not None
        scale, shift = (a.reshape(other.shape[1:]) for a in (self.scale, self.shift))
        low, high = ((end - shift - other) / scale for end in self.ends)
        return np.where(scale > 0, low, high), np.where(scale > 0, high, low)


def reach(site: Site, original: Mapping[str | None, ir.Node], walk: Walk, ahead: frozenset[ir.Node]) -> Reach:
    """Follows the output of `site`, as long as nothing else reads what is on the way.

    An Add counts where its other operand is computed and does not depend on a node that is still to be refitted.

    Args:
        original: Nodes of the original by name.
        walk: Of the changed model, up to here.
        ahead: Nodes still to be refitted, `site` aside.
    """
    channels = site.weights().shape[0] * site.weights().shape[1]
    value, scale, shift = site.output, np.ones(channels), np.zeros(channels)
    use = _only_use(value)
    if use is not None and use[0].op_type == "BatchNormalization" and use[1] == 0:
        found = _affine(use[0])
        if found is None or len(found[0]) != channels or not found[0].all():
            return Reach(scale, shift)
        (scale, shift), value = found, use[0].outputs[0]
        use = _only_use(value)
    if use is None or use[0].op_type != "Add":
        return Reach(scale, shift, ends=flat_ends(value))
    node, index = use
    other, twin = node.inputs[1 - index], original.get(node.name)
    theirs = twin.inputs[1 - index] if twin is not None and twin.op_type == "Add" else None
    if other is None or theirs is None or constant(other) is not None or constant(theirs) is not None:
        return Reach(scale, shift)
    if any(n in ahead or n is site.node for n in walk.pending(other.name or "")):
        return Reach(scale, shift)
    return Reach(scale, shift, theirs.name, other.name, flat_ends(node.outputs[0]))


def _affine(node: ir.Node) -> tuple[Array, Array] | None:
    """What a BatchNorm multiplies by and adds; None when it computes them."""
    arrays = [constant(v) for v in node.inputs[1:5]]
    gamma, beta, mean, variance = (None if a is None else a.astype(np.float64) for a in arrays)
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    scale = gamma / np.sqrt(variance + float_attribute(node, "epsilon", 1e-5))
    return scale, beta - scale * mean


def _only_use(value: ir.Value) -> tuple[ir.Node, int] | None:
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or not is_standard(uses[0][0]):
        return None
    return uses[0][0], uses[0][1]
