"""Readers: re-iterable sources of feeds, and the adapter that makes one of whatever a caller of the Python API has."""

from __future__ import annotations

import enum
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from onnxcomp.errors import DataError
from onnxcomp.model.signature import Signature

Feed = dict[str, np.ndarray]
"""The inputs of one call, by name."""


class DataKind(enum.StrEnum):
    """Where feeds come from; what was measured on random ones is said to be so wherever it is shown."""

    REAL = "real"
    RANDOM = "random"


@dataclass(frozen=True, eq=False)
class Reader:
    """A re-iterable of feeds: each iteration opens the source again and gives the same feeds in the same order.

    Args:
        open: Starts an iteration.
        kind: Real or random.
        name: What the report shows; no absolute path and no user name.
        count: The number of feeds, None when only an iteration can tell.
        labels: One entry for each feed; where a feed is a batch, `labels[i]` is the array of its rows.
        notes: Facts about the data that the report repeats (rows left out, defaults that were chosen).
        window: Starts an iteration of the feeds `start:stop`, for sources that needn't read those before.

    Raises:
        DataError: The labels are not as many as the feeds.
    """

    open: Callable[[], Iterator[Feed]]
    kind: DataKind
    name: str
    count: int | None
    labels: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    window: Callable[[int, int], Iterator[Feed]] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.count is not None and len(self.labels) != self.count:
            raise DataError(f"{self.name}: {len(self.labels)} labels for {self.count} feeds", hint="Give one for each.")

    def __iter__(self) -> Iterator[Feed]:
        return self.open()

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError(f"the number of feeds in {self.name} is not known before they are read")
        return self.count

    def between(self, start: int, stop: int) -> Iterator[Feed]:
        """One iteration of the feeds `start:stop`."""
        return self.window(start, stop) if self.window is not None else islice(self.open(), start, stop)

    def part(self, start: int, stop: int) -> Reader:
        """The feeds `start:stop` with their labels, as a reader; nothing is read yet."""
        if not 0 <= start <= stop:
            raise ValueError(f"not a part of a reader: {start}:{stop}")
        if self.count is not None:
            start, stop = min(start, self.count), min(stop, self.count)
        return replace(
            self,
            open=lambda: self.between(start, stop),
            window=lambda a, b: self.between(min(start + a, stop), min(start + b, stop)),
            count=None if self.count is None else stop - start,
            labels=None if self.labels is None else self.labels[start:stop],
        )

    def fingerprint(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of all feeds, in order (the order of the names is no matter)."""
        total = hashlib.sha256()
        for feed in self:
            total.update(digest(feed))
        return total.hexdigest()


def indexed(
    load: Callable[[], Callable[[int], Feed]],
    count: int,
    *,
    name: str,
    kind: DataKind = DataKind.REAL,
    labels: np.ndarray | None = None,
    notes: tuple[str, ...] = (),
) -> Reader:
    """A reader of a source with random access: `load()` prepares an iteration and gives feed `i` by index."""

    def window(start: int, stop: int) -> Iterator[Feed]:
        return map(load(), range(start, stop))

    return Reader(lambda: window(0, count), kind, name, count, labels, notes, window)


def stacked(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Labels of single feeds as one array; an object array of arrays where their shapes differ."""
    if len({label.shape for label in labels}) == 1:
        return np.stack(labels)
    ragged = np.empty(len(labels), dtype=object)
    for i, label in enumerate(labels):
        ragged[i] = label
    return ragged


def as_reader(source: object, signature: Signature) -> Reader:
    """Makes a reader of what a caller has.

    Args:
        source: A Reader; a SPEC or path; ORT's `CalibrationDataReader` (rewound where it can be, else read into
            memory); or an iterable of dicts, or of what a torch DataLoader gives: a tensor, or a tuple of tensors in
            the order of the inputs, with the labels behind them (they cost one iteration ahead). A generator is read
            into memory. A `labels` attribute is honoured.
        signature: Of the model; it gives positional items their names.

    Raises:
        DataError: Nothing in it, items of another kind, or other feeds when iterated again (a shuffling loader).
    """
    if isinstance(source, Reader):
        return source
    if isinstance(source, str | os.PathLike):
        from onnxcomp.calibration.spec import (
            open_spec,
        )  # a SPEC may name any of the readers, which stand on this module

        return open_spec(os.fspath(source), signature)
    from onnxcomp.calibration.adapters import adapt

    return adapt(source, signature)


def digest(feed: Feed) -> bytes:
    """SHA-256 of one feed."""
    sha = hashlib.sha256()
    for name, value in sorted(feed.items()):
        array = np.asarray(value)
        sha.update(json.dumps([name, array.dtype.name, array.dtype.str, array.shape]).encode())
        if array.dtype.hasobject:  # strings: their bytes are addresses
            sha.update(repr(array.tolist()).encode())
        else:
            sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.digest()
