"""Least squares in closed form, on second moments: ridge towards given weights, and errors of any weights.

Rows x, targets y, weights W [groups, out, columns]. With a bias all moments are taken about the means, and the best
bias is b = E[y] − W·E[x].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxcomp.calibration.gram import Moments

Array = np.ndarray


def damped(xx: Array, strength: float) -> Array:
    """H + λI with λ = `strength` · mean diagonal of each group; [groups, d, d]. All zero: the identity."""
    diagonal = np.einsum("gdd->gd", xx)
    level = diagonal.mean(axis=1) * strength
    level = np.where(diagonal.max(axis=1) > 0, np.maximum(level, np.finfo(np.float64).tiny), 1.0)
    result = xx.copy()
    np.einsum("gdd->gd", result)[...] += level[:, None]
    return result


def right_solve(numerator: Array, matrix: Array) -> Array:
    """N·A⁻¹ for symmetric A: [groups, out, d], [groups, d, d] -> [groups, out, d]."""
    return np.swapaxes(np.linalg.solve(matrix, np.swapaxes(numerator, 1, 2)), 1, 2)


def ridge(moments: Moments, towards: Array, strength: float) -> Array:
    """argmin over W of E‖y − W·x‖² + λ‖W − W₀‖²: W = W₀ + (E[yxᵀ] − W₀·E[xxᵀ])·(E[xxᵀ] + λI)⁻¹.

    Args:
        towards: W₀ [groups, out, columns].
        strength: λ as a share of the mean diagonal of E[xxᵀ].
    """
    return np.asarray(towards + right_solve(moments.yx - towards @ moments.xx, damped(moments.xx, strength)))


def best_bias(moments: Moments, weights: Array) -> Array:
    """E[y] − W·E[x], [groups, out]."""
    return np.asarray(moments.mean_y - np.einsum("god,gd->go", weights, moments.mean_x))


def error(moments: Moments, weights: Array, bias: Array | None) -> Array:
    """E(y − W·x − b)² of each output, [groups, out]; a bias needs centred moments, None needs those about zero."""
    quadratic = np.einsum("god,god->go", weights @ moments.xx - 2 * moments.yx, weights) + moments.yy
    if bias is not None:
        quadratic = quadratic + (best_bias(moments, weights) - bias) ** 2
    return np.asarray(np.maximum(quadratic, 0.0))


def resolved(weights: Array, xx: Array, kept: Array, strength: float) -> Array:
    """What `weights` [out, d] become on the columns that are left, so that the output changes least.

    Ŵ_S = W·(H + λI)_{:,S}·((H + λI)_{SS})⁻¹; zero elsewhere. One group.

    Args:
        xx: H [d, d].
        kept: S, bool [d].
    """
    matrix = damped(xx[None], strength)[0]
    result = np.zeros_like(weights)
    if kept.any():
        result[:, kept] = np.linalg.solve(matrix[np.ix_(kept, kept)], matrix[kept] @ weights.T).T
    return result


def relative_error(wanted: Sequence[Sequence[Array]], given: Sequence[Sequence[Array]]) -> float:
    """Σ‖y − ŷ‖² / Σ‖y − mean(y)‖² of each floating-point output, averaged over the outputs.

    The mean is over axis 0 and all batches, for outputs of one shape; of others the mean of all values.

    Args:
        wanted: Outputs of each batch; `given` likewise. An output that changed its shape counts as lost.
    """
    shares = []
    for ys, zs in zip(zip(*wanted, strict=True), zip(*given, strict=True), strict=True):
        if not all(isinstance(y, np.ndarray) and np.issubdtype(y.dtype, np.floating) for y in ys):
            continue
        variance, noise, total = _variance([y.astype(np.float64) for y in ys]), 0.0, 0
        for y, z in zip(ys, zs, strict=True):
            noise += float(((y.astype(np.float64) - z) ** 2).sum()) if y.shape == z.shape else variance * y.size
            total += y.size
        if variance > 0:
            shares.append(noise / (variance * total))
    return float(np.mean(shares)) if shares else 0.0


def _variance(ys: list[Array]) -> float:
    """Mean squared deviation from the mean over samples, or from that of all values where there is one sample."""
    alike = len({y.shape[1:] for y in ys}) == 1 and ys[0].ndim > 0 and sum(len(y) for y in ys) > 1
    rows = np.concatenate([y if alike else y.reshape(-1) for y in ys])
    return float(((rows - rows.mean(axis=0)) ** 2).mean())
