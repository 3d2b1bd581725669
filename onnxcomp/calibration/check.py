"""Every feed is held against the model's inputs when it is read: a wrong sample is named, not met inside a kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from onnxcomp.calibration.options import nearest
from onnxcomp.calibration.readers import Feed, Reader
from onnxcomp.errors import DataError
from onnxcomp.model.signature import Port, Signature


def checked(reader: Reader, signature: Signature) -> Reader:
    """The same reader, with each feed checked when it is read; samples are counted from 0.

    Raises:
        DataError: While iterating: a missing or unexpected input, a wrong dtype, rank or size, NaN or infinity, no
            feeds at all, or another number of them than the reader said.
    """

    def whole() -> Iterator[Feed]:
        seen = 0
        for seen, feed in enumerate(reader.open(), start=1):
            check_feed(feed, signature, f"{reader.name}: sample {seen - 1}")
            yield feed
        if not seen:
            raise DataError(f"{reader.name}: no feeds in it", hint="Give at least one; hundreds make good statistics.")
        if reader.count not in (None, seen):
            raise DataError(f"{reader.name}: {seen} feeds were read, and it said {reader.count}")

    def window(start: int, stop: int) -> Iterator[Feed]:
        for i, feed in enumerate(reader.between(start, stop), start):
            check_feed(feed, signature, f"{reader.name}: sample {i}")
            yield feed

    return replace(reader, open=whole, window=window)


def check_feed(feed: Feed, signature: Signature, where: str) -> None:
    """Holds one feed against the inputs; `where` begins the error's sentence."""
    if not isinstance(feed, Mapping):
        raise DataError(f"{where} is a {type(feed).__name__}, not a dict of arrays by input name")
    wanted = [port.name for port in signature.inputs]
    for name in feed:
        if name not in wanted:
            raise DataError(f"{where}: the model has no input {name!r}", hint=nearest(str(name), wanted))
    for port in signature.inputs:
        if port.name not in feed:
            raise DataError(f"{where}: input {port.name!r} is missing", hint=nearest(port.name, feed))
        _check_value(feed[port.name], port, f"{where}: input {port.name!r}")


def check_dtype(dtype: np.dtype, port: Port, where: str) -> None:
    """Raises the sentence that names the conversion when `dtype` is not the input's."""
    if port.dtype is None or dtype == port.dtype:
        return
    module = "np" if hasattr(np, port.dtype.name) else "ml_dtypes"
    raise DataError(
        f"{where} is {dtype.name if dtype.isnative else dtype.str} and the model takes {port.dtype.name}",
        hint=f"Convert it: array.astype({module}.{port.dtype.name}).",
    )


def _check_value(value: object, port: Port, where: str) -> None:
    if port.dtype is None:  # strings, sequences, optionals: ORT knows best
        return
    if not isinstance(value, np.ndarray):
        raise DataError(f"{where} is a {type(value).__name__}, not an array", hint="Wrap it: np.asarray(value).")
    check_dtype(value.dtype, port, where)
    _check_shape(value.shape, port, where)
    if not (finite := np.isfinite(value)).all():
        bad = value[~finite]
        what = "NaN" if np.isnan(bad).any() else "infinity"
        first = np.unravel_index(int(np.argmin(finite)), value.shape)
        raise DataError(
            f"{where} has {what}: {bad.size} of {value.size} values, the first at {[int(i) for i in first]}",
            hint="Leave the sample out, or mend it; a mask can use the lowest finite number.",
        )


def _check_shape(shape: tuple[int, ...], port: Port, where: str) -> None:
    # Equal symbols need not be equal sizes: exporters reuse names, and ONNX Runtime takes such feeds too.
    if 0 in shape:
        raise DataError(f"{where} is empty: shape {list(shape)}")
    if port.shape is None:
        return
    wanted = f"[{', '.join('?' if d is None else str(d) for d in port.shape)}]"
    if len(shape) != len(port.shape):
        raise DataError(
            f"{where} has {len(shape)} axes {list(shape)}, and the model takes {len(port.shape)}: {wanted}",
            hint="Is the batch axis missing? array[np.newaxis] adds it." if len(shape) == len(port.shape) - 1 else None,
        )
    for axis, (size, dim) in enumerate(zip(shape, port.shape, strict=True)):
        if isinstance(dim, int) and size != dim:
            raise DataError(f"{where} has shape {list(shape)}, and the model takes {wanted}: axis {axis} must be {dim}")
