from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from calibration_signatures import takes
from onnxruntime.quantization import CalibrationDataReader

from onnxcomp.calibration.readers import DataKind, Feed, Reader, as_reader
from onnxcomp.errors import DataError

ONE = takes(x=("float32", ("N", 2)))
TWO = takes(x=("float32", ("N", 2)), m=("int64", ("N",)))


def feeds(count: int) -> list[Feed]:
    return [{"x": np.full((1, 2), i, np.float32)} for i in range(count)]


def values(reader: Reader) -> list[float]:
    return [float(feed["x"].flat[0]) for feed in reader]


def test_a_list_of_feeds_is_a_reader_of_real_data_and_a_reader_stays_itself() -> None:
    reader = as_reader(feeds(3), ONE)
    assert (reader.kind, reader.name, len(reader)) == (DataKind.REAL, "list", 3)
    assert values(reader) == values(reader) == [0, 1, 2]
    assert as_reader(reader, ONE) is reader


def test_a_generator_is_read_into_memory_once() -> None:
    reader = as_reader((feed for feed in feeds(3)), ONE)
    assert len(reader) == 3
    assert values(reader) == values(reader) == [0, 1, 2]


@pytest.mark.parametrize("source", [[], iter([]), ()])
def test_nothing_to_read_is_an_error(source: object) -> None:
    with pytest.raises(DataError, match="no feeds"):
        as_reader(source, ONE)


@pytest.mark.parametrize("source", [feeds(1)[0], np.zeros((4, 2)), 7, None, b"data.npz"])
def test_what_is_no_set_of_feeds_is_refused_with_what_to_pass(source: object) -> None:
    with pytest.raises(DataError, match="not a set of feeds") as error:
        as_reader(source, ONE)
    assert "list" in (error.value.hint or "")


class OrtReader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.left = iter(feeds(3))

    def get_next(self) -> Feed | None:
        return next(self.left, None)


class RewindingOrtReader(OrtReader):
    def rewind(self) -> None:
        self.left = iter(feeds(3))


def test_an_ort_reader_without_rewind_is_read_into_memory() -> None:
    reader = as_reader(OrtReader(), ONE)
    assert len(reader) == 3
    assert values(reader) == values(reader) == [0, 1, 2]


def test_an_ort_reader_with_rewind_is_rewound_and_two_iterations_at_once_are_refused() -> None:
    reader = as_reader(RewindingOrtReader(), ONE)
    assert reader.count is None
    assert values(reader) == values(reader) == [0, 1, 2]
    first, second = iter(reader), iter(reader)
    next(first)
    next(second)
    with pytest.raises(DataError, match="rewound while"):
        next(first)


class Tensor:
    """As much of a torch tensor as is used."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> SimpleNamespace:
        return SimpleNamespace(numpy=lambda: self.array)


class Loader:
    """As much of a torch DataLoader as is used."""

    def __init__(self, *items: object) -> None:
        self.items = items

    def __iter__(self) -> Iterator[object]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def x(value: float, rows: int = 2) -> Tensor:
    return Tensor(np.full((rows, 2), value, np.float32))


def test_a_loader_of_tensors_maps_them_to_the_inputs_in_order() -> None:
    mask = Tensor(np.ones(2, np.int64))
    assert values(as_reader(Loader(x(1), x(2)), ONE)) == [1, 2]
    assert values(as_reader(Loader({"x": x(1)}), ONE)) == [1]
    (feed,) = as_reader(Loader((x(1), mask)), TWO)
    assert set(feed) == {"x", "m"}
    assert feed["m"].dtype == np.int64


def test_a_trailing_tensor_of_a_loader_is_the_labels_of_the_batch() -> None:
    loader = Loader([x(1), Tensor(np.array([5, 6]))], [x(2, rows=1), Tensor(np.array([7]))])
    reader = as_reader(loader, ONE)
    assert reader.labels is not None
    assert [label.tolist() for label in reader.labels] == [[5, 6], [7]]
    assert [label.tolist() for label in reader.part(1, 2).labels] == [[7]]  # type: ignore[union-attr]


def test_items_that_fit_neither_the_inputs_nor_inputs_and_labels_are_refused() -> None:
    with pytest.raises(DataError, match="3 values for the 1 inputs"):
        as_reader(Loader((x(1), x(2), x(3))), ONE)
    with pytest.raises(DataError, match="only some items have labels"):
        as_reader(Loader((x(1), x(2)), x(3)), ONE)


def test_a_loader_that_shuffles_is_refused_however_it_does_it() -> None:
    loader = Loader(x(1), x(2))
    loader.sampler = type("RandomSampler", (), {})()  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="shuffles"):
        as_reader(loader, ONE)

    class Turning(Loader):
        def __iter__(self) -> Iterator[object]:
            self.items = self.items[::-1]
            return iter(self.items)

    with pytest.raises(DataError, match="gives other feeds"):
        list(as_reader(Turning(x(1), x(2)), ONE))


def test_a_tensor_that_numpy_cannot_hold_is_named() -> None:
    class BFloat16(Tensor):
        dtype = "torch.bfloat16"

        def cpu(self) -> SimpleNamespace:
            raise TypeError("Got unsupported ScalarType BFloat16")

    with pytest.raises(DataError, match=r"torch.bfloat16.*BFloat16"):
        as_reader(Loader(BFloat16(np.zeros(2))), ONE)


def test_a_labels_attribute_is_honoured_and_must_be_as_long_as_the_feeds() -> None:
    loader = Loader(x(1), x(2))
    loader.labels = [3, 4]  # type: ignore[attr-defined]
    assert as_reader(loader, ONE).labels.tolist() == [3, 4]  # type: ignore[union-attr]
    loader.labels = [3]  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="1 labels for 2 feeds"):
        as_reader(loader, ONE)


@pytest.mark.torch
def test_a_real_torch_loader_is_read_with_its_labels_and_refused_when_it_shuffles() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.arange(10.0).reshape(5, 2), torch.arange(5))
    reader = as_reader(torch.utils.data.DataLoader(data, batch_size=2), ONE)
    assert (len(reader), reader.name) == (3, "DataLoader")
    assert [feed["x"].shape for feed in reader] == [(2, 2), (2, 2), (1, 2)]
    assert reader.labels is not None
    assert [label.tolist() for label in reader.labels] == [[0, 1], [2, 3], [4]]
    with pytest.raises(DataError, match="shuffles"):
        as_reader(torch.utils.data.DataLoader(data, shuffle=True), ONE)
