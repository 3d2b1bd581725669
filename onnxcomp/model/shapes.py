"""Shapes of values: clear, infer, verify. Stale shapes are worse than none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from onnxcomp.errors import ModelError


def refresh(model: ir.Model) -> None:
    """Forgets the shapes of all intermediate values and infers them anew, in place.

    onnx-ir's `ShapeInferencePass` keeps an old shape that contradicts the new weights, so the old ones go first. Where inference fails
    (an operator that onnx does not know), the values stay without a shape.
    """
    kept = {id(v) for v in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if id(value) not in kept:
                value.shape = None
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def bind(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Gives the named inputs concrete shapes, in place, and infers everything from them.

    Symbols that get a number this way get it everywhere.

    Raises:
        ModelError: A shape contradicts the rank or a fixed dimension of its input.
    """
    symbols: dict[str, int] = {}
    for value in model.graph.inputs:
        wanted = shapes.get(value.name or "")
        if wanted is None:
            continue
        if value.shape is not None:
            if len(value.shape) != len(wanted):
                raise ModelError(
                    f"input {value.name!r} has rank {len(value.shape)}, but the shape {list(wanted)} has rank {len(wanted)}"
                )
            for have, want in zip(value.shape, wanted, strict=True):
                if isinstance(have, int):
                    if have != want:
                        raise ModelError(
                            f"input {value.name!r} is {value.shape} in the model; the shape {list(wanted)} does not fit"
                        )
                elif have.value is not None:
                    symbols[str(have.value)] = want
        value.shape = ir.Shape(list(wanted))
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([symbols.get(str(d.value), d) if not isinstance(d, int) else d for d in value.shape])
    refresh(model)
