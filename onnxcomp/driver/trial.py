"""The first runs of a model, in a child process: on feeds, and on sizes for dynamic dimensions where there are none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from onnxcomp.calibration.random_feeds import random_reader
from onnxcomp.calibration.readers import Feed
from onnxcomp.errors import DataError, LimitError, ModelError, OnnxcompError
from onnxcomp.model.shapes import in_call
from onnxcomp.model.signature import WITHOUT_NUMBERS, Signature
from onnxcomp.ops.attributes import constant
from onnxcomp.report.figures import size as shown_size
from onnxcomp.report.text import printable
from onnxcomp.runtime.child import Limits, probe
from onnxcomp.runtime.session import SessionConfig

Shapes = Mapping[str, tuple[int, ...]]

SIZES = (64, 128, 224, 320, 32, 16, 640, 512, 8, 2, 1)
"""Tried in turn for dimensions that are not the batch: pixels, tokens and samples all accept one of these."""

BATCH = re.compile(r"batch|^n$|^b$|^bs$", re.IGNORECASE)


class NotRunnable(ModelError):
    """The model loads, but no random feed suits it: only real ones can show anything."""


def try_out(model: ir.Model, config: SessionConfig, limits: Limits, feed: Feed | None = None) -> None:
    """Loads a model in a child process, and runs it once when there is a feed; not if a value won't fit into memory.

    Raises:
        LimitError: A value is larger than the memory that the child may take, or it took too much of what it may.
        OnnxcompError: Whatever else `probe` raises.
    """
    memory = limits.resolved_memory()
    if memory is not None:
        check_sizes(model, shapes_of(feed or {}), memory)
    probe(model, config=config, feed=feed, limits=limits)


def check_sizes(model: ir.Model, shapes: Shapes, memory: int) -> None:
    """Every value whose shape can be inferred fits into memory by itself.

    Args:
        shapes: Of the inputs; without one, only what no input decides is known.
        memory: Bytes.

    Raises:
        LimitError: One does not; says which, and how large it would be.
    """
    made = (value for node in model.graph for value in node.outputs)
    kinds = {value.name: value.dtype for value in (*model.graph.inputs, *made)}
    for name, shape in in_call(model, shapes).items():
        kind = kinds.get(name)
        taken = int(math.prod(shape) * (1 if kind in (None, *WITHOUT_NUMBERS) else kind.itemsize))
        if taken > memory:
            raise LimitError(
                f"the value '{printable(name)}' takes {shown_size(taken)}: its shape is {list(shape)}, "
                f"and there are {shown_size(memory)} of memory",
                hint="give smaller shapes (--shape), or use a machine with more memory",
            )


def shape_candidates(sign: Signature, given: Shapes) -> Iterator[dict[str, tuple[int, ...]]]:
    """Whole shapes for all inputs: batch 1, and each of `SIZES` for what else is dynamic. `given` always wins."""
    free = any(not isinstance(d, int) for p in sign.inputs if p.name not in given for d in (p.shape or ())[1:])
    for size in SIZES if free else (1,):
        shapes: dict[str, tuple[int, ...]] = {}
        for port in sign.inputs:
            if port.name in given:
                shapes[port.name] = given[port.name]
            elif port.shape is not None:
                shapes[port.name] = tuple(
                    d
                    if isinstance(d, int)
                    else given[d][0]
                    if d is not None and d in given
                    else 1
                    if axis == 0 or (d and BATCH.search(d))
                    else size
                    for axis, d in enumerate(port.shape)
                )
        yield shapes


def table_limits(model: ir.Model) -> dict[str, int]:
    """For integer inputs that index a constant table (Gather of an embedding): its number of rows."""
    limits: dict[str, int] = {}
    integers = {v.name: v for v in model.graph.inputs if v.dtype is not None and v.dtype.is_integer()}
    for name, value in integers.items():
        front, seen = [value], set()
        while front:
            current = front.pop()
            for use in current.uses():
                node = use.node
                if node.op_type == "Gather" and use.idx == 1:
                    table = node.inputs[0]
                    if table is not None and constant(table) is not None and table.const_value is not None:
                        rows = table.const_value.numpy().shape[0]
                        limits[name or ""] = min(rows, limits.get(name or "", rows))
                elif (
                    node.op_type in ("Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten", "Transpose")
                    and id(node) not in seen
                ):
                    seen.add(id(node))
                    front.append(node.outputs[0])
    return limits


def runnable_shapes(
    model: ir.Model, sign: Signature, given: Shapes, config: SessionConfig, seed: int, limits: Limits
) -> dict[str, tuple[int, ...]]:
    """Input shapes that the model runs on with random values; each try in a child process.

    Raises:
        ModelError: ONNX Runtime can't load the model.
        NotRunnable: No size was accepted; the hint says to give real feeds or --shape.
    """
    try_out(model, config, limits)
    tables = table_limits(model)
    failure: OnnxcompError | None = None
    for shapes in shape_candidates(sign, given):
        try:
            feed = next(iter(random_reader(sign, 1, shapes=shapes, limits=tables, seed=seed)))
            try_out(model, config, limits, feed)
        except (ModelError, DataError) as error:
            failure = failure or error
        else:
            return shapes
    assert failure is not None
    free = (p for p in sign.inputs if p.shape is None or not all(isinstance(d, int) for d in p.shape))
    dynamic = ", ".join(p.name for p in free if p.dtype is not None)
    of_numbers = all(p.dtype is not None for p in sign.inputs)  # no size makes random strings or sequences
    hint = "give real feeds with --eval or --calibration" + (
        f", or sizes for {dynamic} with --shape NAME=1,3,224,224" if dynamic and of_numbers else ""
    )
    raise NotRunnable(f"the model does not run on random feeds: {failure.message}", hint=hint)


def shapes_of(feed: Feed) -> dict[str, tuple[int, ...]]:
    """The shapes of one call."""
    return {name: tuple(array.shape) for name, array in feed.items()}
