"""What writing a file safely takes: may it be written, temporary files beside it, one committer at a time."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeVar

from onnxcomp.errors import WriteError
from onnxcomp.report.text import printable

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")


_ABANDONED_SECONDS = 60.0
"""How long nobody wrote to a temporary file that is taken for one of a process that was killed."""


class Staging:
    """Makes temporary files in the folder of a destination; on the way out, also by an interrupt, removes those left.

    Each is locked as long as its process lives, so that one that a killed process left can be told, and is removed.

    Args:
        destination: Absolute path that the files are meant for.
    """

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self._files: list[Path] = []
        self._locks: list[int] = []

    def __enter__(self) -> Staging:
        self._remove_abandoned()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in self._files:
            with contextlib.suppress(OSError):
                path.unlink()
        for handle in self._locks:
            os.close(handle)

    def write(self, fill: Callable[[BinaryIO], T]) -> tuple[Path, T]:
        """Makes a new file and lets `fill` write it; returns its path once it is on the disk, and what `fill` gave."""
        path = self._destination.with_name(f"{self._prefix}{secrets.token_hex(8)}.tmp")
        self._files.append(path)
        # Exclusive, so that nothing planted under this name is followed; and with the rights that the umask gives.
        with open(path, "xb") as file:
            self._lock(file)
            result = fill(file)
            file.flush()
            os.fsync(file.fileno())
        return path, result

    @property
    def _prefix(self) -> str:
        return f".{self._destination.name[:50]}."

    def _lock(self, file: BinaryIO) -> None:
        if sys.platform != "win32":  # there an open file can't be renamed
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
                self._locks.append(os.dup(file.fileno()))

    def _remove_abandoned(self) -> None:
        """Removes what killed processes left for the same destination: old enough, and locked by nobody."""
        pattern = re.compile(rf"{re.escape(self._prefix)}[0-9a-f]{{16}}\.tmp")
        with contextlib.suppress(OSError):
            for path in self._destination.parent.iterdir():
                if pattern.fullmatch(path.name) and _is_abandoned(path):
                    path.unlink()


def _is_abandoned(path: Path) -> bool:
    if sys.platform == "win32" or path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return time.time() - os.fstat(file.fileno()).st_mtime > _ABANDONED_SECONDS


@contextlib.contextmanager
def commit_lock(folder: Path) -> Iterator[None]:
    """Lets one onnxcomp at a time commit in a folder, else one would remove the data of another's graph as left over.

    The lock is on the folder itself, so it leaves no file and ends with the process. Where there is no such lock
    (Windows, some network file systems), savers to the same path are not kept apart.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Makes renames in the folder last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def refuse(destination: Path, overwrite: bool, source: Path | None, inputs: Iterable[Path]) -> None:
    """Refuses a destination that must not be written, or can't.

    Args:
        destination: Absolute.
        overwrite: Whether an existing file may be replaced.
        source: A file that must never be.
        inputs: Others, the data files that the model reads its weights from.

    Raises:
        WriteError: With the reason.
    """
    shown = printable(destination, 200)
    if not destination.parent.is_dir():
        raise WriteError(f"the folder of {shown} does not exist", hint="Make it first, or choose another with -o.")
    try:
        status = os.lstat(destination)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        raise WriteError(f"{shown} is a folder", hint="Give the path of a file with -o.")
    if source is not None and _same_file(destination, source):
        raise WriteError(
            f"{shown} is the input itself", hint="Give another path with -o; the input is never overwritten."
        )
    if any(_same_file(destination, path) for path in inputs):
        raise WriteError(f"{shown} holds weights of the input", hint="Give another path with -o.")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        raise WriteError(f"{shown} is not a regular file", hint="Give another path with -o.")
    if not overwrite:
        raise WriteError(f"{shown} exists", hint="Overwrite it with --force, or give another path with -o.")


@contextlib.contextmanager
def write_errors(destination: Path) -> Iterator[None]:
    """Turns errors of the system into a `WriteError` about `destination`."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{printable(destination, 200)} can't be written: {error.strerror or error}",
            hint="Free space, or choose a folder that can be written with -o.",
        ) from error


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
