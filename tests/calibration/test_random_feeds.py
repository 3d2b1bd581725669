from __future__ import annotations

import numpy as np
import pytest
from calibration_signatures import takes

from onnxcomp.calibration.check import checked
from onnxcomp.calibration.random_feeds import random_reader, resolve_shape
from onnxcomp.calibration.readers import DataKind
from onnxcomp.errors import DataError, LimitError, UsageError
from onnxcomp.model.signature import Port

BERT = takes(ids=("int64", ("batch", "seq")), mask=("int64", ("batch", "seq")), emb=("float32", ("batch", 4)))
DTYPES = [
    "bool",
    "int8",
    "uint8",
    "int32",
    "int64",
    "int4",
    "uint4",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "float8_e4m3fn",
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_feeds_of_every_dtype_pass_the_check(dtype: str) -> None:
    model = takes(x=(dtype, (None, 3)))
    (feed,) = checked(random_reader(model, 1), model)
    assert feed["x"].shape == (1, 3)


def test_each_iteration_and_each_part_gives_the_same_feeds_and_feeds_differ() -> None:
    reader = random_reader(BERT, 4, seed=3)
    assert (reader.kind, reader.name, len(reader)) == (DataKind.RANDOM, "random:4", 4)
    assert reader.fingerprint() == reader.fingerprint() != random_reader(BERT, 4, seed=4).fingerprint()
    assert reader.part(1, 3).fingerprint() == random_reader(BERT, 9, seed=3).part(1, 3).fingerprint()
    first, second, *_ = (feed["emb"] for feed in reader)
    assert not np.array_equal(first, second)


def test_integers_stay_below_the_limit_and_reach_it() -> None:
    reader = random_reader(BERT, 1, shapes={"seq": (2000,)}, limits={"ids": 7})
    (feed,) = reader
    assert set(np.unique(feed["ids"])) == set(range(7))
    assert set(np.unique(feed["mask"])) == {0, 1}


def test_a_limit_beyond_the_dtype_is_cut_to_it() -> None:
    (feed,) = random_reader(takes(x=("int8", (500,))), 1, limits={"x": 50_000})
    assert feed["x"].min() >= 0


def test_floats_are_standard_normal() -> None:
    (feed,) = random_reader(takes(x=("float32", (40_000,))), 1)
    assert feed["x"].mean() == pytest.approx(0, abs=0.025)  # 5 standard errors
    assert feed["x"].std() == pytest.approx(1, abs=0.018)


def test_a_whole_shape_settles_its_symbols_in_the_other_inputs() -> None:
    (feed,) = random_reader(BERT, 1, shapes={"ids": (2, 9)})
    assert feed["mask"].shape == (2, 9)
    assert feed["emb"].shape == (2, 4)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"sqe": (3,)}, "'sqe'"),
        ({"seq": (0,)}, "above zero"),
        ({"seq": (2, 3)}, "one for a dimension"),
        ({"emb": (2, 5)}, r"doesn't fit input 'emb': the model says batch,4"),
        ({"emb": (4,)}, "doesn't fit"),
    ],
)
def test_shapes_that_contradict_the_model_are_wrong_usage(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        random_reader(BERT, 1, shapes=shapes)


def test_an_input_of_unknown_rank_or_of_strings_needs_help() -> None:
    with pytest.raises(DataError, match="no known rank"):
        random_reader(takes(x=("float32", None)), 1)
    assert resolve_shape(Port("x", np.dtype("f4"), None), {"x": (2, 3)}) == (2, 3)
    with pytest.raises(DataError, match="takes no numbers"):
        random_reader(takes(x=(None, (1,))), 1)


def test_feeds_that_would_not_fit_into_memory_are_a_limit_and_not_tried() -> None:
    with pytest.raises(LimitError, match="takes one feed over"):
        random_reader(BERT, 1, shapes={"batch": (10**12,)})
