"""Affine integers: scales and zero points from ranges, and the rounding itself.

q = clip(round(x / s) + z, qmin, qmax), x̂ = (q − z)·s, with ties rounded to even as ONNX's QuantizeLinear does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxcomp.passes.integer_weights import SMALLEST_SCALE, WEIGHT_QMAX

QMAX = 255
BIAS_LIMIT = 2.0**30
"""Largest magnitude allowed for an int32 bias: leaves as much room again for the accumulated products."""


@dataclass(frozen=True)
class Affine:
    """Parameters of one tensor in 8 bits. `scale` is a float32 value held in a Python float."""

    scale: float
    zero_point: int


def from_range(low: float, high: float, clip: tuple[float, float] | None = None) -> Affine:
    """uint8 parameters that cover [low, high] and zero.

    Args:
        low: Smallest value to represent; `high`: largest.
        clip: Bounds of an absorbed Relu or Clip. The represented range then stays inside them in float32, so that ONNX
            Runtime finds the activation redundant (`IsClipMadeRedundantByQ` in qdq_util.cc) and fuses it away.

    >>> from_range(0.0, 6.0, clip=(0.0, 6.0)).zero_point
    0
    >>> from_range(0.0, 0.0)
    Affine(scale=1.0, zero_point=0)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if clip is not None:
        low, high = max(low, clip[0]), min(high, clip[1])
    if not high - low > SMALLEST_SCALE * QMAX:
        largest = 1.0 if clip is None else clip[1] / QMAX * (1 - 1e-6)
        return Affine(float(np.float32(np.clip(largest, SMALLEST_SCALE, 1.0))), 0)
    zero_point = int(np.clip(np.rint(-low / ((high - low) / QMAX)), 0, QMAX))
    # Rounding the zero point moved one end: widen the scale so that both ends still fit.
    above = high / (QMAX - zero_point) if zero_point < QMAX else 0.0
    below = -low / zero_point if zero_point else 0.0
    scale = np.float32(max(above, below))
    if clip is not None:
        while np.float32(QMAX - zero_point) * scale > clip[1] or -np.float32(zero_point) * scale < clip[0]:
            scale = np.nextafter(min(scale, _fitting(clip, zero_point)), np.float32(0))
    return Affine(float(scale), zero_point)


def _fitting(clip: tuple[float, float], zero_point: int) -> np.float32:
    above = clip[1] / (QMAX - zero_point) if zero_point < QMAX else np.inf
    below = -clip[0] / zero_point if zero_point else np.inf
    return np.float32(min(above, below))


def symmetric(low: float, high: float) -> Affine:
    """int8 parameters with zero point 0 that cover [low, high]: s = max(|low|, |high|) / 127.

    >>> symmetric(0.0, 254.0)
    Affine(scale=2.0, zero_point=0)
    """
    largest = max(-low, high)
    return Affine(float(np.float32(largest / WEIGHT_QMAX)) if largest > SMALLEST_SCALE * WEIGHT_QMAX else 1.0, 0)


def scalar_constant(value: float) -> tuple[Affine, int]:
    """Parameters that represent one constant exactly, and its integer.

    >>> affine, q = scalar_constant(-3.0); (q - affine.zero_point) * affine.scale
    -3.0
    """
    if value == 0.0:
        return Affine(1.0, 0), 0
    return (Affine(float(np.float32(value)), 0), 1) if value > 0 else (Affine(float(np.float32(-value)), 1), 0)


def widened_for_bias(scales: np.ndarray, input_scale: float, bias: np.ndarray) -> np.ndarray:
    """Raises the weight scale of channels whose bias would not fit int32 at scale s_x · s_w."""
    needed = np.abs(bias.astype(np.float64)) / (input_scale * BIAS_LIMIT)
    return np.maximum(scales.astype(np.float64), needed).astype(np.float32)


def quantize_bias(bias: np.ndarray, input_scale: float, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 bias and its scale, which must be exactly s_x · s_w in float32: the kernel ignores the one in the file and
    uses the product."""
    product = np.float32(input_scale) * scales.astype(np.float32)
    limit = float(np.iinfo(np.int32).max)
    return np.clip(np.rint(bias.astype(np.float64) / product), -limit, limit).astype(np.int32), product
