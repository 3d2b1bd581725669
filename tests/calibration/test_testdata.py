from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from calibration_signatures import takes

from onnxcomp.calibration.check import checked
from onnxcomp.calibration.spec import open_spec
from onnxcomp.errors import DataError

MODEL = takes(x=("float32", (1, 2)), m=("bfloat16", (None,)))


def put(folder: Path, index: int, *tensors: tuple[np.ndarray, str]) -> None:
    where = folder / f"test_data_set_{index}"
    where.mkdir()
    for k, (array, name) in enumerate(tensors):
        (where / f"input_{k}.pb").write_bytes(onnx.numpy_helper.from_array(array, name).SerializeToString())
    (where / "output_0.pb").write_bytes(b"not read")


def x(value: float) -> np.ndarray:
    return np.full((1, 2), value, np.float32)


M = np.array([1.5, 2], ml_dtypes.bfloat16)


def test_sets_are_read_in_counting_order_and_outputs_are_not_read(tmp_path: Path) -> None:
    for i in range(11):
        put(tmp_path, i, (x(i), ""), (M, ""))
    reader = checked(open_spec(str(tmp_path), MODEL), MODEL)
    assert [feed["x"][0, 0] for feed in reader] == list(range(11))
    np.testing.assert_array_equal(next(iter(reader))["m"], M)


def test_tensors_that_bear_the_names_of_the_inputs_go_by_name(tmp_path: Path) -> None:
    put(tmp_path, 0, (M, "m"), (x(1), "x"))
    (feed,) = checked(open_spec(str(tmp_path), MODEL), MODEL)
    assert feed["m"].shape == (2,)


def test_a_wrong_number_of_files_names_the_set(tmp_path: Path) -> None:
    put(tmp_path, 3, (x(1), ""))
    with pytest.raises(DataError, match=r"test_data_set_3: 1 files input_N.pb for the 2 inputs"):
        list(open_spec(str(tmp_path), MODEL))


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (b"\xff\xff not a tensor", "not a readable tensor"),
        (onnx.TensorProto(dims=[2], data_type=1, raw_data=b"123").SerializeToString(), "not a readable tensor"),
        (b"", "not a readable tensor"),
        (
            onnx.TensorProto(
                dims=[1],
                data_type=1,
                data_location=onnx.TensorProto.EXTERNAL,
                external_data=[onnx.StringStringEntryProto(key="location", value="../../etc/passwd")],
            ).SerializeToString(),
            "external data; refused",
        ),
    ],
)
def test_damaged_and_external_tensors_are_refused(tmp_path: Path, proto: bytes, message: str) -> None:
    put(tmp_path, 0, (x(1), ""), (M, ""))
    (tmp_path / "test_data_set_0" / "input_1.pb").write_bytes(proto)
    with pytest.raises(DataError, match=f"test_data_set_0/input_1.pb: .*{message}"):
        list(open_spec(str(tmp_path), MODEL))
