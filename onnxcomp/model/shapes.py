"""Shapes of values: clear, infer, verify. Stale shapes are worse than none."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import onnx
import onnx_ir as ir

from onnxcomp.errors import ModelError
from onnxcomp.model.contrib import add_functions
from onnxcomp.model.inference import Refused, infer
from onnxcomp.ops.attributes import is_standard

logger = logging.getLogger(__name__)

SMALL = 1000
"""Bytes of the largest constant whose content inference is given: vectors of sizes, not weights."""


def refresh(model: ir.Model, *, keep_foreign: bool = False) -> None:
    """Forgets the shapes of all intermediate values and infers them anew, in place.

    Inference keeps an old shape that contradicts the new weights, so the old ones go first. Where
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
    proto = _skeleton(model)
    known = (v for node in model.graph for v in node.outputs if v.type is not None and not v.is_graph_output())
    proto.graph.value_info.extend(ir.serde.serialize_value(v) for v in known)
    inferred = _infer(proto)
    if inferred is not None:
        _take(model.graph, inferred)
    for value, shape in declared.items():
        value.shape = _completed(value.shape, shape)


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


def in_call(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Concrete shapes by value name, as far as they can be inferred, when the inputs have these; no copy is made.

    Args:
        model: Canonical; not changed.
        shapes: Of all inputs.

    Raises:
        ModelError: As for `bind`.
    """
    proto = _skeleton(model)
    for info in proto.graph.output:
        info.type.tensor_type.ClearField("shape")
    for value in model.graph.inputs:
        if (wanted := shapes.get(value.name or "")) is not None:
            _checked(value, wanted)
    for info in proto.graph.input:
        if info.name in shapes:
            ir.serde.serialize_shape_into(info.type, ir.Shape(list(shapes[info.name])))
    inferred = _infer(proto)
    found = {}
    for info in () if inferred is None else (*inferred.input, *inferred.value_info, *inferred.output):
        shape = info.type.tensor_type.shape
        if info.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in shape.dim):
            found[info.name] = tuple(d.dim_value for d in shape.dim)
    return found


def type_complaint(model: ir.Model) -> str | None:
    """What onnx's strict inference finds wrong with the types and shapes that the values declare; None if nothing."""
    proto = _skeleton(model)
    known = (v for node in model.graph for v in node.outputs if v.type is not None and not v.is_graph_output())
    proto.graph.value_info.extend(ir.serde.serialize_value(v) for v in known)
    try:
        infer(proto, strict=True)
    except Refused as error:
        return " ".join(str(error).split())[:300]
    return None


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


def _infer(proto: onnx.ModelProto) -> onnx.GraphProto | None:
    """What onnx infers; None where it gives up on the whole model.

    Not onnx-ir's `ShapeInferencePass`: that reads back the whole model (most of the time, for thousands of nodes), and
    makes a tensor of a sequence.
    """
    add_functions(proto)
    try:
        return infer(proto).graph
    except Refused as error:
        logger.debug("shape inference failed: %s", error)
        return None


def _skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model without large weights, those as inputs, and without what inference is to find."""
    proto = onnx.ModelProto(ir_version=model.ir_version, graph=onnx.GraphProto(name=model.graph.name or "graph"))
    proto.opset_import.extend(onnx.helper.make_opsetid(d, version) for d, version in model.opset_imports.items())
    proto.functions.extend(ir.serde.serialize_function(f) for f in model.functions.values())
    inputs = {v.name: v for v in model.graph.inputs}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if name not in inputs and tensor is not None:
            proto.graph.input.append(
                onnx.helper.make_tensor_value_info(name, tensor.dtype.value, list(tensor.shape.numpy()))
            )
        if tensor is not None and tensor.nbytes <= SMALL:
            proto.graph.initializer.append(ir.serde.serialize_tensor(tensor))
            proto.graph.initializer[-1].name = name
    proto.graph.input.extend(ir.serde.serialize_value(v) for v in inputs.values())
    proto.graph.output.extend(ir.serde.serialize_value(v) for v in model.graph.outputs)
    proto.graph.node.extend(ir.serde.serialize_node(node) for node in model.graph)
    return proto


def _take(graph: ir.Graph, inferred: onnx.GraphProto) -> None:
    """Gives the values of a graph, and of the bodies in it, the types and shapes that were inferred."""
    types = {info.name: info.type for info in (*inferred.value_info, *inferred.output)}
    for node, proto in zip(graph, inferred.node, strict=True):
        for value in node.outputs:
            found = types.get(value.name or "")
            if found is None or found.WhichOneof("value") is None:
                continue
            value.type = ir.serde.deserialize_type_proto_for_type(found) or value.type
            value.shape = ir.serde.deserialize_type_proto_for_shape(found) or value.shape
        for attribute in proto.attribute if any(a.HasField("g") for a in proto.attribute) else ():
            if attribute.HasField("g"):
                _take(node.attributes[attribute.name].as_graph(), attribute.g)
