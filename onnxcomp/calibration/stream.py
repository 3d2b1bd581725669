"""Any tensors of any model, streamed: one pass over the feeds, bounded memory, full graph optimisation.

The model is extended by small reductions on the observed tensors, so that a session hands out a minimum, a maximum and a few thousand
values of each tensor instead of the tensor itself: exact ends, and a histogram of a regular sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.accumulators import Extremes, Histogram, Moments
from onnxcomp.calibration.readers import Reader
from onnxcomp.errors import DataError
from onnxcomp.model.normalize import clone
from onnxcomp.runtime.session import SessionConfig, open_session

Progress = Callable[[int, int | None], None]
"""(feeds done, feeds in all when known)"""

SAMPLE = 8192
"""Values of one tensor that leave the session for each row of a feed."""

STRIDES = (1, 3, 7, 13, 17, 31, 61, 127, 251, 509, 1021, 2039, 4093)
"""Primes: a stride that shares a factor with the row length would visit the same columns again and again."""

PREFIX = "onnxcomp.observe."


@dataclass
class Observed:
    """What was seen of one tensor.

    Args:
        extremes: Exact over all values.
        histogram: Over a regular sample of at most `SAMPLE` values a row (all values when `exact`).
    """

    extremes: Extremes = field(default_factory=Extremes)
    histogram: Histogram = field(default_factory=Histogram)

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

    Memory does not grow with the number of feeds. Neither order nor batching of the feeds changes the result: rows of axis 0 are sampled
    each for itself. Input shapes may change from feed to feed.

    Args:
        model: Canonical model; it is not changed.
        tensors: Names of float values of the main graph (inputs included).
        reader: The feeds.
        config: Session to run them in.
        exact: Use all values for the histograms, not a sample.
        progress: Called after each feed.

    Raises:
        DataError: The reader gave no feed.
    """
    probed, outputs = _with_probes(model, tensors, exact)
    result = {name: Observed() for name in tensors}
    done = 0
    with open_session(probed, config) as session:
        for feed in reader:
            arrays = session.run(feed, outputs)
            for position, name in enumerate(tensors):
                low, high, values = arrays[3 * position : 3 * position + 3]
                if values.size:
                    result[name].extremes.include(float(low), float(high))
                    result[name].histogram.add(values)
            done += 1
            if progress:
                progress(done, reader.count)
    if not done:
        raise DataError("the calibration set is empty", hint="give at least one feed; 100 to 500 are a good number")
    return result


def channel_moments(
    model: ir.Model, tensors: Sequence[str], reader: Reader, config: SessionConfig, *, axis: int = 1
) -> dict[str, Moments]:
    """Float64 mean and variance of each channel of `tensors`, over all values of all feeds."""
    extended = clone(model)
    values = ir.convenience.create_value_mapping(extended.graph)
    _give_out(extended, [values[name] for name in tensors])
    result = {name: Moments(axis) for name in tensors}
    with open_session(extended, config) as session:
        for feed in reader:
            for name, array in zip(tensors, session.run(feed, list(tensors)), strict=True):
                result[name].add(array)
    return result


def _with_probes(model: ir.Model, tensors: Sequence[str], exact: bool) -> tuple[ir.Model, list[str]]:
    """A copy of `model` with three more outputs for each tensor: minimum, maximum, sample."""
    extended = clone(model)
    values = ir.convenience.create_value_mapping(extended.graph)
    builder = _Builder(extended)
    given: list[ir.Value] = []
    for index, name in enumerate(tensors):
        value = values[name]
        given += [
            builder.node("ReduceMin", [value], f"{index}.min", keepdims=0),
            builder.node("ReduceMax", [value], f"{index}.max", keepdims=0),
            _sampled(builder, value, index, exact),
        ]
    # Only the probes are fetched; what the model itself gives out need not be copied.
    extended.graph.outputs.clear()
    _give_out(extended, given)
    return extended, [v.name or "" for v in given]


def _sampled(builder: _Builder, value: ir.Value, index: int, exact: bool) -> ir.Value:
    """[rows, n] with n ≤ about SAMPLE: every k-th value of each row, k prime."""
    rank = None if value.shape is None else value.shape.rank()
    if exact or rank in (0, 1):
        return builder.node("Reshape", [value, builder.integers([-1])], f"{index}.all")
    rows = builder.node("Flatten", [value], f"{index}.rows", axis=1)
    stride = _stride(builder, value, rows, index)
    if stride is None:
        return rows
    return builder.node(
        "Slice",
        [rows, builder.integers([0]), builder.integers([2**62]), builder.integers([1]), stride],
        f"{index}.sample",
    )


def _stride(builder: _Builder, value: ir.Value, rows: ir.Value, index: int) -> ir.Value | None:
    """The stride as a constant where the row length is known, else computed in the graph; None when all values fit."""
    shape = None if value.shape is None else list(value.shape)[1:]
    if shape is not None and all(isinstance(d, int) for d in shape):
        length = int(np.prod([int(d) for d in shape], dtype=np.int64))  # type: ignore[call-overload]
        fitting = [s for s in STRIDES if s * SAMPLE >= length and (s == 1 or all(int(d) % s for d in shape))]  # type: ignore[call-overload]
        stride = fitting[0] if fitting else STRIDES[-1]
        return None if stride == 1 else builder.integers([stride])
    length_value = builder.node(
        "Slice",
        [builder.node("Shape", [rows], f"{index}.shape"), builder.integers([1]), builder.integers([2])],
        f"{index}.length",
    )
    too_small = builder.node(
        "Less", [builder.integers([s * SAMPLE for s in STRIDES[:-1]]), length_value], f"{index}.less"
    )
    step = builder.node(
        "ReduceMax",
        [
            builder.node(
                "Mul", [builder.cast(too_small, f"{index}.mask"), builder.integers(STRIDES[1:])], f"{index}.strides"
            )
        ],
        f"{index}.step",
        keepdims=1,
    )
    return builder.node("Max", [step, builder.integers([1])], f"{index}.stride")


def _give_out(model: ir.Model, values: Sequence[ir.Value]) -> None:
    present = {v.name for v in model.graph.outputs}
    for value in values:
        if value.name not in present:
            if value.type is None:
                value.type = ir.TensorType(ir.DataType.FLOAT)
            model.graph.outputs.append(value)


class _Builder:
    """Appends nodes and integer constants to a graph under a prefix of our own."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._integers: dict[tuple[int, ...], ir.Value] = {}

    def node(self, op_type: str, inputs: Sequence[ir.Value], name: str, **attributes: int) -> ir.Value:
        node = ir.node(op_type, inputs, attributes, name=PREFIX + name)
        node.outputs[0].name = PREFIX + name
        self._graph.append(node)
        return node.outputs[0]

    def cast(self, value: ir.Value, name: str) -> ir.Value:
        return self.node("Cast", [value], name, to=int(ir.DataType.INT64))

    def integers(self, values: Sequence[int]) -> ir.Value:
        key = tuple(values)
        if key not in self._integers:
            name = f"{PREFIX}integers.{len(self._integers)}"
            value = ir.val(name, const_value=ir.tensor(np.asarray(key, np.int64), name=name))
            self._graph.register_initializer(value)
            self._integers[key] = value
        return self._integers[key]
