"""Refit for what a Relu lets through: below zero every value is as good as any other.

With s the original value in front of the Relu and ŝ ours, the loss is (s − ŝ)² where s > 0 and max(ŝ, 0)² elsewhere: a
convex function, minimised by solving least squares again and again with the targets t = s where s > 0, else min(ŝ, 0)
(majorise and minimise; after Zhang et al. 2015, the nonlinear reconstruction). The second moments of the inputs stay,
so that a round costs two products. Clip and others with flat ends work the same way, at both ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.gram import Moments
from onnxcomp.ops.attributes import constant, float_attribute, qualified
from onnxcomp.refit.solve import damped

Array = np.ndarray

ROUNDS = 5
"""More bring little: each round starts from the solution before."""


def _clip(node: ir.Node) -> tuple[float, float]:
    ends = [-np.inf, np.inf]
    for index in (1, 2):
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is not None:
            array = constant(value)
            ends[index - 1] = float(array.item()) if array is not None and array.size == 1 else ends[index - 1]
    return ends[0], ends[1]


def _hard_sigmoid(node: ir.Node) -> tuple[float, float]:
    """max(0, min(1, α·x + β)) is flat below −β/α and above (1 − β)/α."""
    alpha, beta = float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5)
    return (-beta / alpha, (1 - beta) / alpha) if alpha > 0 else (-np.inf, np.inf)


FLAT: dict[str, Callable[[ir.Node], tuple[float, float]]] = {
    "Relu": lambda node: (0.0, np.inf),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node: (-3.0, np.inf),
}
"""The ends outside of which an operator gives one and the same value."""


def flat_ends(value: ir.Value) -> tuple[float, float] | None:
    """The ends below and above which all values of `value` are alike to all that read it, or None."""
    uses = list(value.uses())
    if not uses or value.is_graph_output():
        return None
    ends = [FLAT[qualified(n)](n) for n, i in uses if i == 0 and qualified(n) in FLAT]
    if len(ends) != len(uses):
        return None
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    return (low, high) if np.isfinite(low) or np.isfinite(high) else None


@dataclass
class Rows:
    """Rows and targets with the ends outside of which a target is as good as the end.

    Args:
        x: [n, groups, columns]; y, low, high: [n, groups, out]; in parts.
    """

    x: list[Array] = field(default_factory=list)
    y: list[Array] = field(default_factory=list)
    low: list[Array] = field(default_factory=list)
    high: list[Array] = field(default_factory=list)

    def add(self, x: Array, y: Array, low: Array, high: Array) -> None:
        for parts, part in zip((self.x, self.y, self.low, self.high), (x, y, low, high), strict=True):
            parts.append(np.ascontiguousarray(np.moveaxis(part, 0, 1), np.float32))  # [groups, n, …]

    def targets(self, weights: Array, bias: Array) -> tuple[Array, Array]:
        """Σ t and Σ t·xᵀ over all rows for the predictions of W and b: [groups, out], [groups, out, columns]."""
        total, products = np.zeros(bias.shape), np.zeros(weights.shape)
        for x, y, low, high in zip(self.x, self.y, self.low, self.high, strict=True):
            given = _predicted(x, weights, bias)
            t = np.where(y <= low, np.minimum(given, low), np.where(y >= high, np.maximum(given, high), y))
            total += t.sum(axis=1, dtype=np.float64)
            products += np.swapaxes(t, 1, 2) @ x
        return total, products

    def error(self, weights: Array, bias: Array) -> Array:
        """Mean squared difference of what is between the ends, [groups, out]."""
        total, count = np.zeros(bias.shape), 0
        for x, y, low, high in zip(self.x, self.y, self.low, self.high, strict=True):
            lost = np.clip(_predicted(x, weights, bias), low, high) - np.clip(y, low, high)
            total += np.einsum("gno,gno->go", lost, lost, dtype=np.float64)
            count += x.shape[1]
        return total / max(count, 1)

    def energy(self) -> float:
        """Mean squared deviation of the clipped targets from their means, summed over the outputs."""
        y = np.concatenate([np.clip(*parts) for parts in zip(self.y, self.low, self.high, strict=True)], axis=1)
        return float(y.var(axis=1, dtype=np.float64).sum())


def _predicted(x: Array, weights: Array, bias: Array) -> Array:
    return np.asarray(x @ np.swapaxes(weights, 1, 2).astype(np.float32) + bias[:, None].astype(np.float32))


def solve_flat(
    rows: Rows, moments: Moments, weights: Array, bias: Array, towards: Array, strength: float
) -> tuple[Array, Array]:
    """Least squares between the ends, with a bias; see the module.

    Args:
        rows: To fit on; `moments`: theirs, about the means.
        weights: Where to start, [groups, out, columns]; `bias` [groups, out].
        towards: W₀ of the ridge; `strength`: λ as a share of the mean diagonal.
    """
    count = sum(x.shape[1] for x in rows.x)
    inverse = np.linalg.inv(damped(moments.xx, strength))
    for _ in range(ROUNDS):
        total, products = rows.targets(weights, bias)
        mean = total / count
        yx = products / count - mean[:, :, None] * moments.mean_x[:, None, :]
        weights = towards + (yx - towards @ moments.xx) @ inverse
        bias = mean - np.einsum("god,gd->go", weights, moments.mean_x)
    return weights, bias
