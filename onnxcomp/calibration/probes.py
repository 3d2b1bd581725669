"""Probes: what is added to a model so that it gives out statistics of its inner tensors, instead of the tensors.

A tensor with few values is given out as it is. Of a larger one: minimum, maximum, sum, and every k-th value of each row
of axis 0, k prime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from onnxcomp.model.normalize import clone

SAMPLE = 8192
"""Values of one tensor that leave the session for each row of a feed."""

STRIDES = (1, 3, 7, 13, 17, 31, 61, 127, 251, 509, 1021, 2039, 4093)
"""Primes: a stride that shares a factor with the row length would visit the same columns again and again."""

BLIND_STRIDES = tuple(next(s for s in STRIDES if s > n and s not in (3, 7)) for n in range(STRIDES[-1]))
"""By length of a row // (`SAMPLE` + 1), for lengths that only the run tells: there a stride can't be held against the
axes, and 3 colours and maps of 7 × 7 are too common."""

PREFIX = "onnxcomp.observe."


@dataclass(frozen=True)
class Probe:
    """Where the statistics of one tensor come out.

    Args:
        tensor: Its name.
        outputs: Names of its values; of sampled values and of minimum, maximum and sum, if it is `sampled`.
    """

    tensor: str
    outputs: tuple[str, ...]

    @property
    def sampled(self) -> bool:
        return len(self.outputs) > 1


def with_probes(model: ir.Model, tensors: Sequence[str], exact: bool) -> tuple[ir.Model, tuple[Probe, ...]]:
    """A copy of `model` (opset ≥ 13) that gives out the probes of `tensors` and nothing else.

    Args:
        exact: Give out all values of every tensor.
    """
    extended = clone(model)
    values = ir.convenience.create_value_mapping(extended.graph)
    builder = _Builder(extended)
    given = {name: builder.probe(values[name], exact) for name in tensors}
    # What the model itself gives out need not be computed or copied.
    extended.graph.outputs.clear()
    extended.graph.outputs.extend(value for outputs in given.values() for value in outputs)
    return extended, tuple(Probe(name, tuple(v.name or "" for v in outputs)) for name, outputs in given.items())


class _Builder:
    """Appends nodes and integer constants to a graph under a prefix of our own."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self._integers: dict[tuple[int, ...], ir.Value] = {}
        self._strides: dict[tuple[int | str, ...], ir.Value] = {}
        self._count = 0

    def probe(self, value: ir.Value, exact: bool) -> list[ir.Value]:
        """The values to give out for `value`: itself, or (sample, minimum, maximum, sum)."""
        dims = None if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape]
        row = None if dims is None else dims[1:]
        if exact or row == [] or dims == [] or (row is not None and _fits(row)):
            return [self._node("Identity", value) if value.is_graph_input() else value]
        reductions = [self._node(op, value, keepdims=0) for op in ("ReduceMin", "ReduceMax", "ReduceSum")]
        if row is None:  # it might be a scalar, which Flatten refuses at axis 1
            value = self._node("Unsqueeze", value, self._constant(-1))
        rows = self._node("Flatten", value, axis=1)
        stride = self._stride(row, rows)
        everything = (self._constant(0), self._constant(2**62), self._constant(1))
        return [self._node("Slice", rows, *everything, stride), *reductions]

    def _stride(self, row: Sequence[int | str | None] | None, rows: ir.Value) -> ir.Value:
        """[1] int64: a constant where the row length is known, else computed; once for rows of the same symbols."""
        if row is not None and all(isinstance(d, int) for d in row):
            return self._constant(_stride_for([d for d in row if isinstance(d, int)]))
        known = () if row is None else tuple(d for d in row if d is not None)
        if row is not None and len(known) == len(row) and known in self._strides:
            return self._strides[known]
        length = self._node("Slice", self._node("Shape", rows), self._constant(1), self._constant(2))
        size = self._node("Div", length, self._constant(SAMPLE + 1))
        index = self._node("Min", size, self._constant(len(BLIND_STRIDES) - 1))
        stride = self._node("Gather", self._constant(*BLIND_STRIDES), index)
        if row is not None and len(known) == len(row):
            self._strides[known] = stride
        return stride

    def _node(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        name, self._count = f"{PREFIX}{self._count}", self._count + 1
        node = ir.node(op_type, inputs, attributes, name=name)
        node.outputs[0].name = name
        self._graph.append(node)
        return node.outputs[0]

    def _constant(self, *integers: int) -> ir.Value:
        if integers not in self._integers:
            name = f"{PREFIX}integers.{len(self._integers)}"
            value = ir.val(name, const_value=ir.tensor(np.asarray(integers, np.int64), name=name))
            self._graph.register_initializer(value)
            self._integers[integers] = value
        return self._integers[integers]


def _fits(row: Sequence[int | str | None]) -> bool:
    return all(isinstance(d, int) for d in row) and prod(d for d in row if isinstance(d, int)) <= SAMPLE


def _stride_for(row: Sequence[int]) -> int:
    """The smallest stride that leaves at most `SAMPLE` values and divides none of the axes."""
    return next((s for s in STRIDES if s * SAMPLE >= prod(row) and all(d % s for d in row)), STRIDES[-1])
