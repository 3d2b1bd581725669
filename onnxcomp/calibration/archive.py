"""Reading .npz files that nobody vouches for: no pickle, and every size is checked before memory is taken for it."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from onnxcomp.errors import DataError
from onnxcomp.runtime.host import detect_host

MAX_BYTES = 16 << 30
"""The most that the members of one file may hold, unpacked."""
MAX_SHARE = 0.5
"""Of the memory of the machine, for the same."""
MAX_MEMBERS = 10_000
BOMB_BYTES, BOMB_RATIO = 1 << 30, 1000
"""A member that unpacks to more than this, and to more than this many times its packed size, is refused."""


@dataclass(frozen=True)
class Header:
    """What a member says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def headers(path: Path) -> dict[str, Header]:
    """The shapes and dtypes of all arrays in the file, without unpacking them.

    Raises:
        DataError: Not a .npz file, damaged, too large, or it holds objects (which only pickle could read).
    """
    with _opened(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        _check_sizes(members, path)
        found: dict[str, Header] = {}
        for info in members:
            with archive.open(info) as stream:
                found[info.filename.removesuffix(".npy")] = _header(stream, info, path)
    if not found:
        raise DataError(f"{path.name}: no arrays in it")
    return found


def read(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The named arrays, after the checks of `headers`."""
    headers(path)
    with _opened(path) as archive:
        return {name: _array(archive, name, path) for name in names}


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; what zipfile, zlib and numpy say of damaged bytes becomes one sentence."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path.name}: the file is empty")
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (DataError, MemoryError):
        raise
    except OSError as error:
        raise DataError(f"{path.name}: can't be read: {error.strerror or error}") from error
    except Exception as error:
        raise DataError(
            f"{path.name}: not a readable .npz file: {error}", hint="Write it with numpy.savez; was it copied whole?"
        ) from error


def _check_sizes(members: list[zipfile.ZipInfo], path: Path) -> None:
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{path.name}: {len(members):,} arrays in it; more than {MAX_MEMBERS:,} are refused")
    total = sum(info.file_size for info in members)
    most = min(MAX_BYTES, int(MAX_SHARE * detect_host().memory_bytes) or MAX_BYTES)
    if total > most:
        raise DataError(
            f"{path.name}: unpacks to {total / 2**30:.1f} GiB, more than the {most / 2**30:.1f} GiB that are read here",
            hint="Give fewer samples, or a folder of .npz files with one feed each.",
        )
    for info in members:
        if info.file_size > BOMB_BYTES and info.file_size > BOMB_RATIO * info.compress_size:
            raise DataError(
                f"{path.name}: {info.filename} says it unpacks to over {BOMB_RATIO} times its size; refused"
            )


def _header(stream: IO[bytes], info: zipfile.ZipInfo, path: Path) -> Header:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    where = f"{path.name}: array {info.filename.removesuffix('.npy')!r}"
    if dtype.hasobject:
        raise DataError(f"{where} holds Python objects, which are never unpickled", hint="Save plain numbers.")
    if min(shape, default=0) < 0 or stream.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
        raise DataError(f"{where} says shape {list(shape)} of {dtype}, and the file holds another number of bytes")
    return Header(shape, dtype)


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    with archive.open(f"{name}.npy") as stream:
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read(1)  # the end of a member is where zipfile compares its checksum
    return array
