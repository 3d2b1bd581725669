"""The containment matrix: each row through a bare file name (in the current directory), a relative and a full path.

Every refused row names a file that exists and has the right bytes, so that only the rule can be what refuses it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcomp.errors import ModelError
from onnxcomp.model.load import LoadedModel, load

VALUES = np.arange(8, dtype="<f4")
Opened = Callable[[Path], LoadedModel]


@pytest.fixture(params=["bare", "full", "relative"])
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Opened:
    def open_model(path: Path) -> LoadedModel:
        if request.param == "full":
            return load(path)
        monkeypatch.chdir(path.parent if request.param == "bare" else path.parent.parent)
        return load(path.name if request.param == "bare" else os.path.join(path.parent.name, path.name))

    return open_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(VALUES.tobytes())
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def _write(folder: Path, name: str = "model.onnx", dims: tuple[int, ...] = (8,), dtype: int = 1, **told: str) -> Path:
    """A graph whose initializer `weight` refers to external data with the given keys."""
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[N] x) => (float[N] y) { y = Abs(x) }'
    )
    tensor = proto.graph.initializer.add(name="weight", data_type=dtype, dims=dims)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in told.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def _weight(loaded: LoadedModel) -> np.ndarray:
    return loaded.model.graph.initializers["weight"].const_value.numpy()


def _refusal(opened: Opened, path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        opened(path)
    assert "'weight'" in caught.value.message, "a refusal names the tensor"
    assert caught.value.hint
    return caught.value.message


def test_the_trap_is_there_onnx_ir_reads_anything_through_a_bare_file_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    _write(folder, location="../secret")
    monkeypatch.chdir(folder)
    np.testing.assert_array_equal(ir.load("model.onnx").graph.initializers["weight"].const_value.numpy(), VALUES)


def test_a_data_file_beside_the_graph_is_read(folder: Path, opened: Opened):
    (folder / "w.data").write_bytes(VALUES.tobytes())
    np.testing.assert_array_equal(_weight(opened(_write(folder, location="w.data"))), VALUES)


def test_a_data_file_in_a_folder_below_is_read(folder: Path, opened: Opened):
    (folder / "sub").mkdir()
    (folder / "sub" / "w.data").write_bytes(VALUES.tobytes())
    np.testing.assert_array_equal(_weight(opened(_write(folder, location="./sub/w.data"))), VALUES)


@pytest.mark.parametrize("location", ["../secret", "sub/../../secret", "..\\secret", "sub\\..\\..\\secret"])
def test_a_location_that_climbs_out_is_refused(folder: Path, opened: Opened, location: str):
    (folder / "sub").mkdir()
    assert "outside the model's folder" in _refusal(opened, _write(folder, location=location))


@pytest.mark.parametrize("location", ["/etc/passwd", "C:\\secret", "\\\\server\\share\\x", "C:secret"])
def test_an_absolute_location_is_refused_in_the_manner_of_every_system(folder: Path, opened: Opened, location: str):
    assert "absolute path" in _refusal(opened, _write(folder, location=location))


def test_the_absolute_path_of_the_right_file_is_refused_too(folder: Path, opened: Opened):
    (folder / "w.data").write_bytes(VALUES.tobytes())
    assert "absolute path" in _refusal(opened, _write(folder, location=str(folder / "w.data")))


def test_a_symbolic_link_out_of_the_folder_is_refused(folder: Path, opened: Opened):
    (folder / "w.data").symlink_to("../secret")
    assert "leads out of the model's folder" in _refusal(opened, _write(folder, location="w.data"))


def test_a_folder_that_is_a_symbolic_link_out_is_refused(folder: Path, opened: Opened):
    (folder / "sub").symlink_to(folder.parent, target_is_directory=True)
    assert "leads out of the model's folder" in _refusal(opened, _write(folder, location="sub/secret"))


def test_a_link_out_is_refused_in_the_same_words_whether_its_target_exists_or_not(folder: Path, opened: Opened):
    (folder / "w.data").symlink_to("../nothing")
    assert "leads out of the model's folder" in _refusal(opened, _write(folder, location="w.data"))


def test_a_symbolic_link_inside_the_folder_is_followed(folder: Path, opened: Opened):
    (folder / "real.data").write_bytes(VALUES.tobytes())
    (folder / "w.data").symlink_to("real.data")
    np.testing.assert_array_equal(_weight(opened(_write(folder, location="w.data"))), VALUES)


def test_a_model_folder_that_is_itself_a_symbolic_link_is_as_good_as_its_target(folder: Path, opened: Opened):
    (folder / "w.data").write_bytes(VALUES.tobytes())
    _write(folder, location="w.data")
    (folder.parent / "alias").symlink_to(folder)
    np.testing.assert_array_equal(_weight(opened(folder.parent / "alias" / "model.onnx")), VALUES)


def test_a_hard_link_is_refused(folder: Path, opened: Opened):
    os.link(folder.parent / "secret", folder / "w.data")
    assert "2 hard links" in _refusal(opened, _write(folder, location="w.data"))


def test_a_pipe_is_refused_and_not_waited_for(folder: Path, opened: Opened):
    os.mkfifo(folder / "w.data")
    assert "not a regular file" in _refusal(opened, _write(folder, location="w.data"))


@pytest.mark.parametrize("location", ["", ".", "w\0.data"])
def test_a_location_that_names_no_file_is_refused(folder: Path, opened: Opened, location: str):
    _refusal(opened, _write(folder, location=location))


def test_a_missing_data_file_is_named_with_the_folder_where_it_belongs(folder: Path, opened: Opened):
    with pytest.raises(ModelError, match=r"'w\.data' of initializer 'weight' can't be read") as caught:
        opened(_write(folder, location="w.data"))
    assert str(folder) in caught.value.hint


def _hugging_face(root: Path, location: str, target: str, onnx_folder: str = "") -> Path:
    """A cache entry as huggingface_hub lays it out: graph and data are links to blobs."""
    repository = root / "models--org--name"
    snapshot = repository / "snapshots" / "0123abcd" / onnx_folder
    blobs = repository / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "da7a").write_bytes(VALUES.tobytes())
    _write(blobs, "94a4", location=location)
    snapshot.mkdir(parents=True)
    up = "../" * (2 + len(Path(onnx_folder).parts))
    (snapshot / "model.onnx").symlink_to(f"{up}blobs/94a4")
    (snapshot / location).symlink_to(target if target.startswith("/") else up + target)
    return snapshot / "model.onnx"


@pytest.mark.parametrize("onnx_folder", ["", "onnx"])
def test_the_layout_of_a_hugging_face_cache_is_resolved(tmp_path: Path, opened: Opened, onnx_folder: str):
    loaded = opened(_hugging_face(tmp_path, "model.onnx_data", "blobs/da7a", onnx_folder))
    np.testing.assert_array_equal(_weight(loaded), VALUES)
    assert loaded.name == "model.onnx"


def test_the_blobs_of_another_repository_are_refused(tmp_path: Path, opened: Opened):
    other = tmp_path / "models--other--name" / "blobs"
    other.mkdir(parents=True)
    (other / "da7a").write_bytes(VALUES.tobytes())
    path = _hugging_face(tmp_path, "model.onnx_data", "../models--other--name/blobs/da7a")
    assert "leads out" in _refusal(opened, path)


@pytest.mark.parametrize("target", ["refs", "blobs/deep/da7a", "../secret"])
def test_other_files_of_a_hugging_face_cache_are_refused(tmp_path: Path, opened: Opened, target: str):
    (tmp_path / "secret").write_bytes(VALUES.tobytes())
    path = _hugging_face(tmp_path, "model.onnx_data", target)
    for name in ("refs", "blobs/deep/da7a"):
        file = tmp_path / "models--org--name" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(VALUES.tobytes())
    assert "leads out" in _refusal(opened, path)


def test_a_graph_that_is_a_symbolic_link_elsewhere_gets_the_hint_to_give_its_target(folder: Path, opened: Opened):
    (folder / "w.data").write_bytes(VALUES.tobytes())
    _write(folder, location="w.data")
    (folder.parent / "links").mkdir()
    link = folder.parent / "links" / "model.onnx"
    link.symlink_to(folder / "model.onnx")
    with pytest.raises(ModelError, match="symbolic link") as caught:
        opened(link)
    assert str(folder / "model.onnx") in caught.value.hint


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"offset": "-1"}, "negative offset"),
        ({"length": "-32"}, "negative length"),
        ({"offset": "4"}, "bytes 4 to 36 of 'w.data', which has 32"),
        ({"offset": "9223372036854775807"}, "which has 32"),
        ({"length": str(10**12)}, "declares 1,000,000,000,000 bytes"),
        ({"length": "2"}, "declares 2 bytes"),
        ({"length": "0"}, "declares 0 bytes"),
        ({"dims": (10**9,)}, "bytes 0 to 4,000,000,000"),
        ({"dims": (2**40, 2**40)}, "impossible dimensions"),
        ({"dims": (0, 2**62)}, "impossible dimensions"),
        ({"dims": (-8,)}, "negative dimension"),
        ({"dtype": onnx.TensorProto.STRING}, "strings"),
        ({"dtype": 0}, "element type"),
        ({"dtype": 99}, "element type"),
        ({"offset": "1_0"}, "not a number"),
        ({"offset": "٤"}, "not a number"),
        ({"offset": " 0"}, "not a number"),
        ({"offset": "9" * 5000}, "not a number"),
    ],
)
def test_bytes_that_are_not_all_inside_the_file_are_refused(folder: Path, opened: Opened, told: dict, reason: str):
    (folder / "w.data").write_bytes(VALUES.tobytes())
    assert reason in _refusal(opened, _write(folder, location="w.data", **told))


@pytest.mark.parametrize(
    ("dtype", "length"), [(onnx.TensorProto.INT4, 3), (onnx.TensorProto.UINT8, 5), (onnx.TensorProto.DOUBLE, 40)]
)
def test_the_declared_length_is_counted_in_packed_bits(folder: Path, opened: Opened, dtype: int, length: int):
    (folder / "w.data").write_bytes(bytes(64))
    assert _weight(opened(_write(folder, dims=(5,), dtype=dtype, location="w.data", length=str(length)))).shape == (5,)
    assert "declares" in _refusal(
        opened, _write(folder, dims=(5,), dtype=dtype, location="w.data", length=str(length + 1))
    )


def test_a_slice_in_the_middle_of_a_file_is_that_slice(folder: Path, opened: Opened):
    (folder / "w.data").write_bytes(VALUES.tobytes())
    loaded = opened(_write(folder, dims=(3,), location="w.data", offset="8", length="12"))
    np.testing.assert_array_equal(_weight(loaded), VALUES[2:5])


def test_a_key_given_twice_is_refused(folder: Path, opened: Opened):
    (folder / "w.data").write_bytes(VALUES.tobytes())
    path = _write(folder, location="w.data")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data.add(key="location", value="../secret")
    path.write_bytes(proto.SerializeToString())
    assert "twice" in _refusal(opened, path)


def test_keys_that_nobody_knows_have_no_effect(folder: Path, opened: Opened):
    (folder / "w.data").write_bytes(VALUES.tobytes())
    loaded = opened(_write(folder, location="w.data", basepath="/etc", checksum="0", __class__="x"))
    np.testing.assert_array_equal(_weight(loaded), VALUES)


def test_a_data_file_that_is_a_git_lfs_pointer_is_called_that(folder: Path, opened: Opened):
    (folder / "w.data").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError) as caught:
        opened(_write(folder, dims=(1000,), location="w.data"))
    assert "git lfs pull" in caught.value.hint
