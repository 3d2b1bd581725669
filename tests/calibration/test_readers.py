from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from calibration_signatures import takes
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.calibration.readers import DataKind, Feed, Reader, as_reader, indexed, stacked
from onnxcomp.errors import DataError

ONE = takes(x=("float32", ("N", 2)))


def feeds(count: int) -> list[Feed]:
    return [{"x": np.full((1, 2), i, np.float32)} for i in range(count)]


def values(reader: Reader) -> list[float]:
    return [float(feed["x"].flat[0]) for feed in reader]


def indexed_reader(count: int) -> Reader:
    return indexed(lambda: feeds(count).__getitem__, count, name="indexed", labels=np.arange(count))


@given(count=st.integers(0, 12), cuts=st.lists(st.integers(0, 12), max_size=3), seek=st.booleans())
def test_the_parts_between_any_cuts_put_together_are_the_whole_with_its_labels(
    count: int, cuts: list[int], seek: bool
) -> None:
    whole = indexed_reader(count) if seek else Reader(lambda: iter(feeds(count)), DataKind.REAL, "list", count)
    edges = [0, *sorted(cuts), 12]
    parts = [whole.part(a, b) for a, b in pairwise(edges)]
    assert [v for part in parts for v in values(part)] == list(range(count))
    assert sum(len(part) for part in parts) == count
    if seek:
        assert [int(v) for part in parts for v in (part.labels if part.labels is not None else [])] == list(
            range(count)
        )


@given(a=st.integers(0, 9), b=st.integers(0, 9), c=st.integers(0, 9), d=st.integers(0, 9), seek=st.booleans())
def test_a_part_of_a_part_is_the_slice_of_the_slice(a: int, b: int, c: int, d: int, seek: bool) -> None:
    (a, b), (c, d) = sorted((a, b)), sorted((c, d))
    whole = indexed_reader(8) if seek else Reader(lambda: iter(feeds(8)), DataKind.REAL, "list", None)
    assert values(whole.part(a, b).part(c, d)) == list(range(8))[a:b][c:d]


def test_an_indexed_reader_loads_only_the_feeds_of_its_part() -> None:
    loaded: list[int] = []

    def feed(i: int) -> Feed:
        loaded.append(i)
        return feeds(10)[i]

    reader = indexed(lambda: feed, 10, name="indexed")
    assert values(reader.part(6, 8)) == [6, 7]
    assert loaded == [6, 7]


def test_the_length_of_a_reader_without_count_is_a_type_error_and_list_still_works() -> None:
    reader = Reader(lambda: iter(feeds(3)), DataKind.REAL, "stream", None)
    with pytest.raises(TypeError, match="not known"):
        len(reader)
    assert len(list(reader)) == 3


def test_labels_of_another_number_than_feeds_are_refused() -> None:
    with pytest.raises(DataError, match="2 labels for 3 feeds"):
        Reader(lambda: iter(feeds(3)), DataKind.REAL, "list", 3, np.arange(2))


def of(*items: Feed) -> str:
    return Reader(lambda: iter(items), DataKind.REAL, "", None).fingerprint()


def test_the_fingerprint_sees_names_dtypes_shapes_bytes_and_order_and_not_the_order_of_names() -> None:
    a, b = np.arange(6, dtype=np.float32), np.ones(6, np.float32)
    same = of({"x": a, "y": b})
    assert same == of({"y": b.copy(), "x": a[:]})
    others = [
        of({"x": b, "y": a}),
        of({"x": a.view(np.int32), "y": b}),
        of({"x": a.reshape(2, 3), "y": b}),
        of({"x": a}, {"y": b}),
        of({"x": a, "y": b}, {"x": a, "y": b}),
    ]
    assert len({same, *others}) == 6


def test_the_fingerprint_takes_strided_scalar_empty_and_text_arrays() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert of({"x": a.T}) == of({"x": np.ascontiguousarray(a.T)}) != of({"x": a.reshape(3, 2)})
    assert of({"x": np.ones((), np.float32)}) != of({"x": np.ones((), np.float64)})
    assert of({"x": np.empty((0, 3))}) != of({"x": np.empty((0, 2))})
    assert of({"x": np.array(["a" * 50], object)}) == of({"x": np.array(["a" * 49 + "a"], object)})


def test_labels_of_unequal_batches_become_an_array_of_arrays() -> None:
    labels = stacked([np.arange(4), np.arange(2)])
    assert labels.dtype == object
    assert [len(label) for label in labels] == [4, 2]
    assert stacked([np.zeros((2, 3)), np.zeros((2, 4))]).shape == (2,)
    assert stacked([np.arange(4), np.arange(4)]).shape == (2, 4)


def test_a_spec_and_a_path_are_opened(tmp_path: Path) -> None:
    assert as_reader("random:3", ONE).kind is DataKind.RANDOM
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2), np.float32))
    assert len(as_reader(tmp_path / "a.npz", ONE)) == 4
