"""GPTQ: weights rounded column by column, the error of each made up for by the columns after it.

With H = E[x·xᵀ] of the layer's inputs and Uᵀ·U = H⁻¹ (Cholesky), rounding column k leaves the error
e = (w_k − ŵ_k) / U_kk, and the columns j > k that are still floats become w_j − e·U_kj: what least squares says.
Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(arXiv 2210.17323), algorithm 1; the order by falling H_kk and scales fixed beforehand are from its authors' code.
"""

from __future__ import annotations

import numpy as np

from onnxcomp.passes.weight_only.blocks import Array, Grid, Rounded

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it, so that directions without data have an inverse."""

LAZY = 128
"""Columns whose errors are handed on together, in one product."""

MOST_DAMPING = 10.0


def gptq(matrix: Array, moments: Array, grid: Grid, block: int) -> Rounded | None:
    """The matrix rounded to `grid`, with errors fed back; None where H can't be inverted.

    Args:
        matrix: W, float32 [N, K].
        moments: H, float64 [K, K].
        grid: Scales and zero points, made from W.
        block: Columns that share a scale.
    """
    columns = matrix.shape[1]
    # The inputs that matter most come first, while many columns are left to make up for them.
    order = np.argsort(-np.diag(moments), kind="stable")
    factor = _inverse_factor(moments[np.ix_(order, order)])
    if factor is None:
        return None
    factor = factor.astype(np.float32)
    most = np.float32(2**grid.bits - 1)
    # Columns as rows: each is read and written whole.
    left = np.ascontiguousarray(matrix.T[order], np.float32)
    scales, zeros = (np.ascontiguousarray(a.T[order // block], np.float32) for a in (grid.scales, grid.zeros))
    codes = np.empty_like(left)
    for start in range(0, columns, LAZY):
        stop = min(start + LAZY, columns)
        inner, work = factor[start:stop, start:stop], left[start:stop]
        errors = np.empty_like(work)
        for i, k in enumerate(range(start, stop)):
            codes[k] = np.clip(np.rint(work[i] / scales[k] + zeros[k]), 0, most)
            errors[i] = (work[i] - (codes[k] - zeros[k]) * scales[k]) / inner[i, i]
            work[i + 1 :] -= inner[i, i + 1 :, None] * errors[i]
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return Rounded(_in_blocks(codes.T, order, grid, block), grid, columns)


def _inverse_factor(moments: Array) -> Array | None:
    """U, upper triangular with Uᵀ·U = (H + λI)⁻¹; λ grows until there is one."""
    diagonal = np.diag(moments)
    unit = float(diagonal.mean())
    damping = DAMPING
    while unit > 0 and np.isfinite(unit) and damping <= MOST_DAMPING:
        try:
            inverse = np.linalg.inv(moments + damping * unit * np.eye(len(moments)))
            return np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2).T)
        except np.linalg.LinAlgError:
            damping *= 10
    return None


def _in_blocks(codes: Array, order: Array, grid: Grid, block: int) -> Array:
    """[N, K] in the order of rounding → uint8 [N, blocks, block], zero points where K ends."""
    rows, blocks = grid.zeros.shape
    result = np.repeat(grid.zeros, block, axis=1)
    result[:, order] = codes
    return result.reshape(rows, blocks, block)
