from __future__ import annotations

import logging
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from calibration_signatures import takes
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.calibration.check import checked
from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.spec import open_spec
from onnxcomp.errors import DataError, UsageError
from onnxcomp.model.signature import Signature

VECTOR = takes(x=("float32", ("N", 3)))
IMAGE = takes(x=("float32", ("N", 3, 4, 5)))
LAST = takes(x=("float32", ("N", 4, 5, 3)))
PAIR = takes(x=("float32", ("N", 3)), s=("float32", (1, 3)))
UNLIKE = takes(x=("float32", (2, 3)), s=("float32", (1, 3)))
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def vectors(rows: int) -> np.ndarray:
    return np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)


def opened(folder: Path, model: Signature, query: str = "", **arrays: np.ndarray) -> Reader:
    np.savez(folder / "set.npz", **arrays)  # type: ignore[arg-type]
    return checked(open_spec(f"npz:{folder}/set.npz" + (f"?{query}" if query else ""), model), model)


def test_sample_i_is_the_slice_of_row_i_and_labels_are_y(tmp_path: Path) -> None:
    x = vectors(6)
    reader = opened(tmp_path, VECTOR, x=x, y=np.arange(6))
    assert (len(reader), reader.name, reader.notes) == (6, "set.npz", ())
    for _ in range(2):
        for i, feed in enumerate(reader):
            np.testing.assert_array_equal(feed["x"], x[i : i + 1])
    assert reader.labels is not None
    np.testing.assert_array_equal(reader.labels, np.arange(6))


def test_y_is_an_input_where_the_model_has_one_and_another_name_can_hold_the_labels(tmp_path: Path) -> None:
    model = takes(y=("float32", ("N", 3)))
    assert opened(tmp_path, model, y=vectors(2)).labels is None
    reader = opened(tmp_path, model, "y=classes", y=vectors(2), classes=np.arange(2))
    assert reader.labels is not None


