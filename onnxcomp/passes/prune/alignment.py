"""How many classes a cell may keep, so that the channels that remain suit the kernels of the target.

ONNX Runtime computes convolutions on blocks of channels (16 with AVX-512, 8 with AVX2): it pads the last block of the
outputs, and leaves the blocked layout altogether where the inputs don't fill their blocks, or the channels are no
multiple of 4. Fewer channels then cost the same, or several times as much
(onnxruntime/core/optimizer/nchwc_transformer.cc, `NchwcTransformerImpl::TransformConv`).
"""

from __future__ import annotations

import bisect
import math

QUAD = 4
"""Below the width of a block, what the fast kernels still take."""


def allowed_counts(
    size: int, unit: int, channels_per_class: int = 1, max_ratio: float | None = None
) -> tuple[int, ...]:
    """The counts of classes that a cell may keep, descending; the first is `size`, the last at least 1.

    * Any whole number of units of channels. Axes made of several cells (Concat) then are aligned too.
    * A cell of fewer than two units of channels keeps all, or half of them if that is a multiple of 4.

    Args:
        size: Classes of the cell.
        unit: Channels; 1 allows every count.
        channels_per_class: Channels that a class owns on the axis that has to be aligned.
        max_ratio: The share of the classes that may go, 0 to 1; None: any.

    >>> allowed_counts(64, 16)
    (64, 48, 32, 16)
    >>> allowed_counts(100, 16, max_ratio=0.5)
    (100, 96, 80, 64)
    >>> allowed_counts(24, 16)
    (24, 12)
    """
    if size < 1 or unit < 1 or channels_per_class < 1:
        raise ValueError("sizes, units and channels are counted from 1")
    channels = size * channels_per_class
    if unit > 1 and channels < 2 * unit:
        halved = size % 2 == 0 and channels // 2 >= QUAD and channels // 2 % QUAD == 0
        counts = (size, size // 2) if halved else (size,)
    else:
        step = unit // math.gcd(unit, channels_per_class)
        counts = (size, *range((size - 1) // step * step, 0, -step))
    least = 1 if max_ratio is None else math.ceil(size * (1 - max_ratio) - 1e-9)
    return tuple(count for count in counts if count >= least)


def rounded(count: int, allowed: tuple[int, ...]) -> int:
    """The smallest allowed count that is not below `count`; all of them when there is none.

    Args:
        count: Classes to keep.
        allowed: As `allowed_counts` gives them.

    >>> rounded(33, (64, 48, 32, 16))
    48
    """
    ascending = allowed[::-1]
    return ascending[min(bisect.bisect_left(ascending, count), len(ascending) - 1)]
