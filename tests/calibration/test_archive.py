from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from onnxcomp.calibration import archive
from onnxcomp.calibration.archive import headers, read
from onnxcomp.errors import DataError


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "set.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def forged(folder: Path, shape: tuple[int, ...], data: bytes, version: tuple[int, int] = (1, 0)) -> Path:
    """A member whose header says `shape` of float32, whatever `data` is."""
    stream = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    path = folder / "forged.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", stream.getvalue() + data)
    return path


def test_headers_and_arrays_are_what_numpy_wrote(tmp_path: Path) -> None:
    x, y = np.asfortranarray(np.random.default_rng(0).random((3, 4), np.float32)), np.array(7, np.int64)
    path = saved(tmp_path, x=x, y=y)
    shapes = {name: (header.shape, header.dtype.name) for name, header in headers(path).items()}
    assert shapes == {"x": ((3, 4), "float32"), "y": ((), "int64")}
    found = read(path, ["x", "y"])
    np.testing.assert_array_equal(found["x"], x)
    np.testing.assert_array_equal(found["y"], y)


def test_both_header_versions_are_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(forged(tmp_path, (2,), bytes(8), (2, 0)), ["x"])["x"], np.zeros(2))


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(path, ["x"])
    assert "\n" not in error.value.message


def test_a_missing_empty_text_or_folder_path_is_one_sentence(tmp_path: Path) -> None:
    refused(tmp_path / "none.npz", "none.npz: can't be read: No such file")
    refused(tmp_path, "can't be read")
    path = tmp_path / "a.npz"
    path.write_bytes(b"")
    refused(path, "a.npz: the file is empty")
    path.write_text("label,value\n1,2\n")
    refused(path, "not a readable .npz")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no arrays")
    refused(path, "no arrays")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", "no array")
    refused(path, "not a readable .npz")


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, left: float) -> None:
    path = saved(tmp_path, x=np.random.default_rng(0).random(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    refused(path, "not a readable .npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_byte_in_the_data_is_found_by_the_checksum(tmp_path: Path, save: object) -> None:
    path = tmp_path / "x.npz"
    save(path, x=np.random.default_rng(0).random(4000))  # type: ignore[operator]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    refused(path, "not a readable .npz")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "x.npz"
    np.savez(path, x=np.array([Trap()], object))
    refused(path, "Python objects")


def test_a_header_that_says_more_than_the_file_holds_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    refused(forged(tmp_path, (10**12,), bytes(64)), "another number of bytes")
    refused(forged(tmp_path, (4,), bytes(64)), "another number of bytes")
    refused(forged(tmp_path, (-4, -4), bytes(64)), "another number of bytes")


def test_a_bomb_is_refused_by_its_ratio_and_plain_zeros_below_the_size_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, x=np.zeros(10**6))
    monkeypatch.setattr(archive, "BOMB_RATIO", 500)  # deflate reaches about 1030
    assert read(path, ["x"])["x"].size == 10**6
    monkeypatch.setattr(archive, "BOMB_BYTES", 10**6)
    refused(path, "x.npy says it unpacks to over 500 times its size")


def test_the_sum_of_the_members_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, x=np.ones(100), y=np.ones(100))
    monkeypatch.setattr(archive, "MAX_BYTES", 1500)
    refused(path, "more than the")
