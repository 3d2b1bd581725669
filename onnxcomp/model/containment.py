"""Where the weights beside a graph may lie, and which bytes of a file a tensor may name.

A graph file names its data files itself, so a hostile one can name any file that the user can read. Accepted are
regular files inside the model's own folder, and the blobs of the *same* repository in a Hugging Face cache, where
`models--org--name/snapshots/<revision>/x` is a symbolic link to `models--org--name/blobs/<sha>`. Background:
CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, CVE-2026-34446, CVE-2026-34447.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from onnxcomp.errors import DAMAGED, ModelError
from onnxcomp.model import sniff
from onnxcomp.report.text import printable


@dataclass(frozen=True)
class DataFile:
    """A data file that was accepted.

    Args:
        path: With every symbolic link resolved.
        location: Of the file under `DataFolder.root`, with forward slashes.
        size: Bytes.
    """

    path: Path
    location: str
    size: int


@dataclass(frozen=True)
class Extent:
    """The bytes of one tensor: `length` bytes from `offset` on."""

    file: DataFile
    offset: int
    length: int


class DataFolder:
    """The data files that one graph names. Each is resolved, judged and measured once.

    Args:
        folder: The absolute folder of the graph file, links not resolved.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = Path(os.path.realpath(folder))
        self._repository = _hugging_face_repository(self._real)
        self._files: dict[str, DataFile] = {}

    @property
    def root(self) -> Path:
        """A folder that holds every accepted file; `DataFile.location` is relative to it."""
        return self._repository or self._real

    def files(self) -> list[DataFile]:
        """The files that were accepted so far, each once, in order of location."""
        return list({f.path: f for _, f in sorted(self._files.items())}.values())

    def extent(self, tensor: onnx.TensorProto, length: int, where: str) -> Extent:
        """The bytes that an external tensor names.

        Args:
            tensor: With `data_location` EXTERNAL.
            length: Bytes that its dims and type ask for.
            where: Names it in errors.

        Raises:
            ModelError: The file is missing or outside, or the bytes are not all inside it.
        """
        keys = [entry.key for entry in tensor.external_data]
        if len(keys) != len(set(keys)):
            raise ModelError(f"{where} names its external data twice", hint=DAMAGED)
        told = {entry.key: entry.value for entry in tensor.external_data}
        file = self._file(told.get("location", ""), where)
        offset = _number(told.get("offset", "0"), "offset", where)
        declared = _number(told.get("length", str(length)), "length", where)
        check_range(file.path, file.size, offset, declared, length, where)
        return Extent(file, offset, length)

    def _file(self, location: str, where: str) -> DataFile:
        if location not in self._files:
            _check_location(location, where)
            self._files[location] = self._resolve(location, where)
        return self._files[location]

    def _resolve(self, location: str, where: str) -> DataFile:
        shown = printable(location)
        path = Path(os.path.realpath(self._folder / location))
        # Judged before it is touched: an error must not tell whether a file outside exists.
        if not path.is_relative_to(self._real) and not (self._repository and path.parent == self._repository / "blobs"):
            raise ModelError(
                f"{where} keeps its data in '{shown}', a symbolic link that leads out of the model's folder",
                hint="If you trust the model, put the data file itself beside it in place of the link.",
            )
        try:
            status = path.stat()
        except OSError as error:
            raise ModelError(
                f"the data file '{shown}' of {where} can't be read: {error.strerror}",
                hint=f"It belongs in {printable(self._folder, 200)}, beside the graph; copy or download both.",
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{where} keeps its data in '{shown}', which is not a regular file", hint=DAMAGED)
        if status.st_nlink > 1:
            raise ModelError(
                f"{where} keeps its data in '{shown}', a file with {status.st_nlink} hard links: it may be another's",
                hint="If you trust the model, make a copy of the data file (cp, not cp -l) and use that.",
            )
        return DataFile(path, path.relative_to(self.root).as_posix(), status.st_size)


def check_range(path: Path, size: int, offset: int, declared: int, length: int, where: str) -> None:
    """Refuses bytes that are not all inside the file, and a declared length that is not what dims and type ask for.

    Args:
        path: Of the data file, for the message.
        size, offset, declared, length: Bytes.
        where: Names the tensor in errors.

    Raises:
        ModelError: See above.
    """
    shown = printable(path.name)
    if declared != length:
        raise ModelError(
            f"{where} declares {declared:,} bytes in '{shown}', but its dims and type need {length:,}",
            hint=DAMAGED,
        )
    if offset < 0 or offset + length > size:
        raise ModelError(
            f"{where} needs the bytes {offset:,} to {offset + length:,} of '{shown}', which has {size:,}",
            hint=_short_file_hint(path, size),
        )


def _check_location(location: str, where: str) -> None:
    shown = printable(location)
    if not location or "\0" in location:
        raise ModelError(f"{where} is stored outside the graph, but names no file", hint=DAMAGED)
    # Both flavours on every system: a model that is refused on one is refused on all.
    for flavour in (PurePosixPath(location), PureWindowsPath(location)):
        if flavour.anchor:
            raise ModelError(f"{where} keeps its data in the absolute path '{shown}'", hint=_INSIDE)
        if ".." in flavour.parts:
            raise ModelError(f"{where} keeps its data in '{shown}', outside the model's folder", hint=_INSIDE)


def _number(text: str, key: str, where: str) -> int:
    # int() would also take "1_000", " 1" and digits of other scripts, and be slow on a million of them.
    if not re.fullmatch(r"-?[0-9]{1,19}", text):
        raise ModelError(f"{where} has the {key} '{printable(text)}', which is not a number of bytes", hint=DAMAGED)
    if text.startswith("-"):
        raise ModelError(f"{where} has a negative {key}: {text}", hint=DAMAGED)
    return int(text)


def _hugging_face_repository(folder: Path) -> Path | None:
    """`…/models--org--name` when the folder is a snapshot of it, or inside one."""
    for revision in (folder, *folder.parents):
        snapshots = revision.parent
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
            return snapshots.parent
    return None


def _short_file_hint(path: Path, size: int) -> str:
    if size < sniff.HEAD_BYTES:
        guess = sniff.identify(path.read_bytes())
        if "Git LFS" in guess.what:
            return f"The data file is {guess.what}. {guess.hint}"
    return "The data file is cut off, or belongs to another graph: copy or download both again."


_INSIDE = (
    "Data is read from the model's own folder only: put the file there, and save the graph with a relative location."
)
