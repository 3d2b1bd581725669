"""Writes a model so that, whenever the machine stops, the file that was there or the new one is whole.

A graph and its data have one commit point. The data file is named by its content, so the new one never takes the place
of the data that the old graph names; the graph, which names it, is replaced last and atomically (`os.replace`). Each
step is on the disk before the step that depends on it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from onnxcomp.errors import ModelError
from onnxcomp.model import convert
from onnxcomp.model.data_file import DataFile, inlined, stage_data
from onnxcomp.model.staging import Staging, commit_lock, refuse, sync_folder, write_errors
from onnxcomp.model.weights import content_sha256, data_paths, tensors_of, with_tensors

INLINE_LIMIT = 1_800_000_000
"""Weights beyond this many bytes lie beside the graph: a protobuf ends at 2 GiB, and the graph needs some of it."""


@dataclass(frozen=True)
class SavedModel:
    """What was written.

    Args:
        path: Of the graph, absolute.
        data_path: Of the weights; None when they are in the graph.
        bytes: Of both.
        sha256: Over the graph file, then the data file: what `load` says of the result.
    """

    path: Path
    data_path: Path | None
    bytes: int
    sha256: str


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers and of all tensors in attributes, as they lie in a file; strings aside."""
    return sum(tensor.nbytes for tensor in tensors_of(model) if tensor.dtype != ir.DataType.STRING)


def serialize(model: ir.Model) -> bytes:
    """The model as one protobuf with its weights inside. The same model gives the same bytes; it is not changed.

    Raises:
        ModelError: More weights than `INLINE_LIMIT`, or weights that can't be read.
    """
    total = weight_bytes(model)
    if total > INLINE_LIMIT:
        raise ModelError(
            f"the model has {total:,} bytes of weights; one protobuf can hold {INLINE_LIMIT:,}",
            hint="Save it to a path with external data: save_model(model, path).",
        )
    return convert.to_bytes(convert.to_proto(with_tensors(model, inlined, inlined)))


def save_model(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external: bool | None = None,
    overwrite: bool = False,
    source: Path | None = None,
) -> SavedModel:
    """Writes the model to `path`, atomically, streaming its weights. The model is not changed.

    A symbolic link at `path` is replaced by the file; what it leads to is not touched. When a file is overwritten, the
    data files that earlier saves to the same path left are removed, so a copy of the graph alone loses its weights.

    Args:
        model: Its nodes in topological order.
        path: Of the graph. Weights go beside it, into `<stem>-<12 digits of their SHA-256>.onnx.data`.
        external: Whether initializers of 1 KiB and more lie beside the graph; None: when all take more than
            `INLINE_LIMIT`.
        overwrite: Whether an existing file may be replaced.
        source: The file that the model came from, which is never overwritten.

    Raises:
        WriteError: It exists, is the source, or can't be written there. What was there stays whole.
        ModelError: The weights can't be read, or don't fit into one file.
    """
    destination = Path(os.path.abspath(path))
    split = weight_bytes(model) > INLINE_LIMIT if external is None else external

    def content(staging: Staging) -> tuple[bytes, DataFile | None]:
        data = stage_data(model, destination, staging) if split else None
        return (convert.to_bytes(convert.to_proto(data.graph)) if data else serialize(model)), data

    return _write(destination, content, overwrite, source, data_paths(model))


def save_copy(source: Path, path: str | os.PathLike[str], *, overwrite: bool = False) -> SavedModel:
    """Copies a graph file without external data, byte for byte and atomically. Raises as `save_model`."""
    return _write(Path(os.path.abspath(path)), lambda staging: (source.read_bytes(), None), overwrite, source, ())


def _write(
    destination: Path,
    content: Callable[[Staging], tuple[bytes, DataFile | None]],
    overwrite: bool,
    source: Path | None,
    inputs: Iterable[Path],
) -> SavedModel:
    """Stages what `content` gives, and commits it."""
    inputs = list(inputs)
    with write_errors(destination), Staging(destination) as staging:
        refuse(destination, overwrite, source, inputs)
        graph, data = content(staging)
        staged, _ = staging.write(lambda file: file.write(graph))
        sha256 = content_sha256(graph, [data.staged] if data else [])
        with commit_lock(destination.parent):
            # Again, as minutes may have passed. Under the lock no other onnxcomp can create the file in between;
            # another program could, as there is no portable rename that fails when its target exists.
            refuse(destination, overwrite, source, inputs)
            replaces = os.path.lexists(destination)
            _commit(staged, data, destination)
            if replaces:
                _remove_old_data(destination, inputs, data)
    size = len(graph) + (data.size if data else 0)
    return SavedModel(destination, data.path if data else None, size, sha256)


def _commit(graph: Path, data: DataFile | None, destination: Path) -> None:
    if data is None:
        os.replace(graph, destination)
    else:
        known = os.path.lexists(data.path)
        try:
            os.replace(data.staged, data.path)
            sync_folder(destination.parent)
            os.replace(graph, destination)
        except BaseException:
            # An interrupt may arrive after the graph was replaced; then the data belongs to it, and so it does when an
            # equal file was there before.
            if not known and graph.exists():
                data.path.unlink(missing_ok=True)
            raise
    sync_folder(destination.parent)


def _remove_old_data(destination: Path, inputs: Iterable[Path], data: DataFile | None) -> None:
    pattern = re.compile(rf"{re.escape(destination.stem)}-[0-9a-f]{{12}}{re.escape(destination.suffix)}\.data")
    # The model itself may be mapped from the file that was overwritten.
    in_use = {os.path.realpath(path) for path in inputs}
    for path in destination.parent.iterdir():
        new = data is not None and path == data.path
        if pattern.fullmatch(path.name) and not new and not path.is_symlink() and os.path.realpath(path) not in in_use:
            with contextlib.suppress(OSError):
                path.unlink()
