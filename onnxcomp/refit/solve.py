"""Least squares in closed form, on second moments: ridge towards given weights, and errors of any weights.

Rows x, targets y, weights W [groups, out, columns]. With a bias all moments are taken about the means, and the best
bias is b = E[y] − W·E[x].
"""

from __future__ import annotations

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
