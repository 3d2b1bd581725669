"""Shapes of values: clear, infer, verify. Stale shapes are worse than none."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes import common

from onnxcomp.errors import ModelError
from onnxcomp.ops.attributes import is_standard


def refresh(model: ir.Model, *, keep_foreign: bool = False) -> None:
    """Forgets the shapes of all intermediate values and infers them anew, in place.

    onnx-ir's `ShapeInferencePass` keeps an old shape that contradicts the new weights, so the old ones go first. Where
    inference fails (an operator that onnx does not know), the values stay without a shape. The shapes that the file
    declares for its outputs don't take part, since the runtime does not hold a model to them; afterwards they fill in
    what was not inferred.

    Args:
        model: Edited in place; its names must be unique.
        keep_foreign: Keep the shapes of what custom operators put out: nothing that they depend on has changed.
    """
    inputs = set(model.graph.inputs)
    declared = {v: v.shape for v in model.graph.outputs if v not in inputs and not v.is_initializer()}
    for node in model.graph.all_nodes():
        if not keep_foreign or is_standard(node):
            for value in node.outputs:
                value.shape = None
    lists = {v: v.type for node in model.graph.all_nodes() for v in node.outputs if _is_list(v)}
    with _silence("onnx_ir.passes.common.shape_inference"):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for value, kind in lists.items():
        value.type, value.shape = kind, None
    for value, shape in declared.items():
        value.shape = _completed(value.shape, shape)


_LIST_MAKERS = frozenset(
    "Optional SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceMap SplitToSequence".split()
)


def _is_list(value: ir.Value) -> bool:
    """Whether a value is a sequence or an optional: onnx-ir's merge of inferred types makes tensors of those."""
    node = value.producer()
    if value.type is not None or node is None or not is_standard(node):
        return isinstance(value.type, ir.SequenceType | ir.OptionalType)
    match node.op_type:
        case "Identity":
            return node.inputs[0] is not None and _is_list(node.inputs[0])
        case "If":
            return _is_list(node.attributes["then_branch"].as_graph().outputs[value.index() or 0])
        case "Loop":  # its body also gives out the condition, first
            return _is_list(node.attributes["body"].as_graph().outputs[1 + (value.index() or 0)])
    return node.op_type in _LIST_MAKERS


def trusted(value: ir.Value | None) -> ir.Shape | None:
    """The shape, where it was inferred or is enforced: what a file declares for an output may be wrong."""
    if value is None or (value.is_graph_output() and value.producer() is not None):
        return None
    return value.shape


def bind(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Gives the named inputs concrete shapes, in place, and infers everything from them.

    Symbols that get a number this way get it everywhere, unless two inputs disagree about it. Names that are no inputs
    are passed over.

    Raises:
        ModelError: A shape contradicts the rank or a fixed dimension of its input.
    """
    symbols: dict[str, set[int]] = {}
    for value in model.graph.inputs:
        wanted = shapes.get(value.name or "")
        if wanted is None:
            continue
        for have, want in zip(_checked(value, wanted), wanted, strict=False):
            if not isinstance(have, int) and have.value is not None:
                symbols.setdefault(str(have.value), set()).add(want)
        value.shape = ir.Shape(list(wanted))
    known = {symbol: sizes.pop() for symbol, sizes in symbols.items() if len(sizes) == 1}
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([d if isinstance(d, int) else known.get(str(d.value), d) for d in value.shape])
    refresh(model)


def _checked(value: ir.Value, wanted: Sequence[int]) -> Sequence[int | ir.SymbolicDim]:
    """The declared dimensions of an input that takes the shape `wanted`; empty if its rank is not known."""
    if value.shape is None:
        return ()
    dims: list[int | ir.SymbolicDim] = [d if isinstance(d, int) else ir.SymbolicDim(d.value) for d in value.shape]
    fits = len(dims) == len(wanted) and all(
        have == want for have, want in zip(dims, wanted, strict=True) if isinstance(have, int)
    )
    if not fits:
        raise ModelError(
            f"input {value.name!r} is {value.shape} in the model; the shape {list(wanted)} does not fit",
            hint="Give as many dimensions as the input has, and its own numbers where they are fixed.",
        )
    return dims


def _completed(inferred: ir.Shape | None, declared: ir.Shape | None) -> ir.Shape | None:
    """Inferred numbers, and what is declared for the other dimensions."""
    if inferred is None or declared is None or len(inferred) != len(declared):
        return declared if inferred is None else inferred
    return ir.Shape([i if isinstance(i, int) else d for i, d in zip(inferred, declared, strict=True)])


@contextmanager
def _silence(name: str) -> Iterator[None]:
    """Inference warns about each operator that it does not know, with a traceback."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