@settings(max_examples=20)
@given(rows=st.integers(1, 9), batch=st.integers(1, 4), n=st.integers(1, 12))
def test_feeds_of_a_fixed_batch_put_together_are_the_first_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: int, batch: int, n: int
) -> None:
    folder, model = tmp_path_factory.mktemp("set"), takes(x=("float32", (batch, 3)))
    used, x = min(rows, n), vectors(rows)
    if used < batch:
        with pytest.raises(DataError, match=f"{used} rows, and the model takes {batch} at once"):
            opened(folder, model, f"n={n}", x=x)
        return
    reader = opened(folder, model, f"n={n}", x=x, y=np.arange(rows))
    whole = used // batch * batch
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in reader]), x[:whole])
    assert reader.labels is not None
    assert reader.labels.shape == ((whole,) if batch == 1 else (whole // batch, batch))
    assert np.ravel(reader.labels).tolist() == list(range(whole))
    assert any("left out" in note for note in reader.notes) == (whole < used)
    assert any("all are used" in note for note in reader.notes) == (n > rows)


def test_rows_left_out_are_said_in_the_log_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "onnxcomp"):
        reader = opened(tmp_path, takes(x=("float32", (4, 3))), x=vectors(6))
    assert reader.notes == ("set.npz: the last 2 of 6 rows don't fill a feed of 4; left out",)
    assert reader.notes[0] in caplog.text


def test_raw_nhwc_bytes_become_normalised_nchw_floats(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    reader = opened(tmp_path, IMAGE, "map=data:x&layout=nhwc&scale=255&mean=imagenet&std=imagenet", data=raw)
    expected = ((raw / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2)
    found = np.concatenate([feed["x"] for feed in reader])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)  # a few float32 roundings of values up to 2.7


def test_channels_are_on_axis_1_for_nchw_and_last_for_a_model_that_takes_nhwc(tmp_path: Path) -> None:
    x = np.ones((1, 3, 4, 5), np.float32)
    (feed,) = opened(tmp_path, IMAGE, "mean=1,2,3", x=x)
    assert feed["x"][0, :, 0, 0].tolist() == [0, -1, -2]
    (feed,) = opened(tmp_path, LAST, "std=1,2,4", x=x.transpose(0, 2, 3, 1))
    assert feed["x"][0, 0, 0].tolist() == [1, 0.5, 0.25]


def test_bytes_become_the_float_dtype_of_the_input_and_stay_bytes_for_an_input_of_bytes(tmp_path: Path) -> None:
    raw = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for dtype in ("float32", "float16", "bfloat16", "uint8"):
        (feed, _) = opened(tmp_path, takes(x=(dtype, (None, 3))), x=raw)
        assert feed["x"].dtype.name == dtype
        assert feed["x"].astype(int).tolist() == [[0, 1, 2]]


def test_bfloat16_survives_the_raw_bytes_that_npz_keeps_it_as(tmp_path: Path) -> None:
    x = np.array([[1.5, -2, 3]], ml_dtypes.bfloat16)
    (feed,) = opened(tmp_path, takes(x=("bfloat16", (None, 3))), x=x)
    np.testing.assert_array_equal(feed["x"], x)


def test_only_images_among_several_inputs_are_raw_pixels(tmp_path: Path) -> None:
    model = takes(x=("float32", ("N", 3, 4, 5)), w=("float32", ("N", 2)))
    (feed,) = opened(tmp_path, model, "scale=2", x=np.ones((1, 3, 4, 5), np.float32), w=np.ones((1, 2), np.float32))
    assert feed["x"].max() == 0.5
    assert feed["w"].max() == 1


def test_facts_that_the_user_may_have_missed_are_notes(tmp_path: Path) -> None:
    raw = np.zeros((2, 3, 4, 5), np.uint8)
    notes = opened(tmp_path, IMAGE, "mean=imagenet", x=raw, extra=raw).notes
    assert "not inputs of the model, left alone: extra" in notes[0]
    assert "without scale=255" in notes[1]


@pytest.mark.parametrize(
    ("model", "query", "arrays", "error", "message"),
    [
        (VECTOR, "", {"data": vectors(2)}, DataError, r"no array 'x' for input 'x'; it holds data\n.*map=data:x"),
        (VECTOR, "map=x:z", {"x": vectors(2)}, UsageError, "no input 'z'"),
        (VECTOR, "map=a:x", {"x": vectors(2)}, DataError, "no array 'a' for input 'x'"),
        (VECTOR, "y=k", {"x": vectors(2)}, UsageError, "y=k: no such array"),
        (VECTOR, "n=0", {"x": vectors(2)}, UsageError, "n=0 is not a whole number above zero"),
        (VECTOR, "", {"x": vectors(2), "y": np.arange(1)}, DataError, r"labels 'y' of shape \[1\] for 2 samples"),
        (VECTOR, "", {"x": vectors(2), "y": np.array(1)}, DataError, r"labels 'y' of shape \[\] for 2 samples"),
        (VECTOR, "", {"x": vectors(2).astype("f8")}, DataError, r"float64 and the model takes float32\n.*np.float32"),
        (VECTOR, "", {"x": np.float32(1)}, DataError, r"shape \[\].*\n.*folder of .npz"),
        (VECTOR, "", {"x": np.zeros(3, "f4")}, DataError, r"takes 2 axes with the samples on the first"),
        (VECTOR, "", {"x": vectors(0)}, DataError, "0 rows"),
        (VECTOR, "layout=nhwc", {"x": vectors(2)}, UsageError, "has 2 axes, not 4"),
        (VECTOR, "mean=1,2", {"x": vectors(2)}, UsageError, "mean= has 2 numbers for 3 channels"),
        (VECTOR, "std=0", {"x": vectors(2)}, UsageError, "std=0 must be above zero"),
        (takes(x=("uint8", ("N", 3))), "scale=2", {"x": vectors(2)}, UsageError, "make floats"),
        (LAST, "layout=nhwc", {"x": np.zeros((1, 4, 5, 3), "f4")}, UsageError, "takes NHWC"),
        (PAIR, "", {"x": vectors(2), "s": vectors(1)}, DataError, "different numbers of samples: x 2, s 1"),
        (UNLIKE, "", {"x": vectors(2), "s": vectors(2)}, DataError, "take 1 and 2 rows at once"),
    ],
)
def test_what_does_not_fit_is_one_sentence_when_the_file_is_opened(
    tmp_path: Path, model: Signature, query: str, arrays: dict[str, np.ndarray], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        opened(tmp_path, model, query, **arrays)


def test_nan_in_sample_7_is_named(tmp_path: Path) -> None:
    x = vectors(9)
    x[7, 1] = np.nan
    with pytest.raises(DataError, match="sample 7: input 'x' has NaN"):
        list(opened(tmp_path, VECTOR, x=x))


STATEFUL = takes(x=("float32", ("T", 3)), state=("float32", (2,)), rate=("int64", ()))


def folder_of(folder: Path, count: int, *, labels: int = 0) -> Path:
    for i in range(count):
        y = {"y": np.full(1 + i % 2, i)} if i < labels else {}
        np.savez(folder / f"feed_{i}.npz", x=vectors(i + 1), state=np.full(2, i, "f4"), rate=np.int64(i), **y)  # type: ignore[arg-type]
    return folder


def test_each_file_of_a_folder_is_a_whole_feed_in_counting_order(tmp_path: Path) -> None:
    reader = checked(open_spec(str(folder_of(tmp_path, 11)), STATEFUL), STATEFUL)
    assert [int(feed["rate"]) for feed in reader] == list(range(11))
    assert [len(feed["x"]) for feed in reader.part(3, 5)] == [4, 5]
    assert reader.labels is None
    assert len(open_spec(f"npz:{tmp_path}?n=2", STATEFUL)) == 2


def test_labels_of_a_folder_are_arrays_of_rows_and_all_files_or_none_have_them(tmp_path: Path) -> None:
    reader = open_spec(str(folder_of(tmp_path, 3, labels=3)), STATEFUL)
    assert reader.labels is not None
    assert [label.tolist() for label in reader.labels] == [[0], [1, 1], [2]]
    folder_of(tmp_path, 3, labels=2)
    with pytest.raises(DataError, match=r"feed_2.npz: no array 'y'"):
        open_spec(str(tmp_path), STATEFUL)


def test_arithmetic_on_a_folder_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .npz files"):
        open_spec(f"npz:{tmp_path}", STATEFUL)
    folder_of(tmp_path, 1)
    with pytest.raises(UsageError, match=r"mean= is for one .npz file"):
        open_spec(f"npz:{tmp_path}?mean=imagenet", STATEFUL)
