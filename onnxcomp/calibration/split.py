"""What teaches and what judges: the hold-out split of a set of feeds."""

from __future__ import annotations

from dataclasses import replace

from onnxcomp.calibration.readers import Reader
from onnxcomp.errors import DataError

MOST, FEWEST = 256, 5
"""The most feeds to judge by, and the fewest that are worth a split."""


def hold_out(reader: Reader) -> tuple[Reader, Reader, str | None]:
    """Splits off the last fifth (at least 1 feed, at most 256) to judge by; it teaches nothing.

    A reader that can't tell its length is iterated once to count.

    Returns:
        The feeds to learn from, those to judge by, and the sentence to say aloud when both are the same.

    Raises:
        DataError: There are no feeds.
    """
    count = sum(1 for _ in reader) if reader.count is None else reader.count
    if not count:
        raise DataError(f"{reader.name}: no feeds in it")
    counted = replace(reader, count=count)
    if count < FEWEST:
        few = "Only one feed: it serves" if count == 1 else f"Only {count} feeds: the same ones serve"
        return counted, counted, f"{few} to learn from and to judge by, so fidelity is measured on feeds already seen."
    kept = count - min(MOST, count // 5)
    return counted.part(0, kept), counted.part(kept, count), None
