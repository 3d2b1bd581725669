"""Integers as the operators take them.

`com.microsoft.MatMulNBits`: B uint8 [N, blocks, block·bits/8], scales float32 [N, blocks], zero points uint8
[N, ⌈blocks·bits/8⌉]; of two integers of 4 bits in a byte the first lies in the low half (docs/ContribOperators.md of
ONNX Runtime). `DequantizeLinear` of opset 21 along axis 0: integers [K, N], scales and zero points [blocks, N].
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from onnxcomp.passes.weight_only.blocks import Array, Rounded

BLOCKWISE_OPSET = 21
"""The first whose DequantizeLinear has blocks, and 4 bits."""

UNSIGNED = {4: ml_dtypes.uint4, 8: np.uint8}
SIGNED = {4: ml_dtypes.int4, 8: np.int8}


def packed(integers: Array, bits: int) -> Array:
    """uint8 [..., n] of integers below 2^bits as uint8 [..., ⌈n·bits/8⌉].

    >>> packed(np.array([1, 2, 3], np.uint8), 4).tolist()
    [33, 3]
    """
    if bits == 8:
        return integers
    even = np.pad(integers, [(0, 0)] * (integers.ndim - 1) + [(0, integers.shape[-1] % 2)])
    return np.asarray(even[..., 0::2] | even[..., 1::2] << 4, np.uint8)


def matmul_n_bits(rounded: Rounded, *, symmetric: bool) -> tuple[Array, Array, Array | None]:
    """B, scales, and the zero points where they are not the operator's default, 2^(bits−1)."""
    grid = rounded.grid
    return packed(rounded.codes, grid.bits), grid.scales, None if symmetric else packed(grid.zeros, grid.bits)


def dequantize_linear(rounded: Rounded, *, symmetric: bool) -> tuple[Array, Array, Array | None]:
    """Integers, scales and zero points; without those the integers are signed around 0."""
    grid, rows = rounded.grid, len(rounded.codes)
    codes = rounded.codes.reshape(rows, -1)[:, : rounded.columns].T
    scales = np.ascontiguousarray(grid.scales.T)
    if symmetric:
        signed = codes.astype(np.int16) - 2 ** (grid.bits - 1)
        return np.ascontiguousarray(signed.astype(SIGNED[grid.bits])), scales, None
    kind = UNSIGNED[grid.bits]
    return np.ascontiguousarray(codes.astype(kind)), scales, np.ascontiguousarray(grid.zeros.T.astype(kind))
