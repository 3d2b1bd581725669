"""One layer rounded by each method, and what its output loses by it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxcomp.passes.weight_only.blocks import Array, Rounded, cut
from onnxcomp.passes.weight_only.config import Bits, Method
from onnxcomp.passes.weight_only.gptq import gptq
from onnxcomp.passes.weight_only.grid import range_grid, searched_grid


def round_matrix(
    matrix: Array, method: Method, bits: Bits, block: int, *, symmetric: bool, moments: Array | None = None
) -> Rounded | None:
    """The matrix in blocks of integers; None where the method can't be had for it.

    Args:
        matrix: W, float32 [N, K].
        moments: H of its inputs, float64 [K, K]; gptq needs it.
    """
    return METHODS[method](matrix, bits, block, symmetric, moments)


def output_error(matrix: Array, rounded: Array, moments: Array | None, whole: float | None = None) -> float:
    """Σ‖(W − Ŵ)x‖² / Σ‖Wx‖² from H = E[x·xᵀ]; without it ‖W − Ŵ‖² / ‖W‖².

    Args:
        whole: `energy` of W, where it is known.
    """
    whole = energy(matrix, moments) if whole is None else whole
    return energy(matrix - rounded, moments) / whole if whole > 0 else 0.0


def energy(matrix: Array, moments: Array | None) -> float:
    """E‖Wx‖² = tr(W·H·Wᵀ), or ‖W‖² without H; the products in float32."""
    if moments is None:
        return float(np.square(matrix, dtype=np.float64).sum())
    return float(np.einsum("nk,nk->n", matrix @ moments.astype(np.float32), matrix).sum(dtype=np.float64))


def _rtn(matrix: Array, bits: Bits, block: int, symmetric: bool, moments: Array | None) -> Rounded | None:
    blocks = cut(matrix, block)
    grid = range_grid(blocks, bits, symmetric=symmetric)
    return Rounded(grid.codes(blocks), grid, matrix.shape[1])


def _mse(matrix: Array, bits: Bits, block: int, symmetric: bool, moments: Array | None) -> Rounded | None:
    blocks = cut(matrix, block)
    grid = searched_grid(blocks, bits, symmetric=symmetric)
    return Rounded(grid.codes(blocks), grid, matrix.shape[1])


def _gptq(matrix: Array, bits: Bits, block: int, symmetric: bool, moments: Array | None) -> Rounded | None:
    if moments is None:
        return None
    # Scales that count errors by the inputs' sizes were measured to be no better here.
    grid = searched_grid(cut(matrix, block), bits, symmetric=symmetric)
    return gptq(matrix, moments, grid, block)


METHODS: dict[Method, Callable[[Array, Bits, int, bool, Array | None], Rounded | None]] = {
    "rtn": _rtn,
    "mse": _mse,
    "gptq": _gptq,
}
