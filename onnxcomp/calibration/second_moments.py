"""Second moments of what linear nodes read and write: one pass over the feeds, at positions drawn from each map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.gram import Gram
from onnxcomp.calibration.lockstep import MOST_ROWS, can_join, joined
from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.stream import Progress
from onnxcomp.errors import DataError
from onnxcomp.model.normalize import giving
from onnxcomp.ops.linear import LinearView, positions
from onnxcomp.runtime.session import SessionConfig, open_session

UNKNOWN_COUNT = 256
"""Feeds that are reckoned with when the reader does not know how many it has."""


@dataclass(frozen=True)
class Wanted:
    """What to gather.

    Args:
        views: Nodes whose rows are pooled: those that share a weight, else one.
        side: What they read (rows of W's columns) or what they write, bias included.
        rows: To gather over all feeds, about.
        diagonal: Only the mean and the mean square of each column: each is a group of its own.
    """

    views: tuple[LinearView, ...]
    side: Literal["inputs", "outputs"]
    rows: int
    diagonal: bool = False

    def gram(self) -> Gram:
        """An empty one of the right size."""
        groups, out, columns = self.views[0].shape
        size = columns if self.side == "inputs" else out
        return Gram(groups * size, 1) if self.diagonal else Gram(groups, size)

    @property
    def bytes(self) -> int:
        """Of the second moments."""
        groups, out, columns = self.views[0].shape
        size = columns if self.side == "inputs" else out
        return 8 * groups * size * (1 if self.diagonal else size)

    def value(self, view: LinearView) -> ir.Value:
        return view.input if self.side == "inputs" else view.output


def gather(
    model: ir.Model,
    wanted: Mapping[str, Wanted],
    reader: Reader,
    config: SessionConfig,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Gram]:
    """The moments by the keys of `wanted`.

    Args:
        model: Canonical; not changed. The views are of its nodes.
        reader: The feeds, read once.
        seed: Of the choice of positions.
        progress: Called with the feeds that are done.

    Raises:
        DataError: The reader gave no feed.
    """
    grams = {key: want.gram() for key, want in wanted.items()}
    names = {want.value(view).name or "" for want in wanted.values() for view in want.views}
    inner = sorted(names - {v.name for v in model.graph.inputs})
    rng = np.random.default_rng(seed)
    joins = can_join(model)
    count, done = reader.count or UNKNOWN_COUNT, 0
    with open_session(giving(model, inner), config) as session:
        for feed in joined(reader, MOST_ROWS if joins else 1):
            size = len(next(iter(feed.values()))) if joins else 1
            arrays = feed | dict(zip(inner, session.run(feed, inner) if inner else (), strict=True))
            done += size
            for key, want in wanted.items():
                share = max(1, -(-want.rows * size // (count * len(want.views))))
                for view in want.views:
                    grams[key].add(_rows(want, view, arrays[want.value(view).name or ""], share, rng, grams[key]))
            if progress:
                progress(done, reader.count)
    if not done:
        raise DataError("the calibration set is empty", hint="give at least one feed; 500 are a good number")
    return grams


def _rows(
    want: Wanted, view: LinearView, array: np.ndarray, share: int, rng: np.random.Generator, gram: Gram
) -> np.ndarray:
    """At most `share` rows of an activation, as the moments take them."""
    inputs = want.side == "inputs"
    count = view.count(array.shape) if inputs else view.count_targets(array.shape)
    chosen = positions(count, share, rng)
    rows = view.rows(array, chosen) if inputs else view.targets(array, chosen)
    return rows.reshape(len(chosen), gram.groups, gram.columns)
