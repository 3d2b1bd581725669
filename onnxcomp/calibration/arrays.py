"""Readers of .npz: one file with an array of samples for each input, or a folder of files with one whole feed each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxcomp.calibration.archive import Header, headers, read
from onnxcomp.calibration.check import check_dtype
from onnxcomp.calibration.options import Options, nearest
from onnxcomp.calibration.readers import Feed, Reader, indexed, stacked
from onnxcomp.calibration.rows import (
    Affine,
    channel_axis,
    grouped,
    is_float,
    natural,
    rows_per_feed,
    said,
    whole_feeds,
)
from onnxcomp.errors import DataError, UsageError
from onnxcomp.model.signature import Port, Signature


def npz_file(path: Path, options: Options, signature: Signature) -> Reader:
    """Sample i is `array[i : i + b]` of each input's array, b being the model's fixed batch size or 1.

    Each iteration unpacks the file once and holds its arrays; raw bytes become floats one feed at a time.

    Raises:
        DataError: Damaged file, missing array, arrays of different length or without a sample axis, wrong dtype.
        UsageError: An option that doesn't fit the arrays or the inputs.
    """
    found, where = headers(path), path.name
    sources = _sources(found, options, signature, where)
    labels_from = _labels_name(found, options, sources)
    rows = _rows(found, sources, labels_from, signature, where)
    columns = {port.name: _column(port, sources[port.name], found, options, signature) for port in signature.inputs}
    for column in columns.values():
        column.check(found, where)

    wanted, notes = options.count("n") or rows, []
    if wanted > rows:
        notes.append(said(f"{where}: n={wanted} is more than its {rows} rows; all are used"))
    if unused := sorted(found.keys() - set(sources.values()) - {labels_from}):
        notes.append(said(f"{where}: not inputs of the model, left alone: {', '.join(unused)}"))
    if options.text("mean") == "imagenet" and any(c.affine.scale is None and c.is_raw(found) for c in columns.values()):
        notes.append(said(f"{where}: mean=imagenet is for values from 0 to 1, and these are bytes without scale=255"))
    per_feed = rows_per_feed(signature.inputs)
    count, tail = whole_feeds(min(rows, wanted), per_feed, where)
    labels = grouped(read(path, [labels_from])[labels_from], count, per_feed) if labels_from else None

    def load() -> Callable[[int], Feed]:
        arrays = read(path, dict.fromkeys(sources.values()))

        def feed(i: int) -> Feed:
            window = slice(i * per_feed, (i + 1) * per_feed)
            return {name: column(arrays[column.array][window]) for name, column in columns.items()}

        return feed

    return indexed(load, count, name=where, labels=labels, notes=(*notes, *tail))


def npz_folder(path: Path, options: Options, signature: Signature) -> Reader:
    """Each file of the folder, in counting order, is one feed with shapes as the model takes them.

    Raises:
        DataError: No files, or arrays that only some of them have.
        UsageError: An option that asks for arithmetic; the files hold what the model takes.
    """
    if given := sorted(options.values.keys() - {"map", "n", "y"}):
        raise UsageError(f"{given[0]}= is for one .npz file; the files of a folder hold what the model takes")
    files = sorted(path.glob("*.npz"), key=natural)[: options.count("n")]
    if not files:
        raise DataError(f"{path.name}: no .npz files in it")
    first = headers(files[0])
    sources = _sources(first, options, signature, files[0].name)
    labels_from = _labels_name(first, options, sources)
    labels = stacked([_members(file, [labels_from])[labels_from] for file in files]) if labels_from else None

    def feed(i: int) -> Feed:
        arrays = _members(files[i], list(sources.values()))
        return {port.name: _typed(arrays[sources[port.name]], port) for port in signature.inputs}

    return indexed(lambda: feed, len(files), name=path.name, labels=labels)


@dataclass(frozen=True)
class _Column:
    """How rows of an array become the value of an input."""

    port: Port
    array: str
    affine: Affine
    axis: int
    nhwc: bool

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        if self.nhwc:
            rows = np.ascontiguousarray(rows.transpose(0, 3, 1, 2))
        if self.affine:
            return self.affine(rows, self.axis).astype(self.port.dtype, copy=False)
        return _typed(rows, self.port)

    def is_raw(self, found: Mapping[str, Header]) -> bool:
        return found[self.array].dtype == np.uint8

    def check(self, found: Mapping[str, Header], where: str) -> None:
        """Tries the way of one row of zeros, so that a wrong dtype or option is met before the file is unpacked."""
        header = found[self.array]
        row = self(np.zeros((1, *header.shape[1:]), header.dtype))
        check_dtype(row.dtype, self.port, f"{where}: array {self.array!r}")


def _column(port: Port, array: str, found: Mapping[str, Header], options: Options, signature: Signature) -> _Column:
    shape, affine = found[array].shape, Affine.of(options)
    nhwc = options.choice("layout", ("nchw", "nhwc")) == "nhwc"
    if len(signature.inputs) > 1 and len(shape) != 4:  # of several inputs, only images are raw pixels
        return _Column(port, array, Affine(), 1, nhwc=False)
    if nhwc and len(shape) != 4:
        raise UsageError(f"layout=nhwc, but array {array!r} has {len(shape)} axes, not 4")
    if nhwc and channel_axis(port.shape) == 3:
        raise UsageError(f"layout=nhwc turns images to NCHW, and input {port.name!r} takes NHWC", hint="Leave it out.")
    if affine and not is_float(port):
        raise UsageError(f"scale=, mean= and std= make floats, and input {port.name!r} takes {port.dtype}")
    axis = 1 if nhwc else channel_axis(port.shape) or channel_axis(shape) or 1
    return _Column(port, array, affine, axis, nhwc)


def _typed(array: np.ndarray, port: Port) -> np.ndarray:
    """Bytes become floats for a float input; bfloat16 and its like, raw bytes in .npz, get their dtype back."""
    if port.dtype is not None and array.dtype == np.uint8 and is_float(port):
        return array.astype(port.dtype)
    if port.dtype is not None and array.dtype == np.dtype(f"V{port.dtype.itemsize}") and port.dtype.kind == "V":
        return array.view(port.dtype)
    return array


def _sources(found: Mapping[str, Header], options: Options, signature: Signature, where: str) -> dict[str, str]:
    """The name of the array that each input reads."""
    inputs = [port.name for port in signature.inputs]
    mapped: dict[str, str] = {}
    for array, name in options.pairs("map").items():
        if name not in inputs:
            raise UsageError(f"map={array}:{name}: the model has no input {name!r}", hint=nearest(name, inputs))
        mapped[name] = array
    sources = {name: mapped.get(name, name) for name in inputs}
    for name, array in sources.items():
        if array not in found:
            only = next(iter(found)) if len(found) == 1 else "ARRAY"
            raise DataError(
                f"{where}: no array {array!r} for input {name!r}; it holds {', '.join(sorted(found))}",
                hint=f"Name the array: npz:{where}?map={only}:{name}",
            )
    return sources


def _labels_name(found: Mapping[str, Header], options: Options, sources: Mapping[str, str]) -> str | None:
    asked = options.text("y")
    if asked is not None and asked not in found:
        raise UsageError(f"y={asked}: no such array", hint=nearest(asked, found))
    return asked or ("y" if "y" in found and "y" not in sources.values() else None)


def _rows(
    found: Mapping[str, Header], sources: Mapping[str, str], labels: str | None, signature: Signature, where: str
) -> int:
    """The number of samples, the same in all arrays."""
    folder = "Scalars, states and the like: give a folder of .npz files, each one whole feed."
    for port in signature.inputs:
        shape = found[sources[port.name]].shape
        if not shape or (port.shape is not None and len(port.shape) != len(shape)):
            axes = "any number of" if port.shape is None else len(port.shape)
            array = f"array {sources[port.name]!r} has shape {list(shape)}"
            raise DataError(
                f"{where}: {array}, and input {port.name!r} takes {axes} axes with the samples on the first",
                hint=folder,
            )
    rows = {array: found[array].shape[0] for array in sources.values()}
    if len(set(rows.values())) > 1:
        lengths = ", ".join(f"{array} {n}" for array, n in rows.items())
        raise DataError(f"{where}: the arrays have different numbers of samples: {lengths}", hint=folder)
    count = next(iter(rows.values()), 0)
    if labels is not None and (found[labels].shape or (0,))[0] != count:
        raise DataError(f"{where}: labels {labels!r} of shape {list(found[labels].shape)} for {count} samples")
    return count


def _members(file: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Arrays of one file of a folder."""
    if absent := sorted(set(names) - headers(file).keys()):
        raise DataError(f"{file.name}: no array {absent[0]!r} in it, as the first file of the folder has")
    return read(file, names)
