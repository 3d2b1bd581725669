"""Any tensors of any model, streamed: one pass over the feeds, bounded memory, full graph optimisation.

Exact ends, and a histogram of a regular sample: a session hands out probes of the tensors, not the tensors themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.accumulators import Extremes, Histogram, Moments
from onnxcomp.calibration.probes import with_probes
from onnxcomp.calibration.readers import Reader
from onnxcomp.errors import DataError
from onnxcomp.model.normalize import giving
from onnxcomp.runtime.session import SessionConfig, open_session

Progress = Callable[[int, int | None], None]
"""(feeds done, feeds in all when known)"""


@dataclass
class Observed:
    """What was seen of one tensor.

    Args:
        extremes: Exact over all values; a NaN or an infinity anywhere is noticed.
        histogram: Over a regular sample of at most about `probes.SAMPLE` values a row (all values when `exact`).
    """

    extremes: Extremes = field(default_factory=Extremes)
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, values: np.ndarray) -> None:
        """Adds all values of a tensor; an empty one (no detection in this image) adds nothing."""
        self.extremes.add(values)
        self.histogram.add(values)

    def add_sample(self, sample: np.ndarray, minimum: np.ndarray, maximum: np.ndarray, total: np.ndarray) -> None:
        """Adds a sample of a tensor with what was reduced from all of its values."""
        if sample.size:
            # ONNX Runtime's ReduceMin and ReduceMax pass over a NaN that is not the first value; a sum never does.
            self.extremes.include(float("nan") if np.isnan(total) else float(minimum), float(maximum))
            self.histogram.add(sample)

    def merge(self, other: Observed) -> None:
        self.extremes.merge(other.extremes)
        self.histogram.merge(other.histogram)


def observe(
    model: ir.Model,
    tensors: Sequence[str],
    reader: Reader,
    config: SessionConfig,
    *,
    exact: bool = False,
    progress: Progress | None = None,
) -> dict[str, Observed]:
    """Ranges and histograms of `tensors` over all feeds of `reader`.

    Memory does not grow with the number of feeds. Neither order nor batching of the feeds changes the result: rows of
    axis 0 are sampled each for itself. Input shapes may change from feed to feed.

    Args:
        model: Canonical model, opset ≥ 13; it is not changed.
        tensors: Names of float values of the main graph (inputs included).
        reader: The feeds.
        config: Session to run them in.
        exact: Use all values for the histograms, not a sample.
        progress: Called after each feed.

    Raises:
        DataError: The reader gave no feed.
    """
    probed, probes = with_probes(model, tensors, exact)
    outputs = [name for probe in probes for name in probe.outputs]
    result = {name: Observed() for name in tensors}
    done = 0
    with open_session(probed, config) as session:
        for feed in reader:
            arrays = iter(session.run(feed, outputs))
            for probe in probes:
                values = [next(arrays) for _ in probe.outputs]
                observed = result[probe.tensor]
                (observed.add_sample if probe.sampled else observed.add)(*values)
            done += 1
            if progress:
                progress(done, reader.count)
    if not done:
        raise DataError("the calibration set is empty", hint="give at least one feed; 100 to 500 are a good number")
    return result


def channel_moments(
    model: ir.Model, tensors: Sequence[str], reader: Reader, config: SessionConfig, *, axis: int = 1
) -> dict[str, Moments]:
    """Float64 mean and variance of each channel of `tensors` (not inputs), over all values of all feeds."""
    result = {name: Moments(axis) for name in tensors}
    with open_session(giving(model, result), config) as session:
        for feed in reader:
            for name, array in zip(result, session.run(feed, list(result)), strict=True):
                result[name].add(array)
    return result
