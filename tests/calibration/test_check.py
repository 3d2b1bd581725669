from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from calibration_signatures import takes

from onnxcomp.calibration.check import checked
from onnxcomp.calibration.readers import DataKind, Feed, Reader
from onnxcomp.errors import DataError

MODEL = takes(image=("float32", ("batch", 3, "size", None)), mask=("int64", ("batch", "size")))


def good() -> Feed:
    return {"image": np.zeros((2, 3, 4, 5), np.float32), "mask": np.ones((2, 4), np.int64)}


def reader(*feeds: Feed, count: int | None = None) -> Reader:
    return Reader(lambda: iter(feeds), DataKind.REAL, "set", count)


def sentence(feed: object, model: object = MODEL) -> str:
    with pytest.raises(DataError) as error:
        list(checked(reader(good(), feed), model))  # type: ignore[arg-type]
    return str(error.value)


def changed(name: str, value: object) -> Feed:
    return {**good(), name: value}  # type: ignore[dict-item]


def test_good_feeds_pass_unchanged_and_can_be_read_again() -> None:
    feeds = good(), good()
    for _ in range(2):
        assert all(a is b for a, b in zip(checked(reader(*feeds, count=2), MODEL), feeds, strict=True))


def test_a_missing_input_and_an_unexpected_one_are_named_with_the_nearest() -> None:
    feed = good()
    feed["imgae"] = feed.pop("image")
    assert "sample 1: the model has no input 'imgae'" in sentence(feed)
    assert "Did you mean image?" in sentence(feed)
    assert "sample 1: input 'mask' is missing" in sentence({"image": good()["image"]})


def test_a_wrong_dtype_says_the_conversion() -> None:
    found = sentence(changed("mask", np.ones((2, 4), np.int32)))
    assert "sample 1: input 'mask' is int32 and the model takes int64" in found
    assert "array.astype(np.int64)" in found
    assert ">i8" in sentence(changed("mask", np.ones((2, 4), ">i8")))


def test_an_ml_dtypes_conversion_names_ml_dtypes() -> None:
    with pytest.raises(DataError, match=r"astype\(ml_dtypes.bfloat16\)"):
        list(checked(reader({"x": np.zeros(2)}), takes(x=("bfloat16", (2,)))))


def test_a_wrong_rank_says_both_shapes_and_reminds_of_the_batch_axis() -> None:
    found = sentence(changed("image", np.zeros((3, 4, 5), np.float32)))
    assert "has 3 axes [3, 4, 5], and the model takes 4: [batch, 3, size, ?]" in found
    assert "np.newaxis" in found


def test_a_wrong_fixed_dimension_names_the_axis() -> None:
    assert "axis 1 must be 3" in sentence(changed("image", np.zeros((2, 1, 4, 5), np.float32)))


def test_equal_symbols_may_be_different_sizes_as_in_onnxruntime() -> None:
    assert len(list(checked(reader(changed("mask", np.ones((1, 4), np.int64))), MODEL))) == 1
    other: Feed = {"image": np.zeros((1, 3, 7, 5), np.float32), "mask": np.ones((1, 7), np.int64)}
    assert len(list(checked(reader(good(), other), MODEL))) == 2


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (-np.inf, "infinity")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "complex64"])
def test_nan_and_infinity_are_counted_and_placed(value: float, what: str, dtype: str) -> None:
    model = takes(x=(dtype, (2, 3)))
    bad = np.zeros((2, 3)).astype(model.inputs[0].dtype)
    bad[1, 2] = value
    feeds = [{"x": np.zeros((2, 3)).astype(bad.dtype)} for _ in range(7)]
    with pytest.raises(DataError, match=rf"sample 7: input 'x' has {what}: 1 of 6 values, the first at \[1, 2\]"):
        list(checked(reader(*feeds, {"x": bad}), model))


def test_what_is_no_array_is_refused() -> None:
    assert "is a list, not an array" in sentence(changed("mask", [[1]]))
    assert "is a list, not a dict" in sentence([1])


def test_zero_size_arrays_are_refused() -> None:
    assert "is empty: shape [0, 4]" in sentence(changed("mask", np.ones((0, 4), np.int64)))


def test_inputs_that_numpy_cannot_hold_are_left_to_the_runtime() -> None:
    feed: Feed = {"text": np.array(["a"], object)}
    assert list(checked(reader(feed), takes(text=(None, (None,))))) == [feed]


def test_an_input_of_unknown_rank_takes_any() -> None:
    feed = {"x": np.zeros((), ml_dtypes.bfloat16)}
    assert list(checked(reader(feed), takes(x=("bfloat16", None)))) == [feed]


def test_an_empty_set_and_a_set_shorter_than_it_said_are_errors() -> None:
    with pytest.raises(DataError, match="no feeds"):
        list(checked(reader(), MODEL))
    with pytest.raises(DataError, match="1 feeds were read, and it said 3"):
        list(checked(reader(good(), count=3), MODEL))


def test_a_part_of_a_checked_reader_counts_samples_in_the_whole() -> None:
    bad = changed("mask", np.ones((2, 4), np.int32))
    with pytest.raises(DataError, match="sample 2"):
        list(checked(reader(good(), good(), bad), MODEL).part(1, 3))
