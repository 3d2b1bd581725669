"""Readers of Python objects: lists of feeds, ORT's CalibrationDataReader, torch DataLoaders (torch isn't imported)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from onnxcomp.calibration.readers import DataKind, Feed, Reader, digest, stacked
from onnxcomp.errors import DataError
from onnxcomp.model.signature import Signature


def adapt(source: object, signature: Signature, *, name: str | None = None) -> Reader:
    """What `as_reader` does with an iterable or with an object that has `get_next`; `name` is the reader's."""
    name = name or type(source).__name__
    labels = getattr(source, "labels", None)
    items = _reiterable(source)
    inputs = tuple(port.name for port in signature.inputs)
    first = next(iter(items), None)
    if first is None:
        raise DataError(
            f"{name}: no feeds in it", hint="A generator can be read only once: pass a fresh one, or a list."
        )
    first_feed, first_labels = _split(first, inputs, name)
    expected = digest(first_feed)

    def feeds() -> Iterator[Feed]:
        for i, item in enumerate(items):
            feed = _split(item, inputs, name)[0]
            if i == 0 and digest(feed) != expected:
                raise DataError(
                    f"{name}: iterated again, it gives other feeds",
                    hint="Switch shuffling and random augmentation off, or pass list(itertools.islice(source, 256)).",
                )
            yield feed

    count = _length(items)
    if labels is not None:
        labels = np.asarray(_array(labels))
    elif first_labels is not None:
        labels = _labels(items, inputs, name)
        count = len(labels)
    return Reader(feeds, DataKind.REAL, name, count, labels)


class _Rewound:
    """ORT's CalibrationDataReader as a re-iterable. It has one position, so only one iteration can be under way."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader
        self.turn = 0

    def __len__(self) -> int:
        return len(self.reader)

    def __iter__(self) -> Iterator[Any]:
        self.turn += 1
        turn = self.turn
        self.reader.rewind()
        while (item := self.reader.get_next()) is not None:
            yield item
            if self.turn != turn:
                name = type(self.reader).__name__
                raise DataError(f"{name} was rewound while it was read", hint="Read it to its end, or pass a list.")


def _reiterable(source: Any) -> Iterable[Any]:
    """`source`, or what it gives where it can be read only once."""
    if hasattr(source, "get_next"):
        return _Rewound(source) if hasattr(source, "rewind") else list(iter(source.get_next, None))
    name = type(source).__name__
    if (
        isinstance(source, Mapping | np.ndarray | bytes)
        or hasattr(source, "detach")
        or not isinstance(source, Iterable)
    ):
        raise DataError(
            f"{name} is not a set of feeds", hint="Pass a list (or any re-iterable) of {input name: array}."
        )
    if iter(source) is source:
        return list(source)
    # A torch DataLoader with this sampler: labels read in one iteration don't belong to the feeds of the next.
    if type(getattr(source, "sampler", None)).__name__ == "RandomSampler":
        raise DataError(f"{name} shuffles: each iteration has another order", hint="Make it with shuffle=False.")
    return source


def _length(items: Any) -> int | None:
    try:
        return len(items)
    except (TypeError, NotImplementedError):  # ORT's base class has a __len__ that raises
        return None


def _split(item: object, inputs: tuple[str, ...], name: str) -> tuple[Feed, np.ndarray | None]:
    """The feed of an item, and its labels where it has some."""
    if isinstance(item, Mapping):
        return {str(key): _array(value) for key, value in item.items()}, None
    values = list(item) if isinstance(item, tuple | list) else [item]
    if len(values) - len(inputs) not in (0, 1):
        raise DataError(
            f"{name}: an item of {len(values)} values for the {len(inputs)} inputs {', '.join(inputs)}",
            hint="Give dicts, or the inputs in order with at most the labels behind them.",
        )
    arrays = [np.asarray(_array(value)) for value in values]
    return dict(zip(inputs, arrays, strict=False)), arrays[-1] if len(arrays) > len(inputs) else None


def _labels(items: Iterable[Any], inputs: tuple[str, ...], name: str) -> np.ndarray:
    labels = [_split(item, inputs, name)[1] for item in items]
    if any(label is None for label in labels):
        raise DataError(f"{name}: only some items have labels behind the inputs", hint="Give them to all, or to none.")
    return stacked([label for label in labels if label is not None])


def _array(value: Any) -> Any:
    """A tensor as numpy; what is no tensor stays, for `checked` to name."""
    if isinstance(value, np.ndarray) or not (hasattr(value, "detach") or hasattr(value, "__array__")):
        return value
    try:
        return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    except TypeError as error:  # torch.bfloat16 has no numpy twin
        raise DataError(f"a tensor of {getattr(value, 'dtype', '?')} can't become an array: {error}") from error
