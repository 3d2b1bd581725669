"""Streams the large weights of a model into one data file, which is named by its content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from onnxcomp.errors import ModelError
from onnxcomp.model.staging import Staging, write_errors
from onnxcomp.model.weights import initializers_of, with_tensors, write_tensor
from onnxcomp.report.text import printable

# Smaller initializers stay in the graph, where shape inference reads them (shapes of Reshape, axes, scales).
_SMALL = 1024
# Where tensors start: vector loads want cache lines; what is mapped in pieces wants memory pages.
_CACHE_LINE, _PAGE, _LARGE = 64, 4096, 1 << 20


@dataclass(frozen=True)
class DataFile:
    """Weights on their way.

    Args:
        staged: Temporary file.
        path: Where it will lie.
        size: Bytes.
        graph: A copy of the model whose large initializers refer to `path`.
    """

    staged: Path
    path: Path
    size: int
    graph: ir.Model


def stage_data(model: ir.Model, destination: Path, staging: Staging) -> DataFile | None:
    """Streams the large initializers to a temporary file, one at a time; a shared one once."""
    large = {_identity(t): t for t in initializers_of(model) if t.dtype != ir.DataType.STRING and t.nbytes >= _SMALL}
    if not large:
        return None
    offsets: dict[object, int] = {}

    def fill(file: BinaryIO) -> _Stream:
        stream = _Stream(file, destination)
        for key, tensor in large.items():
            stream.write(bytes(-stream.position % (_PAGE if tensor.nbytes >= _LARGE else _CACHE_LINE)))
            offsets[key] = stream.position
            _copy(tensor, stream)
        return stream

    staged, stream = staging.write(fill)
    name = f"{destination.stem}-{stream.digest.hexdigest()[:12]}{destination.suffix}.data"

    def refer(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        offset = offsets.get(_identity(tensor))
        if offset is None:
            return inlined(tensor)
        return ir.ExternalTensor(
            name,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=tensor.name or "",
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )

    return DataFile(staged, destination.with_name(name), stream.position, with_tensors(model, refer, inlined))


def inlined(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor with its values in memory, as `to_proto` wants it for the graph file.

    Raises:
        ModelError: Its data file can't be read.
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    try:
        values = tensor.numpy()
    except (OSError, ValueError) as error:
        raise _unreadable(tensor, error) from error
    return ir.Tensor(
        values,
        dtype=tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


class _Stream:
    """What `tofile` writes to: counts and hashes what passes, and tells errors of writing from those of reading."""

    def __init__(self, file: BinaryIO, destination: Path) -> None:
        self._file = file
        self._destination = destination
        self.digest = hashlib.sha256()
        self.position = 0

    def write(self, data: bytes) -> int:
        with write_errors(self._destination):
            self._file.write(data)
        self.digest.update(data)
        self.position += len(data)
        return len(data)


def _identity(tensor: ir.TensorProtocol) -> object:
    """Equal for tensors that are the same bytes: one object, or one place in one file."""
    if isinstance(tensor, ir.ExternalTensor):
        return tensor.path, tensor.offset or 0, tensor.nbytes
    return id(tensor)


def _copy(tensor: ir.TensorProtocol, stream: _Stream) -> None:
    start = stream.position
    try:
        write_tensor(tensor, stream)
    except (OSError, ValueError) as error:
        raise _unreadable(tensor, error) from error
    if stream.position - start != tensor.nbytes:
        raise _unreadable(tensor, f"it gave {stream.position - start:,} bytes instead of {tensor.nbytes:,}")


def _unreadable(tensor: ir.TensorProtocol, why: object) -> ModelError:
    return ModelError(
        f"the weights of '{printable(tensor.name)}' can't be read: {printable(why, 200)}",
        hint="Was the data file of the input moved or changed meanwhile?",
    )
