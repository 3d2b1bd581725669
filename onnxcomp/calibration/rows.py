"""From the rows of a data set to feeds: how many a model takes at once, the order of axes, arithmetic on pixels."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.options import Options
from onnxcomp.errors import DataError, UsageError
from onnxcomp.model.signature import Port

LOG = logging.getLogger("onnxcomp")
MEAN = {"imagenet": (0.485, 0.456, 0.406)}
STD = {"imagenet": (0.229, 0.224, 0.225)}
_CHANNELS = (3, 1, 4)
"""Numbers of channels that images have, the likeliest first: [N, 4, 5, 3] is NHWC."""


def said(sentence: str) -> str:
    """A note for the report, said in the log as well."""
    LOG.warning(sentence)
    return sentence


def natural(path: Path) -> tuple[tuple[int, str], ...]:
    """A sort key that counts: `set_2` before `set_10`."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path.name))


def rows_per_feed(ports: Iterable[Port]) -> int:
    """The fixed first dimension of the inputs, 1 where it is dynamic.

    Raises:
        DataError: The inputs want different numbers of rows.
    """
    fixed = {port.shape[0] for port in ports if port.shape and isinstance(port.shape[0], int)}
    if len(fixed) > 1:
        raise DataError(
            f"the inputs take {' and '.join(map(str, sorted(fixed)))} rows at once, so rows can't be dealt out to them",
            hint="Give a folder of .npz files, each one whole feed.",
        )
    return fixed.pop() if fixed else 1


def whole_feeds(rows: int, per_feed: int, name: str) -> tuple[int, tuple[str, ...]]:
    """The number of feeds in `rows`, and a note when the last ones don't fill a feed."""
    count, left = divmod(rows, per_feed)
    if not count:
        raise DataError(f"{name}: {rows} rows, and the model takes {per_feed} at once", hint="Give more of them.")
    return count, (
        said(f"{name}: the last {left} of {rows} rows don't fill a feed of {per_feed}; left out"),
    ) if left else ()


def grouped(labels: np.ndarray, count: int, per_feed: int) -> np.ndarray:
    """Labels of rows as labels of feeds: `[count]` entries, each the array of its rows where there are several."""
    labels = labels[: count * per_feed]
    return labels if per_feed == 1 else labels.reshape(count, per_feed, *labels.shape[1:])


def is_float(port: Port) -> bool:
    """Whether an input takes floating-point numbers, those that only ml_dtypes has among them."""
    return port.dtype is not None and ir.DataType.from_numpy(port.dtype).is_floating_point()


def channel_axis(shape: Sequence[object] | None) -> int | None:
    """The axis of the channels in the shape of a batch of images: 1, 3, or None when the shape doesn't tell.

    >>> channel_axis(("N", 3, 224, 224)), channel_axis((1, 224, 224, 3)), channel_axis(("N", "C", "H", "W"))
    (1, 3, None)
    """
    if shape is None or len(shape) != 4:
        return None
    return next((axis for channels in _CHANNELS for axis in (1, 3) if shape[axis] == channels), None)


@dataclass(frozen=True)
class Affine:
    """`(x / scale - mean) / std` by channel, in float32.

    Args:
        scale: Divides raw values first (255 for bytes).
        mean, std: One number, or one for each channel; in the unit after the scale.
    """

    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def of(cls, options: Options, *, scale: float | None = None) -> Affine:
        """From `scale=`, `mean=` and `std=`; `scale` is the default of the first."""
        std = options.numbers("std", STD)
        if std is not None and min(std) <= 0:
            raise UsageError(f"std={options.text('std')} must be above zero")
        given = options.number("scale")
        return cls(scale if given is None else given, options.numbers("mean", MEAN), std)

    def __bool__(self) -> bool:
        return (self.scale, self.mean, self.std) != (None, None, None)

    def __call__(self, x: np.ndarray, axis: int) -> np.ndarray:
        y = x.astype(np.float32)
        if self.scale is not None:
            y /= np.float32(self.scale)
        if self.mean is not None:
            y -= _along(self.mean, y, axis, "mean")
        if self.std is not None:
            y /= _along(self.std, y, axis, "std")
        return y


def _along(values: tuple[float, ...], x: np.ndarray, axis: int, key: str) -> np.ndarray:
    if len(values) == 1:
        return np.asarray(values, np.float32)
    channels = x.shape[axis] if axis < x.ndim else 1
    if len(values) != channels:
        raise UsageError(f"{key}= has {len(values)} numbers for {channels} channels")
    shape = [1] * x.ndim
    shape[axis] = -1
    return np.asarray(values, np.float32).reshape(shape)
